-- Says who makes the changes of this transaction that follow, and why. Ends with the transaction; a savepoint that is rolled back takes it along.
-- Returns what set_config does, so that PostgreSQL writes the call into the statement instead of parsing and planning the function at each call.
CREATE OR REPLACE FUNCTION muniment.context(context jsonb) RETURNS text
LANGUAGE sql VOLATILE SECURITY INVOKER
AS $$ SELECT pg_catalog.set_config('muniment.context', context::text, true) $$;

-- The same with named arguments: SELECT muniment.set_context(user_name => 'lan', change_reason => 'ticket 4711').
CREATE OR REPLACE FUNCTION muniment.set_context(
    user_id bigint DEFAULT NULL,
    user_name text DEFAULT NULL,
    session_id text DEFAULT NULL,
    ip_address text DEFAULT NULL,
    user_agent text DEFAULT NULL,
    business_context text DEFAULT NULL,
    change_reason text DEFAULT NULL,
    workflow_instance_id text DEFAULT NULL,
    correlation_id text DEFAULT NULL,
    compliance_level integer DEFAULT NULL
) RETURNS text
LANGUAGE sql VOLATILE SECURITY INVOKER
AS $$
    SELECT muniment.context(pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
        'user_id', user_id, 'user_name', user_name, 'session_id', session_id, 'ip_address', ip_address, 'user_agent', user_agent,
        'business_context', business_context, 'change_reason', change_reason, 'workflow_instance_id', workflow_instance_id,
        'correlation_id', correlation_id, 'compliance_level', compliance_level)))
$$;

GRANT USAGE ON SCHEMA muniment TO PUBLIC
