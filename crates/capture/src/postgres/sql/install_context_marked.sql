-- Says who makes the changes of this transaction that follow, and why. The setting tells the statement triggers that something was said; both are rolled back with
-- the transaction.
CREATE OR REPLACE FUNCTION muniment.context(context jsonb) RETURNS pg_lsn
LANGUAGE sql VOLATILE SECURITY INVOKER
AS $$
    SELECT pg_catalog.pg_logical_emit_message(true, 'muniment.context', context::text)
    FROM pg_catalog.set_config('muniment.said', 'yes', true)
$$
