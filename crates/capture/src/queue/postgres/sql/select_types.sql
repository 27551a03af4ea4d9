-- What types are made of.
SELECT t.oid AS type, t.typname::text AS name, t.typbasetype AS base,
    CASE WHEN t.typcategory = 'A' AND t.typtype = 'b' THEN t.typelem ELSE 0 END AS element,
    CASE WHEN t.typtype IN ('r', 'm') THEN coalesce((SELECT rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)), 0) ELSE 0 END AS bound,
    t.typtype = 'c' AS is_composite,
    ARRAY(SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS fields
FROM pg_type t WHERE t.oid = ANY ($1)
