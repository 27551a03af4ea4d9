-- Tables whose triggers write to the queue, with the name under which their changes are recorded.
SELECT q.relation, q.table_name AS name, n.nspname::text AS schema_name, c.relname::text AS table_name, c.relkind = 'p' AS is_partitioned
FROM muniment.queue_table q JOIN pg_class c ON c.oid = q.relation JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY q.table_name COLLATE "C"
