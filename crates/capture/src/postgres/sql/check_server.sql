-- What the server is and allows, in one row.
SELECT current_setting('server_version_num')::int4 AS version,
    pg_is_in_recovery() AS in_recovery,
    current_setting('wal_level') AS wal_level,
    current_setting('max_replication_slots')::int8 AS max_slots,
    (SELECT count(*) FROM pg_replication_slots) AS slots,
    current_setting('max_wal_senders')::int8 AS max_senders,
    (SELECT count(*) FROM pg_stat_replication) AS senders,
    (SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS slot_wal_keep_mb,
    -- Whoever may not read the setting gets NULL.
    (SELECT setting FROM pg_settings WHERE name = 'unix_socket_directories') AS socket_folders,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND xact_start < now() - interval '1 second') AS writers,
    (SELECT (array_agg(format('process %s, %s', pid, coalesce(nullif(application_name, ''), usename::text, backend_type)) ORDER BY xact_start))[1]
        FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND xact_start < now() - interval '1 second') AS oldest_writer,
    r.rolsuper AS is_superuser,
    r.rolsuper OR r.rolreplication AS may_replicate,
    has_database_privilege(current_database(), 'CREATE') AS may_create,
    current_user::text AS user_name,
    current_database()::text AS database_name,
    -- A schema that somebody else has made would stay theirs, with all that is put into it.
    coalesce((SELECT CASE WHEN to_regclass('muniment.attached') IS NULL THEN n.nspowner = r.oid ELSE pg_has_role(n.nspowner, 'USAGE') END
        FROM pg_namespace n WHERE n.nspname = 'muniment'), true) AS owns_schema,
    to_regclass('muniment.attached') IS NOT NULL AS is_installed
FROM pg_roles r WHERE r.rolname = current_user
