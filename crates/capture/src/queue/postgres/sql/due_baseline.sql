-- The next table or partition whose rows are to be read, with the table under whose name they are recorded.
SELECT b.relation, b.number, c.relfilenode AS file, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS relation_name, q.table_name, q.excluded,
    coalesce((SELECT jsonb_object_agg(k, '***') FROM unnest(q.masked) k WHERE k <> ALL (q.excluded)), '{}')::text AS masks
FROM muniment.queue_baseline b
LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace) ON c.oid = b.relation
LEFT JOIN muniment.queue_partition p ON p.relation = b.relation
LEFT JOIN muniment.queue_table q ON q.relation = coalesce(p.root, b.relation)
ORDER BY b.number LIMIT 1
