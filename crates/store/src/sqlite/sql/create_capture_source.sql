-- Databases whose changes are captured. options is what attaching was asked for, as JSON; the URL holds a password. Added to data folders that are older than it.
CREATE TABLE IF NOT EXISTS capture_source (
    name        TEXT    PRIMARY KEY,
    kind        TEXT    NOT NULL,
    url         TEXT    NOT NULL,
    options     TEXT    NOT NULL,
    attached_at INTEGER NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('attaching', 'attached', 'detaching'))
) STRICT;
