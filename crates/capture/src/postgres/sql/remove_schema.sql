DO $$
BEGIN
    IF to_regclass('muniment.source') IS NULL AND to_regclass('muniment.queue_source') IS NULL THEN
        DROP TABLE IF EXISTS muniment.at_work;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = to_regnamespace('muniment')) THEN
        DROP SCHEMA IF EXISTS muniment;
    END IF;
END
$$
