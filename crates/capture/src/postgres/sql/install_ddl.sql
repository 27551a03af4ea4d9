-- Notes a table whose rows are about to be rewritten, for the report at the end of the command: the log gets no row events of it.
CREATE OR REPLACE FUNCTION muniment.on_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('muniment.rewritten', concat_ws(',', nullif(current_setting('muniment.rewritten', true), ''), pg_event_trigger_table_rewrite_oid()::text), true);
END
$$;

-- After CREATE and ALTER: takes in what is new, asks for a new baseline of what was rewritten, and reports. Capture never makes the application's DDL fail:
-- what goes wrong here is a warning, and Muniment looks again by itself.
CREATE OR REPLACE FUNCTION muniment.on_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    touched oid[];
    rewritten oid[];
    altered oid[];
    moved oid[];
    former text[];
    source_name text;
BEGIN
    IF EXISTS (SELECT FROM muniment.at_work WHERE transaction_id = pg_current_xact_id()) THEN
        RETURN;
    END IF;
    SELECT array_agg(DISTINCT c.oid) INTO touched
    FROM pg_event_trigger_ddl_commands() d
    JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'muniment';
    IF touched IS NULL THEN
        RETURN;
    END IF;
    rewritten := ARRAY(SELECT c.oid FROM pg_class c WHERE c.oid::text = ANY (string_to_array(current_setting('muniment.rewritten', true), ',')));
    PERFORM set_config('muniment.rewritten', '', true);
    -- Rows that are others now, though no row was changed: a column has a new name, or a default where there was none.
    SELECT array_agg(DISTINCT d.objid) INTO altered
    FROM pg_event_trigger_ddl_commands() d
    JOIN pg_index i ON i.indrelid = d.objid AND i.indisprimary
    WHERE d.classid = 'pg_class'::regclass AND tg_tag = 'ALTER TABLE' AND (d.objsubid > 0 OR EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid = d.objid AND a.atthasmissing AND a.xmin::text::bigint >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint % 4294967296));
    SELECT array_agg(a.relation), array_agg(DISTINCT a.schema_name || '.' || a.table_name) FILTER (WHERE a.published) INTO moved, former
    FROM muniment.attached a JOIN pg_class c ON c.oid = a.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.relation = ANY (touched) AND (a.schema_name, a.table_name) IS DISTINCT FROM (n.nspname::text, c.relname::text);
    FOR source_name IN SELECT name FROM muniment.source LOOP
        PERFORM muniment.refresh(source_name);
    END LOOP;
    UPDATE muniment.attached a SET baseline = nextval('muniment.baseline')
    FROM muniment.source s
    WHERE s.name = a.source AND s.baseline AND a.relation = ANY (rewritten || altered || moved);
    UPDATE muniment.attached a SET schema_name = n.nspname, table_name = c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = a.relation AND a.relation = ANY (touched) AND (a.schema_name, a.table_name) IS DISTINCT FROM (n.nspname::text, c.relname::text);
    touched := touched || rewritten;
    IF EXISTS (SELECT FROM unnest(touched) t (oid) WHERE muniment.published_name(t.oid) IS NOT NULL) THEN
        PERFORM muniment.report_ddl(tg_tag,
            (SELECT array_agg(DISTINCT name) FROM unnest(touched) t (oid), muniment.published_name(t.oid) name WHERE name IS NOT NULL),
            (SELECT array_agg(DISTINCT name) FROM unnest(rewritten) t (oid), muniment.published_name(t.oid) name WHERE name IS NOT NULL), former);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'muniment: % could not be taken in: %', tg_tag, SQLERRM;
END
$$;

-- After DROP, also of a schema or by CASCADE.
CREATE OR REPLACE FUNCTION muniment.on_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone text[];
    published text[];
BEGIN
    IF to_regclass('muniment.attached') IS NULL OR EXISTS (SELECT FROM muniment.at_work WHERE transaction_id = pg_current_xact_id()) THEN
        RETURN;
    END IF;
    WITH forgotten AS (
        DELETE FROM muniment.attached a USING pg_event_trigger_dropped_objects() d
        WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.objid = a.relation
        RETURNING a.schema_name || '.' || a.table_name AS name, a.published
    )
    SELECT array_agg(DISTINCT f.name), array_agg(DISTINCT f.name) FILTER (WHERE f.published) INTO gone, published FROM forgotten f;
    IF gone IS NOT NULL THEN
        PERFORM muniment.report_ddl(tg_tag, gone, NULL, published);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'muniment: % could not be reported: %', tg_tag, SQLERRM;
END
$$
