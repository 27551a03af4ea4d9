DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'muniment')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'muniment'::regnamespace) THEN
        DROP SCHEMA muniment;
    END IF;
END
$$
