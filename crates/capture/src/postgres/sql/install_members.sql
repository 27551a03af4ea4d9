-- The tables and partitions that a source's patterns take in. A partition comes with the topmost of its parents that a pattern names; `published` is true for those that
-- are named themselves.
CREATE OR REPLACE FUNCTION muniment.members(source_name text)
RETURNS TABLE (relation oid, schema_name text, table_name text, kind "char", identity "char", has_key boolean, published boolean, root oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH named AS (
        SELECT c.oid
        FROM muniment.source s
        CROSS JOIN LATERAL unnest(s.schemas, s.tables) AS pattern (schema_like, table_like)
        JOIN pg_namespace n ON n.nspname LIKE pattern.schema_like AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'muniment')
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname LIKE pattern.table_like
        WHERE s.name = source_name AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    ), top AS (
        SELECT DISTINCT oid FROM named
        EXCEPT
        SELECT t.relid FROM named, pg_partition_tree(named.oid) t WHERE t.level > 0
    ), member AS (
        SELECT top.oid, true AS published, top.oid AS root FROM top
        UNION ALL
        SELECT t.relid, false, top.oid FROM top, pg_partition_tree(top.oid) t WHERE t.level > 0
    )
    SELECT c.oid, n.nspname::text, c.relname::text, c.relkind, c.relreplident,
        EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), member.published, member.root
    FROM member JOIN pg_class c ON c.oid = member.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence = 'p' AND c.relkind IN ('r', 'p')
$$
