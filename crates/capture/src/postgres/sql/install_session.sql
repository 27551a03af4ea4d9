-- Names the session once in a transaction that has said nothing of itself. An empty setting is what a transaction before has left behind on the connection. The test stands
-- here and not in a WHEN clause of the triggers, which costs more.
CREATE OR REPLACE FUNCTION muniment.name_session() RETURNS trigger
LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(current_setting('muniment.said', true), '') <> '' THEN
        RETURN NULL;
    END IF;
    PERFORM pg_logical_emit_message(true, 'muniment.session', json_build_object('user', session_user,
        'application', current_setting('application_name'), 'address', host(inet_client_addr()))::text);
    PERFORM set_config('muniment.said', 'yes', true);
    RETURN NULL;
END
$$
