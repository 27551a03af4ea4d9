-- State of a replication slot. The replication protocol binds no values, so the name stands in the text; it has been checked to be a slot's name.
SELECT plugin, database, confirmed_flush_lsn, wal_status
FROM pg_catalog.pg_replication_slots
WHERE slot_name = '{slot}'
