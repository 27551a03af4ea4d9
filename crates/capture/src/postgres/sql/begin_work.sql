DO $$
BEGIN
    IF to_regclass('muniment.at_work') IS NOT NULL THEN
        INSERT INTO muniment.at_work VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING;
    END IF;
    -- What was set up by a version before 2026-11-23 looks here.
    PERFORM set_config('muniment.at_work', 'yes', true);
END
$$