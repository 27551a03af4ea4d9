-- Audited tables and partitions whose changes are not written to the queue, or can be made so that they aren't.
SELECT q.table_name || CASE WHEN member.oid = q.relation THEN '' ELSE ' (' || member.oid::regclass::text || ')' END AS resource,
    CASE
        WHEN g.oid IS NULL THEN 'trigger ' || wanted.name || ' is missing or another one: changes are not captured'
        WHEN g.tgenabled = 'D' THEN 'trigger ' || wanted.name || ' is disabled: changes are not captured'
        WHEN g.tgenabled = 'R' THEN 'trigger ' || wanted.name || ' fires for replicated changes only: others are not captured'
        ELSE 'trigger ' || wanted.name || ' does not fire while session_replication_role is replica'
    END AS reason
FROM muniment.queue_table q
JOIN pg_class root ON root.oid = q.relation
CROSS JOIN LATERAL (SELECT q.relation AS oid UNION SELECT t.relid FROM pg_partition_tree(q.relation) t) member
CROSS JOIN (VALUES ('00_muniment_row', ARRAY['muniment.queue_row()', 'muniment.queue_reduced_row()']::regprocedure[]),
    ('00_muniment_truncate', ARRAY['muniment.queue_truncate()']::regprocedure[])) wanted (name, functions)
LEFT JOIN pg_trigger g ON g.tgrelid = member.oid AND g.tgfoid = ANY (wanted.functions)
WHERE g.oid IS NULL OR g.tgenabled <> 'A'
UNION ALL
SELECT q.table_name, 'the table is unlogged: a crash empties it without a change being captured'
FROM muniment.queue_table q JOIN pg_class c ON c.oid = q.relation WHERE c.relpersistence = 'u'
UNION ALL
SELECT 'function muniment.' || w.name, 'the function is missing or another one: changes may not be captured; attach again'
FROM unnest($1::text[], $2::text[]) AS w (name, body)
LEFT JOIN pg_proc p ON p.pronamespace = 'muniment'::regnamespace AND p.proname = w.name WHERE p.prosrc IS DISTINCT FROM w.body
UNION ALL
SELECT 'event trigger ' || e.evtname, 'the event trigger is disabled: DDL and new tables are not captured'
FROM pg_event_trigger e WHERE e.evtname IN ('muniment_queue_rewrite', 'muniment_queue_ddl', 'muniment_queue_drop') AND e.evtenabled NOT IN ('A', 'O')
ORDER BY 1, 2
