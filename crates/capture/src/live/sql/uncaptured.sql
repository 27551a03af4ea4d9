-- Tables that a replication source's patterns take in, and that it does not have.
SELECT m.schema_name || '.' || m.table_name
FROM muniment.members($1) m
WHERE m.published AND NOT EXISTS (SELECT FROM muniment.attached a WHERE a.source = $1 AND a.relation = m.relation AND a.published)
ORDER BY 1
