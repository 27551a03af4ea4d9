-- The table under whose name a relation's changes are published, with its columns as the stream describes them.
WITH up AS (
    SELECT $2::oid AS oid, 0 AS level
    UNION ALL
    SELECT a.relid::oid, a.level FROM pg_partition_ancestors($2::oid::regclass) WITH ORDINALITY a (relid, level) WHERE a.relid <> $2::oid
), root AS (
    SELECT up.oid FROM up JOIN muniment.attached m ON m.source = $1 AND m.relation = up.oid AND m.published ORDER BY up.level DESC LIMIT 1
)
SELECT n.nspname::text AS schema_name, c.relname::text AS table_name, c.relreplident::text AS identity, a.attname::text AS column_name, a.atttypid AS type_oid,
    coalesce(b.oid, a.atttypid) AS base_oid, b.name AS base_name,
    CASE c.relreplident
        WHEN 'f' THEN true
        WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND a.attnum = ANY (i.indkey))
        WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey))
        ELSE false
    END AS is_identity,
    (SELECT array_position(i.indkey::int2[], a.attnum) FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS key_place
FROM root
JOIN pg_class c ON c.oid = root.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
JOIN pg_publication p ON p.pubname = (SELECT publication FROM muniment.source WHERE name = $1)
LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
LEFT JOIN LATERAL (
    WITH RECURSIVE chain AS (
        SELECT t.oid, t.typbasetype, t.typname FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL
        SELECT t.oid, t.typbasetype, t.typname FROM chain JOIN pg_type t ON t.oid = chain.typbasetype
    )
    SELECT oid, typname::text AS name FROM chain WHERE typbasetype = 0
) b ON true
WHERE r.prattrs IS NULL OR a.attnum = ANY (r.prattrs)
ORDER BY a.attnum
