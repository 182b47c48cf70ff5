-- Who may speak to the server: hosts, their certificates, and the tokens that let hosts and operators in.
-- Times are seconds since 1970 (UTC). Secrets are kept as SHA-256 only.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE join_tokens (
    token_id       TEXT PRIMARY KEY,
    secret_sha256  BLOB NOT NULL CHECK (length(secret_sha256) = 32),
    author         TEXT NOT NULL,
    created_unix_s INTEGER NOT NULL,
    expires_unix_s INTEGER NOT NULL,
    max_uses       INTEGER NOT NULL CHECK (max_uses > 0),
    uses           INTEGER NOT NULL DEFAULT 0 CHECK (uses BETWEEN 0 AND max_uses),
    revoked_unix_s INTEGER
) STRICT;

CREATE TABLE hosts (
    host_id          BLOB PRIMARY KEY CHECK (length(host_id) = 16),
    join_token_id    TEXT NOT NULL REFERENCES join_tokens (token_id),
    enrolled_unix_s  INTEGER NOT NULL,
    revoked_unix_s   INTEGER,
    last_seen_unix_s INTEGER,
    -- server::fleet::HostInventory and AgentStatus as JSON
    inventory        TEXT NOT NULL,
    status           TEXT
) STRICT;

CREATE TABLE host_certificates (
    serial            BLOB PRIMARY KEY,
    host_id           BLOB NOT NULL REFERENCES hosts (host_id),
    -- Order of issue within a host.
    issue             INTEGER NOT NULL,
    not_after_unix_s  INTEGER NOT NULL,
    issued_unix_s     INTEGER NOT NULL,
    -- Set when a certificate issued later was used for the first time; refused from then on.
    superseded_unix_s INTEGER,
    UNIQUE (host_id, issue)
) STRICT;

CREATE TABLE api_tokens (
    token_id       INTEGER PRIMARY KEY,
    name           TEXT NOT NULL,
    role           TEXT NOT NULL CHECK (role IN ('viewer', 'analyst', 'engineer', 'admin')),
    secret_sha256  BLOB NOT NULL UNIQUE CHECK (length(secret_sha256) = 32),
    created_unix_s INTEGER NOT NULL,
    revoked_unix_s INTEGER
) STRICT;
