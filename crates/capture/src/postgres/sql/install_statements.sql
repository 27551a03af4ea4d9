-- Tables with columns of the types that the command at hand has altered, or of types that are made of them: other labels or attributes are other values of theirs.
CREATE OR REPLACE FUNCTION muniment.retyped_tables(tag text) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE made AS (
        SELECT coalesce(c.reltype, d.objid) AS oid
        FROM pg_event_trigger_ddl_commands() d LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
        WHERE tag IN ('ALTER TYPE', 'ALTER DOMAIN')
        UNION
        SELECT t.oid
        FROM made JOIN pg_type t ON t.typbasetype = made.oid OR t.typelem = made.oid
            OR (t.typtype = 'c' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND a.atttypid = made.oid))
            OR EXISTS (SELECT FROM pg_range r WHERE r.rngsubtype = made.oid AND t.oid IN (r.rngtypid, r.rngmultitypid))
    )
    SELECT DISTINCT a.attrelid FROM made JOIN pg_attribute a ON a.atttypid = made.oid AND a.attnum > 0 AND NOT a.attisdropped
$$;

-- Whether ALTER TYPE leaves rows of tables other than they were: new labels don't, nor do names and owners of types.
CREATE OR REPLACE FUNCTION muniment.alters_values(statement text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT statement ~* '\mrename\s+value\M|\mattribute\M' OR statement !~* '\m(add\s+value|rename\s+to|owner\s+to|set\s+schema)\M'
$$;

-- What is recorded of the text that a client sent, of which DDL is a part: other statements hold values that may be meant to stay here. Of several, those that begin like the
-- DDL and are whole; a single one that begins otherwise, such as DO, only if nothing is left out or masked: then literals are hidden, too.
CREATE OR REPLACE FUNCTION muniment.ddl_statement(tag text, query text, is_discreet boolean) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN is_discreet THEN CASE WHEN said !~ '\$' THEN regexp_replace(said, '''([^'']|'''')*''', '''***''', 'g') END ELSE said END
    FROM (SELECT CASE
        WHEN query LIKE '%muniment.refresh%' OR query LIKE '%queue_refresh%' THEN NULL
        WHEN btrim(query, E' \t\r\n;') NOT LIKE '%;%' AND (NOT is_discreet OR ltrim(query, E' \t\r\n') ~* ('^' || split_part(tag, ' ', 1) || '\M')) THEN left(query, 4000)
        ELSE (
            SELECT left(string_agg(btrim(part, E' \t\r\n'), '; ' ORDER BY place), 4000)
            FROM regexp_split_to_table(query, ';') WITH ORDINALITY AS parts (part, place)
            WHERE part ~* ('^\s*' || replace(tag, ' ', '\s+') || '\M') AND part !~ '\$' AND (length(part) - length(replace(part, '''', ''))) % 2 = 0
        )
    END AS said) statement
$$
