-- Tables that could not be taken in.
SELECT format('%s could not be taken in: %s', t.relation::regclass, t.reason) FROM muniment.trouble t WHERE t.source = $1 ORDER BY t.relation
