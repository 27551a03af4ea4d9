-- Tables that a replication source publishes, with the name under which their changes are recorded.
SELECT a.relation, a.schema_name || '.' || a.table_name AS name, a.schema_name, a.table_name, c.relkind = 'p' AS is_partitioned
FROM muniment.attached a JOIN pg_class c ON c.oid = a.relation
WHERE a.source = $1 AND a.published
ORDER BY (a.schema_name || '.' || a.table_name) COLLATE "C"
