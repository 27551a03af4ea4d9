DO $$
BEGIN
    IF to_regclass('muniment.source') IS NULL AND to_regclass('muniment.queue_source') IS NULL THEN
        DROP TABLE IF EXISTS muniment.at_work;
    END IF;
    IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'muniment')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'muniment'::regnamespace) THEN
        DROP SCHEMA muniment;
    END IF;
END
$$
