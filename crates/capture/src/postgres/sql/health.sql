-- How far the source's slot is behind, and what the server keeps for it. No row if the slot is gone.
SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::int8 AS written,
    (s.confirmed_flush_lsn - '0/0'::pg_lsn)::int8 AS confirmed,
    greatest(pg_current_wal_lsn() - s.confirmed_flush_lsn, 0)::int8 AS lag_bytes,
    greatest(pg_current_wal_lsn() - s.restart_lsn, 0)::int8 AS kept_bytes,
    s.active, s.wal_status::text AS wal_status, s.safe_wal_size::int8 AS safe_wal_bytes,
    (SELECT count(*) FROM pg_event_trigger WHERE evtname IN ('muniment_ddl', 'muniment_rewrite', 'muniment_drop') AND evtenabled IN ('O', 'A')) = 3 AS watches_ddl
FROM pg_replication_slots s WHERE s.slot_name = $1
