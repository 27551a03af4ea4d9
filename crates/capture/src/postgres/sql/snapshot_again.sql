-- All tables need a new baseline, since changes were missed. Rows of tables without a key are known by all their values: those that changed meanwhile end here.
WITH again AS (
    UPDATE muniment.attached a SET baseline = nextval('muniment.baseline') FROM muniment.source s
    WHERE a.source = $1 AND s.name = a.source AND s.baseline
    RETURNING a.schema_name || '.' || a.table_name AS name, a.published AND to_jsonb(a) -> 'key_numbers' = '[]' AS is_ended
)
SELECT pg_logical_emit_message(true, 'muniment.ddl',
    json_build_object('tag', 'a new baseline after a gap', 'tables', json_agg(name), 'dropped', json_agg(name))::text)
FROM again WHERE is_ended HAVING count(*) > 0
