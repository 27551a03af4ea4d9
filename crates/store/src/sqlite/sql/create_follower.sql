-- Who follows a log, how far each has come, and what it remembers of what came before.
CREATE TABLE IF NOT EXISTS follower (
    name       TEXT    PRIMARY KEY,
    position   TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Records that follow from others, written in the transaction that moves the follower, on their way into their logs.
CREATE TABLE IF NOT EXISTS outbox (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    log  TEXT    NOT NULL,
    line TEXT    NOT NULL
) STRICT;
