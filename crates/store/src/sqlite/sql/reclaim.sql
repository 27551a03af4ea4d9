-- Free pages back to the file system, and the write-ahead log into the database.
PRAGMA incremental_vacuum;
PRAGMA wal_checkpoint(TRUNCATE);
