-- Who acts and why, in the transaction that changes something.
BEGIN;
SELECT muniment.context('{"user_id": 7, "user_name": "lan", "session_id": "s-81", "ip_address": "10.0.0.7", "change_reason": "ticket 4711"}');
-- UPDATE …
COMMIT;

-- The same with named arguments.
BEGIN;
SELECT muniment.set_context(user_name => 'lan', change_reason => 'ticket 4711');
-- UPDATE …
COMMIT;

-- Where Muniment is not attached, this stand-in lets the same application run.
CREATE SCHEMA IF NOT EXISTS muniment;
CREATE OR REPLACE FUNCTION muniment.context(context jsonb) RETURNS pg_lsn LANGUAGE sql VOLATILE
AS $$ SELECT pg_catalog.pg_logical_emit_message(true, 'muniment.context', context::text) $$;
GRANT USAGE ON SCHEMA muniment TO PUBLIC;
