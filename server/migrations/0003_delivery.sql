-- What is known of the way of each host's events: the hash chain over its batches, and its own accounts.

CREATE TABLE host_chains (
    host_id BLOB NOT NULL REFERENCES hosts (host_id),
    -- The agent's epoch, its bits taken as a signed number.
    epoch   INTEGER NOT NULL,
    -- server::chain::EpochChain as JSON
    state   TEXT NOT NULL,
    PRIMARY KEY (host_id, epoch)
) STRICT;

CREATE TABLE host_accounts (
    host_id         BLOB NOT NULL REFERENCES hosts (host_id),
    epoch           INTEGER NOT NULL,
    -- server::fleet::EpochAccount as JSON
    account         TEXT NOT NULL,
    reported_unix_s INTEGER NOT NULL,
    PRIMARY KEY (host_id, epoch)
) STRICT;

-- Two agents used one identity: refused until an operator decides.
ALTER TABLE hosts ADD COLUMN quarantined_unix_s INTEGER;
ALTER TABLE hosts ADD COLUMN quarantine_reason TEXT;
