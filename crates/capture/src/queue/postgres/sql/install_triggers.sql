-- Writes a changed row to the queue. It names no column, so that no ALTER TABLE can make the application's writes fail; and since it runs with the rights of its owner
-- and without a search path of its own, which would cost more than all the rest, every name and operator in it is qualified.
-- What an operation doesn't have, OLD of an INSERT and NEW of a DELETE, is null.
CREATE OR REPLACE FUNCTION muniment.queue_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    number pg_catalog.int8 := pg_catalog.nextval('muniment.queue_id');
BEGIN
    IF (number OPERATOR(pg_catalog.&) 65536) OPERATOR(pg_catalog.=) 0 THEN
        INSERT INTO muniment.sys_audit_queue_0 VALUES (number, pg_catalog.pg_current_xact_id(), pg_catalog.clock_timestamp(), TG_ARGV[0], TG_OP,
            pg_catalog.row_to_json(OLD), pg_catalog.row_to_json(NEW), NULL, pg_catalog.current_setting('muniment.context', true),
            session_user, pg_catalog.current_setting('application_name'), pg_catalog.inet_client_addr());
    ELSE
        INSERT INTO muniment.sys_audit_queue_1 VALUES (number, pg_catalog.pg_current_xact_id(), pg_catalog.clock_timestamp(), TG_ARGV[0], TG_OP,
            pg_catalog.row_to_json(OLD), pg_catalog.row_to_json(NEW), NULL, pg_catalog.current_setting('muniment.context', true),
            session_user, pg_catalog.current_setting('application_name'), pg_catalog.inet_client_addr());
    END IF;
    RETURN NULL;
END
$$;

-- Writes a line to the queue, for what is not a plain row.
CREATE OR REPLACE FUNCTION muniment.queue_note(name text, operation text, image_before json, image_after json, masked text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number bigint := nextval('muniment.queue_id');
BEGIN
    IF number & 65536 = 0 THEN
        INSERT INTO muniment.sys_audit_queue_0 VALUES (number, pg_current_xact_id(), clock_timestamp(), name, operation, image_before, image_after, masked,
            current_setting('muniment.context', true), session_user, current_setting('application_name'), inet_client_addr());
    ELSE
        INSERT INTO muniment.sys_audit_queue_1 VALUES (number, pg_current_xact_id(), clock_timestamp(), name, operation, image_before, image_after, masked,
            current_setting('muniment.context', true), session_user, current_setting('application_name'), inet_client_addr());
    END IF;
END
$$;

-- The same for tables of which some columns are left out or masked. Arguments of the trigger: name, columns left out, and an object of the masked ones.
CREATE OR REPLACE FUNCTION muniment.queue_reduced_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    excluded text[] := TG_ARGV[1]::text[];
    masks jsonb := TG_ARGV[2]::jsonb;
    image_before jsonb;
    image_after jsonb;
    changed text[];
BEGIN
    IF TG_OP <> 'INSERT' THEN
        image_before := to_jsonb(OLD) - excluded;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        image_after := to_jsonb(NEW) - excluded;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        changed := ARRAY(SELECT k FROM jsonb_object_keys(masks) k WHERE image_before -> k IS DISTINCT FROM image_after -> k);
    END IF;
    PERFORM muniment.queue_note(TG_ARGV[0], TG_OP, (image_before || masks)::json, (image_after || masks)::json, changed);
    RETURN NULL;
END
$$;

-- TRUNCATE of a table, also by CASCADE. A partitioned table comes before its partitions, and says so to them; of one of those alone it is not known which rows have gone.
CREATE OR REPLACE FUNCTION muniment.queue_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    top oid := (SELECT p.root FROM muniment.queue_partition p WHERE p.relation = TG_RELID);
    said text := concat_ws(' ', coalesce(top, TG_RELID), statement_timestamp());
BEGIN
    PERFORM muniment.queue_note(TG_ARGV[0], 'TRUNCATE', NULL, NULL, NULL);
    IF coalesce(current_setting('muniment.truncated', true), '') <> said THEN
        PERFORM set_config('muniment.truncated', said, true);
        IF top IS NOT NULL THEN
            PERFORM muniment.queue_again(top, true);
        END IF;
    END IF;
    RETURN NULL;
END
$$
