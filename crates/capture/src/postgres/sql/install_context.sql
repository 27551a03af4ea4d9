-- Says who makes the changes of this transaction that follow, and why. The message is part of the transaction: it is rolled back with it.
CREATE OR REPLACE FUNCTION muniment.context(context jsonb) RETURNS pg_lsn
LANGUAGE sql VOLATILE SECURITY INVOKER
AS $$ SELECT pg_catalog.pg_logical_emit_message(true, 'muniment.context', context::text) $$
