INSERT INTO muniment.attached AS a (source, relation, schema_name, table_name, published, former_identity, former_index, baseline)
SELECT s.name, m.relation, m.schema_name, m.table_name, m.published, coalesce(o.former_identity, m.identity),
    coalesce(o.former_index, (SELECT i.indexrelid::regclass::text FROM pg_index i WHERE i.indrelid = m.relation AND i.indisreplident)),
    CASE WHEN s.baseline THEN nextval('muniment.baseline') END
FROM muniment.source s CROSS JOIN LATERAL muniment.members(s.name) m
LEFT JOIN LATERAL (SELECT f.former_identity, f.former_index FROM muniment.attached f WHERE f.relation = m.relation ORDER BY f.source LIMIT 1) o ON true
WHERE s.name = {name}
ORDER BY m.relation
ON CONFLICT (source, relation) DO NOTHING;
SELECT muniment.note_columns()
