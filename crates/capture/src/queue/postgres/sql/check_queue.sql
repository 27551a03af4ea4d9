-- What the server is and allows, and what is there already, in one row.
SELECT current_setting('server_version_num')::int4 AS version, pg_is_in_recovery() AS in_recovery, r.rolsuper AS is_superuser,
    has_database_privilege(current_database(), 'CREATE') AS may_create,
    -- A schema that somebody else has made would stay theirs, with all that is put into it.
    coalesce((SELECT CASE WHEN to_regclass('muniment.queue_source') IS NULL THEN n.nspowner = r.oid ELSE pg_has_role(n.nspowner, 'USAGE') END
        FROM pg_namespace n WHERE n.nspname = 'muniment'), true) AS owns_schema,
    to_regclass('muniment.attached') IS NOT NULL AS is_replicated,
    to_regclass('muniment.queue_source') IS NOT NULL AS is_queued,
    to_regclass('muniment.queue_source') IS NOT NULL AND to_regclass('muniment.queue_baseline') IS NULL AS is_older
FROM pg_roles r WHERE r.rolname = current_user
