-- What this transaction sees, and when it began to: the snapshot, the time in µs, and the table's file.
SELECT pg_current_snapshot()::text AS snapshot, (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS taken_at, c.relfilenode AS file, c.relkind::text AS kind,
    n.nspname::text AS schema_name, c.relname::text AS table_name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1
