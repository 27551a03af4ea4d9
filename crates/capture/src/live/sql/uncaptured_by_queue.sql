-- Tables that the patterns of a trigger queue take in, and that have no triggers.
SELECT m.relation::regclass::text FROM muniment.queue_members() m (relation)
WHERE m.relation NOT IN (SELECT q.relation FROM muniment.queue_table q)
ORDER BY 1
