-- Tables with columns of these types, or of types that are made of them.
CREATE OR REPLACE FUNCTION muniment.tables_of_types(types oid[]) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE made AS (
        SELECT unnest(types) AS oid
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
$$
