-- Empties a half of the queue of which nobody writes and everything is stored. Who holds the lock has seen all that was ever committed to it.
DO $$
DECLARE
    half text := 'muniment.sys_audit_queue_{half}';
    stored pg_snapshot;
    pending boolean;
BEGIN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', half);
    SELECT upto INTO STRICT stored FROM muniment.queue_state;
    EXECUTE format('SELECT EXISTS (SELECT FROM %1$s WHERE transaction_id >= pg_snapshot_xmax($1)) OR EXISTS (SELECT FROM %1$s WHERE transaction_id = ANY (ARRAY(SELECT pg_snapshot_xip($1))))', half)
    INTO pending USING stored;
    IF NOT pending THEN
        EXECUTE format('TRUNCATE %s', half);
    END IF;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END
$$
