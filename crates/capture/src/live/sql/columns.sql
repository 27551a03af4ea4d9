-- Columns of a table: the type that a domain is based on, and the place in the key. The key is the primary key, else the index of the replica identity.
SELECT a.attname::text AS name, a.attgenerated <> '' AS is_generated, base.name AS type, key.place AS key_place
FROM pg_attribute a
CROSS JOIN LATERAL (
    WITH RECURSIVE up AS (
        SELECT t.oid, t.typname, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL
        SELECT t.oid, t.typname, t.typbasetype FROM up JOIN pg_type t ON t.oid = up.typbasetype
    )
    SELECT CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN up.typname::text ELSE '' END AS name
    FROM up JOIN pg_type t USING (oid) WHERE up.typbasetype = 0
) base
LEFT JOIN LATERAL (
    SELECT k.place FROM (
        SELECT i.indkey FROM pg_index i WHERE i.indrelid = a.attrelid AND (i.indisprimary OR i.indisreplident) ORDER BY i.indisprimary DESC LIMIT 1
    ) i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place) WHERE k.attnum = a.attnum
) key ON true
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
