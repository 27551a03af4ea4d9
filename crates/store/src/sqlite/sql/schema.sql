-- The ledger side of the commit database. The registers' tables are added from the model when a database is created.
-- Times are microseconds UTC, hashes 32 bytes, index ranges half-open: first <= stream_index < end_index.
CREATE TABLE installation (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    origin         TEXT    NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;

-- One row: the meta-log. size is also the number of the next commit.
CREATE TABLE meta_head (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    size     INTEGER NOT NULL,
    frontier BLOB    NOT NULL,
    time     INTEGER NOT NULL
) STRICT;

CREATE TABLE meta_leaf (
    number INTEGER PRIMARY KEY,
    leaf   BLOB NOT NULL
) STRICT;

-- Where the rare leaves are: keys and schemas (later disposals and erasures), so that nobody has to search the meta-log for them.
CREATE TABLE landmark (
    number  INTEGER PRIMARY KEY REFERENCES meta_leaf (number),
    type    TEXT NOT NULL CHECK (type IN ('key', 'schema', 'disposal', 'erasure')),
    subject TEXT NOT NULL
) STRICT;

CREATE TABLE checkpoint (
    size INTEGER PRIMARY KEY,
    note TEXT NOT NULL
) STRICT;

CREATE TABLE log_head (
    log     TEXT PRIMARY KEY,
    next_id INTEGER NOT NULL
) STRICT;

CREATE TABLE stream (
    stream          TEXT    PRIMARY KEY,
    log             TEXT    NOT NULL,
    retention_years INTEGER NOT NULL,
    size            INTEGER NOT NULL,
    frontier        BLOB    NOT NULL,
    last_hash       BLOB    NOT NULL,
    recorded_at     INTEGER NOT NULL
) STRICT;

-- Which commit brought a stream to which size: finds the first checkpoint that covers a record.
CREATE TABLE stream_commit (
    stream TEXT    NOT NULL REFERENCES stream (stream),
    size   INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (stream, size)
) STRICT, WITHOUT ROWID;

-- Salts of a month's records; destroyed with the records they protect.
CREATE TABLE partition_key (
    stream TEXT NOT NULL,
    month  TEXT NOT NULL CHECK (month GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]'),
    key    BLOB NOT NULL CHECK (length(key) = 32),
    PRIMARY KEY (stream, month)
) STRICT, WITHOUT ROWID;

-- Records not yet in Parquet. A flush sets flushed_at; the row goes when no reader of this process holds it any more.
CREATE TABLE hot_batch (
    batch       INTEGER PRIMARY KEY,
    stream      TEXT    NOT NULL REFERENCES stream (stream),
    first       INTEGER NOT NULL,
    end_index   INTEGER NOT NULL CHECK (end_index > first),
    first_id    INTEGER NOT NULL,
    last_id     INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    min_time    INTEGER NOT NULL,
    max_time    INTEGER NOT NULL,
    hashes      BLOB    NOT NULL CHECK (length(hashes) = 32 * (end_index - first)),
    body        BLOB    NOT NULL,
    UNIQUE (stream, first)
) STRICT;

-- Ranges whose batches a file has replaced, until the batches are removed. Not a column of the batch: an update would write its body anew.
CREATE TABLE flushed (
    stream      TEXT    NOT NULL REFERENCES stream (stream),
    first       INTEGER NOT NULL,
    end_index   INTEGER NOT NULL CHECK (end_index > first),
    flushed_at  INTEGER NOT NULL,
    PRIMARY KEY (stream, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE file (
    path          TEXT    PRIMARY KEY,
    stream        TEXT    NOT NULL REFERENCES stream (stream),
    month         TEXT    NOT NULL,
    first         INTEGER NOT NULL,
    end_index     INTEGER NOT NULL CHECK (end_index > first),
    first_id      INTEGER NOT NULL,
    last_id       INTEGER NOT NULL,
    recorded_from INTEGER NOT NULL,
    recorded_to   INTEGER NOT NULL,
    min_time      INTEGER NOT NULL,
    max_time      INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    sha256        BLOB    NOT NULL CHECK (length(sha256) = 32),
    tier          TEXT    NOT NULL DEFAULT 'warm' CHECK (tier IN ('warm', 'cold')),
    previous_hash BLOB    NOT NULL CHECK (length(previous_hash) = 32),
    nodes         BLOB    NOT NULL,
    created_at    INTEGER NOT NULL,
    UNIQUE (stream, first)
) STRICT;

-- Files that a compaction replaced: kept for a while for readers that still hold them, then removed.
CREATE TABLE garbage (
    path  TEXT PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT;

CREATE TABLE idempotency (
    log         TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    answer      TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (log, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (created_at);

-- How far each resumable source has been taken in; written in the commit that holds its records.
CREATE TABLE position (
    source     TEXT PRIMARY KEY,
    value      TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
