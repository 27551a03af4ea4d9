-- The tables of a source, what their replica identity was before, whether they are still there, and whether another source needs what was set.
SELECT a.relation, a.published, a.former_identity::text AS former_identity, a.former_index,
    n.nspname::text AS schema_name, c.relname::text AS table_name, c.relreplident::text AS identity,
    EXISTS (SELECT FROM muniment.attached o WHERE o.relation = a.relation AND o.source <> a.source) AS is_shared,
    EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = a.relation AND t.tgname = 'muniment_session' AND t.tgparentid = 0) AS has_trigger,
    EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = a.relation AND t.tgname = 'muniment_truncate' AND t.tgparentid = 0) AS reports_truncate,
    EXISTS (SELECT FROM muniment.attached o JOIN muniment.source s ON s.name = o.source
        WHERE o.relation = a.relation AND o.source <> a.source AND s.attribution = 'trigger') AS shares_trigger
FROM muniment.attached a LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace) ON c.oid = a.relation
WHERE a.source = $1
ORDER BY n.nspname, c.relname
