-- The columns of a table that a source may see, as a list in parentheses; NULL if that is all of them. Patterns are compared with the name of `root`, under which a
-- partition is published.
CREATE OR REPLACE FUNCTION muniment.visible_columns(source_name text, relation oid, root oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH judged AS (
        SELECT a.attnum, a.attname, a.attgenerated, EXISTS (
            SELECT FROM unnest(s.excluded_schemas, s.excluded_tables, s.excluded_columns) AS pattern (schema_like, table_like, column_like)
            WHERE n.nspname LIKE pattern.schema_like AND r.relname LIKE pattern.table_like AND a.attname LIKE pattern.column_like)
            OR EXISTS (SELECT FROM muniment.attached h WHERE h.source = s.name AND h.relation = a.attrelid AND a.attnum = ANY (h.hidden_numbers)) AS excluded
        FROM muniment.source s, pg_class r
        JOIN pg_namespace n ON n.oid = r.relnamespace
        JOIN pg_attribute a ON a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
        WHERE s.name = source_name AND r.oid = root
    )
    SELECT '(' || string_agg(quote_ident(attname), ', ' ORDER BY attnum) FILTER (WHERE NOT excluded AND attgenerated = '') || ')'
    FROM judged HAVING bool_or(excluded)
$$
