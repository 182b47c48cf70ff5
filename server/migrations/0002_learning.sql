-- What people said about events, and what was learned from it.
-- Labels, stages and desired states are histories: rows are added, never changed or removed.

CREATE TABLE labels (
    -- Grows with time; the highest one is a snapshot's number.
    label_id        INTEGER PRIMARY KEY AUTOINCREMENT,
    host_id         BLOB NOT NULL CHECK (length(host_id) = 16),
    epoch           INTEGER NOT NULL,
    sequence        INTEGER NOT NULL,
    verdict         TEXT NOT NULL CHECK (verdict IN ('benign', 'malicious')),
    -- Empty when unknown or benign.
    technique       TEXT NOT NULL,
    -- Which attack or piece of work the event is part of; empty when nobody said.
    label_group     TEXT NOT NULL,
    author          TEXT NOT NULL,
    source          TEXT NOT NULL,
    created_unix_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX labels_by_event ON labels (host_id, epoch, sequence, label_id);

CREATE TRIGGER labels_are_not_changed BEFORE UPDATE ON labels
BEGIN SELECT RAISE(ABORT, 'labels are only added'); END;
CREATE TRIGGER labels_are_not_removed BEFORE DELETE ON labels
BEGIN SELECT RAISE(ABORT, 'labels are only added'); END;

CREATE TABLE datasets (
    dataset_id      TEXT PRIMARY KEY,
    subject         TEXT NOT NULL,
    created_unix_s  INTEGER NOT NULL,
    author          TEXT NOT NULL,
    -- SHA-256 of the manifest, byte for byte as it is here and in the data set's folder.
    manifest_sha256 BLOB NOT NULL UNIQUE CHECK (length(manifest_sha256) = 32),
    manifest        TEXT NOT NULL
) STRICT;

CREATE TABLE models (
    -- SHA-256 of the signed file.
    model_sha256     BLOB PRIMARY KEY CHECK (length(model_sha256) = 32),
    subject          TEXT NOT NULL,
    version          INTEGER NOT NULL CHECK (version > 0),
    algorithm        TEXT NOT NULL,
    dataset_id       TEXT NOT NULL REFERENCES datasets (dataset_id),
    model_bytes      INTEGER NOT NULL,
    threshold        REAL NOT NULL,
    created_unix_s   INTEGER NOT NULL,
    training_seconds REAL NOT NULL,
    -- server::registry::RunRecord and server::evaluate::Report as JSON
    run              TEXT NOT NULL,
    evaluation       TEXT NOT NULL,
    UNIQUE (subject, version)
) STRICT;

CREATE TABLE model_stages (
    change_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    model_sha256   BLOB NOT NULL REFERENCES models (model_sha256),
    stage          TEXT NOT NULL CHECK (stage IN ('candidate', 'production', 'retired')),
    changed_unix_s INTEGER NOT NULL,
    author         TEXT NOT NULL
) STRICT;
CREATE INDEX model_stages_by_model ON model_stages (model_sha256, change_id);

CREATE TRIGGER model_stages_are_not_changed BEFORE UPDATE ON model_stages
BEGIN SELECT RAISE(ABORT, 'stages are only added'); END;
CREATE TRIGGER model_stages_are_not_removed BEFORE DELETE ON model_stages
BEGIN SELECT RAISE(ABORT, 'stages are only added'); END;

-- Which model every agent should predict with for a subject, from one generation on.
CREATE TABLE desired_models (
    generation   INTEGER PRIMARY KEY AUTOINCREMENT,
    subject      TEXT NOT NULL,
    model_sha256 BLOB NOT NULL REFERENCES models (model_sha256),
    set_unix_s   INTEGER NOT NULL,
    author       TEXT NOT NULL
) STRICT;

CREATE TRIGGER desired_models_are_not_changed BEFORE UPDATE ON desired_models
BEGIN SELECT RAISE(ABORT, 'desired models are only added'); END;
CREATE TRIGGER desired_models_are_not_removed BEFORE DELETE ON desired_models
BEGIN SELECT RAISE(ABORT, 'desired models are only added'); END;
