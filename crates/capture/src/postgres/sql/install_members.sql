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
$$;

-- The columns of a table's primary key, in the key's order.
CREATE OR REPLACE FUNCTION muniment.key_of(relation oid, OUT names text[], OUT numbers int2[])
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(a.attname::text ORDER BY k.place), '{}'), coalesce(array_agg(a.attnum ORDER BY k.place), '{}')
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = relation AND i.indisprimary
$$;

-- Notes the keys of tables, their columns that are left out or masked and the tables that partitions come with, and keeps keys that are others now for the changes that are still to be read.
CREATE OR REPLACE FUNCTION muniment.note_columns() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM muniment.former_key f
    WHERE f.until < (SELECT min(s.confirmed_flush_lsn) FROM muniment.source m JOIN pg_replication_slots s ON s.slot_name = m.slot);
    INSERT INTO muniment.former_key (relation, until, key_columns)
    SELECT DISTINCT a.relation, pg_current_wal_insert_lsn(), a.key_columns
    FROM muniment.attached a CROSS JOIN LATERAL muniment.key_of(a.relation) k
    WHERE a.key_columns IS DISTINCT FROM k.names AND a.key_columns IS NOT NULL;
    UPDATE muniment.attached a SET key_columns = k.names, key_numbers = k.numbers
    FROM muniment.attached b CROSS JOIN LATERAL muniment.key_of(b.relation) k
    WHERE b.source = a.source AND b.relation = a.relation AND (a.key_columns, a.key_numbers) IS DISTINCT FROM (k.names, k.numbers);
    UPDATE muniment.attached a SET column_numbers = a.column_numbers || now.numbers
    FROM muniment.attached b CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(c.attname, c.attnum) AS numbers FROM pg_attribute c WHERE c.attrelid = b.relation AND c.attnum > 0 AND NOT c.attisdropped) now
    WHERE b.source = a.source AND b.relation = a.relation AND NOT a.column_numbers @> now.numbers;
    WITH judged AS (
        SELECT s.name AS source, m.relation, m.root,
            array_agg(c.attnum) FILTER (WHERE EXISTS (
                SELECT FROM unnest(s.excluded_schemas, s.excluded_tables, s.excluded_columns) AS pattern (schema_like, table_like, column_like)
                WHERE n.nspname LIKE schema_like AND r.relname LIKE table_like AND c.attname LIKE column_like)) AS hidden,
            array_agg(c.attnum) FILTER (WHERE EXISTS (
                SELECT FROM unnest(s.masked_schemas, s.masked_tables, s.masked_columns) AS pattern (schema_like, table_like, column_like)
                WHERE n.nspname LIKE schema_like AND r.relname LIKE table_like AND c.attname LIKE column_like)) AS masked
        FROM muniment.source s CROSS JOIN LATERAL muniment.members(s.name) m
        JOIN pg_class r ON r.oid = m.root JOIN pg_namespace n ON n.oid = r.relnamespace
        JOIN pg_attribute c ON c.attrelid = m.relation AND c.attnum > 0 AND NOT c.attisdropped
        GROUP BY s.name, m.relation, m.root
    )
    UPDATE muniment.attached a
    SET root = j.root, hidden_numbers = ARRAY(SELECT DISTINCT unnest(coalesce(a.hidden_numbers, '{}') || coalesce(j.hidden, '{}'))),
        masked_numbers = ARRAY(SELECT DISTINCT unnest(coalesce(a.masked_numbers, '{}') || coalesce(j.masked, '{}')))
    FROM judged j
    WHERE j.source = a.source AND j.relation = a.relation
        AND NOT (coalesce(j.hidden, '{}') <@ coalesce(a.hidden_numbers, '{}') AND coalesce(j.masked, '{}') <@ coalesce(a.masked_numbers, '{}')
            AND a.root IS NOT DISTINCT FROM j.root)
$$
