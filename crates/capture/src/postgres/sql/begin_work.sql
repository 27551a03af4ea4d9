DO $$
BEGIN
    IF to_regclass('muniment.at_work') IS NOT NULL THEN
        INSERT INTO muniment.at_work VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING;
    END IF;
END
$$