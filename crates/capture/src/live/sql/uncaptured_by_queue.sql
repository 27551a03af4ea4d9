-- Tables that the patterns of a trigger queue take in, and that have no triggers.
SELECT n.nspname || '.' || c.relname
FROM muniment.queue_members() m (relation) JOIN pg_class c ON c.oid = m.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE m.relation NOT IN (SELECT q.relation FROM muniment.queue_table q)
ORDER BY 1
