-- All tables but those of the server and of Muniment; partitions are covered by their root.
SELECT n.nspname::text AS schema_name, c.relname::text AS table_name, c.relkind::text AS kind, c.relpersistence::text AS persistence,
    pg_has_role(c.relowner, 'USAGE') AS is_owned, c.relispartition AS is_partition,
    ARRAY(SELECT a.attname::text FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place) AS key,
    EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = '00_muniment_row_' || c.oid) AS is_attached
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'muniment')
ORDER BY n.nspname, c.relname
