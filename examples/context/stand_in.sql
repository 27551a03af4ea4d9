-- Lets the same application run where Muniment is not attached, or no more: the functions that it calls. Where it is attached, this changes nothing.
-- Run it as the role that will attach, not as the application's: whoever owns the schema can remove what attaching puts there.
DO $do$ BEGIN
    IF to_regnamespace('muniment') IS NOT NULL THEN
        RETURN;
    END IF;
    CREATE SCHEMA muniment;
    GRANT USAGE ON SCHEMA muniment TO PUBLIC;
    CREATE FUNCTION muniment.context(context jsonb) RETURNS pg_lsn LANGUAGE sql VOLATILE
    AS $$ SELECT pg_catalog.pg_logical_emit_message(true, 'muniment.context', context::text) $$;
    CREATE FUNCTION muniment.set_context(
        user_id bigint DEFAULT NULL, user_name text DEFAULT NULL, session_id text DEFAULT NULL, ip_address text DEFAULT NULL,
        user_agent text DEFAULT NULL, business_context text DEFAULT NULL, change_reason text DEFAULT NULL, workflow_instance_id text DEFAULT NULL,
        correlation_id text DEFAULT NULL, compliance_level integer DEFAULT NULL
    ) RETURNS pg_lsn LANGUAGE sql VOLATILE
    AS $$ SELECT NULL::pg_lsn $$;
END $do$;
