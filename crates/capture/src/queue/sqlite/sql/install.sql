-- The queue: numbers are never used again, and are commit order, since there is one writer at a time.
CREATE TABLE IF NOT EXISTS muniment_audit_queue (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    table_name          TEXT NOT NULL,
    operation           TEXT NOT NULL,
    queued_at           INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    old_row             TEXT,
    new_row             TEXT,
    masked_changes      TEXT,
    context_id          INTEGER,
    context             TEXT,
    processing_attempts INTEGER NOT NULL DEFAULT 0,
    last_error          TEXT,
    is_dead             INTEGER NOT NULL DEFAULT 0
);
-- Who acts and why, for the transaction that inserted it: INSERT INTO muniment_context (document) VALUES ('{"user_id": 7}'), and at its end DELETE FROM muniment_context.
-- The reference to a row that never exists makes the database refuse to commit a context that was left behind (with foreign keys on).
CREATE TABLE IF NOT EXISTS muniment_context_end (id INTEGER PRIMARY KEY CHECK (id < 0));
CREATE TABLE IF NOT EXISTS muniment_context (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    document TEXT NOT NULL,
    ends     INTEGER NOT NULL DEFAULT 0 REFERENCES muniment_context_end (id) DEFERRABLE INITIALLY DEFERRED
);
-- The audited tables, and the options by which they were attached.
CREATE TABLE IF NOT EXISTS muniment_audit_table (
    table_name TEXT PRIMARY KEY,
    excluded   TEXT NOT NULL,
    masked     TEXT NOT NULL,
    columns    TEXT NOT NULL,
    key        TEXT NOT NULL,
    is_gone    INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS muniment_audit_state (
    name           TEXT PRIMARY KEY,
    schema_version INTEGER NOT NULL,
    processed      INTEGER NOT NULL DEFAULT 0
);
-- The patterns by which tables are taken in, and columns left out or masked, as JSON.
CREATE TABLE IF NOT EXISTS muniment_audit_pattern (
    tables    TEXT NOT NULL,
    excluded  TEXT NOT NULL,
    masked    TEXT NOT NULL,
    with_rows INTEGER NOT NULL
);
-- Keys of tables for the changes with numbers up to `until`, of which later ones have another.
CREATE TABLE IF NOT EXISTS muniment_audit_shape (
    table_name TEXT NOT NULL,
    until      INTEGER NOT NULL,
    key        TEXT NOT NULL
)
