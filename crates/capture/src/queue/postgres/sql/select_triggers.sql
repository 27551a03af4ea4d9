SELECT n.nspname::text AS schema_name, c.relname::text AS table_name, t.tgname::text AS trigger_name
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (t.tgname LIKE '00\_muniment\_row%' OR t.tgname = '00_muniment_truncate') AND t.tgparentid = 0
ORDER BY 1, 2, 3
