CREATE TABLE IF NOT EXISTS muniment.queue_ending ();
DROP EVENT TRIGGER IF EXISTS muniment_queue_rewrite;
DROP EVENT TRIGGER IF EXISTS muniment_queue_ddl;
DROP EVENT TRIGGER IF EXISTS muniment_queue_drop;
DO $$
BEGIN
    IF to_regclass('muniment.queue_baseline') IS NOT NULL THEN
        DELETE FROM muniment.queue_baseline;
    END IF;
END
$$
