-- Columns of a table with a trigger queue that are left out or masked.
SELECT c.attname::text AS name, c.attname = ANY (q.excluded) AS is_excluded, c.attname = ANY (q.masked) AS is_masked
FROM muniment.queue_table q JOIN pg_attribute c ON c.attrelid = q.relation AND NOT c.attisdropped
WHERE q.relation = $1
