-- The next table whose baseline is due.
SELECT a.relation, a.baseline
FROM muniment.attached a JOIN pg_class c ON c.oid = a.relation
WHERE a.source = $1 AND a.baseline IS NOT NULL AND a.baseline IS DISTINCT FROM a.baseline_done
ORDER BY a.baseline LIMIT 1
