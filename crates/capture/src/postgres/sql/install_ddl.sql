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
    rekeyed oid[];
    moved oid[];
    retyped oid[];
    bereft oid[];
    ended text[];
    source_name text;
BEGIN
    IF EXISTS (SELECT FROM muniment.at_work WHERE transaction_id = pg_current_xact_id()) THEN
        RETURN;
    END IF;
    IF tg_tag = 'ALTER PUBLICATION' THEN
        FOR source_name IN SELECT name FROM muniment.source LOOP
            PERFORM muniment.refresh(source_name);
        END LOOP;
        RETURN;
    END IF;
    SELECT array_agg(DISTINCT c.oid) INTO touched
    FROM pg_event_trigger_ddl_commands() d
    JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'muniment';
    SELECT array_agg(DISTINCT a.relation) INTO retyped FROM muniment.retyped_tables(tg_tag) t (oid) JOIN muniment.attached a ON a.relation = t.oid;
    touched := touched || retyped;
    -- A schema may have another name, a type may have taken a key's column with it. Most commands can't do anything like that: temporary tables come and go often.
    IF touched IS NULL AND tg_tag NOT IN ('ALTER SCHEMA', 'DROP TYPE', 'DROP DOMAIN', 'DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED') THEN
        RETURN;
    END IF;
    SELECT array_agg(a.relation) INTO moved
    FROM muniment.attached a JOIN pg_class c ON c.oid = a.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE (a.schema_name, a.table_name) IS DISTINCT FROM (n.nspname::text, c.relname::text);
    -- The same rows under other keys.
    SELECT array_agg(DISTINCT a.relation) INTO rekeyed
    FROM muniment.attached a CROSS JOIN LATERAL muniment.key_of(a.relation) k
    WHERE a.published AND a.key_numbers IS DISTINCT FROM k.numbers AND a.key_numbers IS NOT NULL AND EXISTS (SELECT FROM pg_class WHERE oid = a.relation);
    -- Tables that a partition has left, with rows that no change tells of.
    WITH gone AS (
        UPDATE muniment.attached a SET root = NULL
        FROM muniment.attached r JOIN muniment.source s ON s.name = r.source
        WHERE tg_tag = 'ALTER TABLE' AND r.source = a.source AND r.relation = a.root AND r.published AND a.root <> a.relation
            AND EXISTS (SELECT FROM pg_class c WHERE c.oid = a.relation)
            AND NOT EXISTS (SELECT FROM pg_partition_ancestors(a.relation) up WHERE up.relid = a.root)
        RETURNING r.relation, s.baseline
    )
    SELECT array_agg(DISTINCT relation) FILTER (WHERE baseline) INTO bereft FROM gone;
    IF touched IS NULL AND moved IS NULL AND rekeyed IS NULL THEN
        RETURN;
    END IF;
    touched := touched || moved || rekeyed || bereft;
    rewritten := ARRAY(SELECT c.oid FROM pg_class c WHERE c.oid::text = ANY (string_to_array(current_setting('muniment.rewritten', true), ',')));
    PERFORM set_config('muniment.rewritten', '', true);
    -- Rows that are others now, though no row was changed: a column is gone, has a new name, or the name of one that was dropped, or a default where there was none.
    SELECT array_agg(DISTINCT d.objid) INTO altered
    FROM pg_event_trigger_ddl_commands() d
    WHERE d.classid = 'pg_class'::regclass AND tg_tag = 'ALTER TABLE' AND (d.objsubid > 0 OR EXISTS (
        SELECT FROM muniment.attached m JOIN pg_attribute a ON a.attrelid = m.relation AND a.attnum > 0 AND NOT a.attisdropped
        WHERE m.relation = d.objid AND (m.column_numbers ->> a.attname::text)::int <> a.attnum) OR EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid IN (SELECT d.objid UNION SELECT t.relid FROM pg_partition_tree(d.objid) t) AND (a.atthasmissing OR a.attisdropped)
            AND a.xmin::text::bigint >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint % 4294967296));
    IF muniment.alters_values(current_query()) THEN
        altered := altered || retyped;
    END IF;
    -- Names under which the log's rows end: nothing is there any more, or all of it comes again under another key. Without a primary key that is the whole row.
    SELECT array_agg(DISTINCT a.schema_name || '.' || a.table_name) INTO ended
    FROM muniment.attached a JOIN muniment.source s ON s.name = a.source
    WHERE a.published AND (a.relation = ANY (moved)
        -- It has become a partition of another that is published.
        OR EXISTS (SELECT FROM pg_partition_ancestors(a.relation) up JOIN muniment.attached p ON p.relation = up.relid AND p.published WHERE up.relid <> a.relation)
        OR (s.baseline AND (a.relation = ANY (rekeyed || bereft)
        OR (a.key_numbers = '{}' AND EXISTS (
            SELECT FROM (SELECT a.relation AS relid UNION SELECT t.relid FROM pg_partition_tree(a.relation) t) t WHERE t.relid = ANY (altered || rewritten))))));
    SELECT array_agg(DISTINCT t.relid) INTO altered
    FROM unnest(altered || moved || rekeyed || bereft) o (oid) CROSS JOIN LATERAL (SELECT o.oid AS relid UNION SELECT t.relid FROM pg_partition_tree(o.oid) t) t;
    FOR source_name IN SELECT name FROM muniment.source LOOP
        PERFORM muniment.refresh(source_name);
    END LOOP;
    UPDATE muniment.attached a SET baseline = nextval('muniment.baseline')
    FROM muniment.source s
    WHERE s.name = a.source AND s.baseline AND a.relation = ANY (rewritten || altered);
    UPDATE muniment.attached a SET schema_name = n.nspname, table_name = c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = a.relation AND a.relation = ANY (touched) AND (a.schema_name, a.table_name) IS DISTINCT FROM (n.nspname::text, c.relname::text);
    touched := touched || rewritten;
    IF EXISTS (SELECT FROM unnest(touched) t (oid) WHERE muniment.published_name(t.oid) IS NOT NULL) THEN
        PERFORM muniment.report_ddl(tg_tag,
            (SELECT array_agg(DISTINCT name) FROM unnest(touched) t (oid), muniment.published_name(t.oid) name WHERE name IS NOT NULL),
            (SELECT array_agg(DISTINCT name) FROM unnest(rewritten) t (oid), muniment.published_name(t.oid) name WHERE name IS NOT NULL), ended);
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
        RETURNING a.source, a.schema_name || '.' || a.table_name AS name, a.published, a.root
    ), bereft AS (
        -- Rows have gone with a partition, and no change tells which: those that are left come again.
        UPDATE muniment.attached a SET baseline = nextval('muniment.baseline')
        FROM (SELECT DISTINCT f.source, r.relation AS root
            FROM forgotten f JOIN muniment.attached r ON r.source = f.source AND r.relation = f.root AND r.published
            JOIN pg_class c ON c.oid = r.relation JOIN muniment.source s ON s.name = f.source AND s.baseline
            WHERE NOT f.published AND r.relation NOT IN (SELECT d.objid FROM pg_event_trigger_dropped_objects() d WHERE d.classid = 'pg_class'::regclass)) left_root
        WHERE a.source = left_root.source AND a.root = left_root.root
            AND a.relation NOT IN (SELECT d.objid FROM pg_event_trigger_dropped_objects() d WHERE d.classid = 'pg_class'::regclass)
        RETURNING a.schema_name || '.' || a.table_name AS name, a.published
    ), named AS (
        SELECT f.name, f.published FROM forgotten f UNION ALL SELECT b.name, b.published FROM bereft b WHERE b.published
    )
    SELECT array_agg(DISTINCT n.name), array_agg(DISTINCT n.name) FILTER (WHERE n.published) INTO gone, published FROM named n;
    IF gone IS NOT NULL THEN
        PERFORM muniment.report_ddl(tg_tag, gone, NULL, published);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'muniment: % could not be reported: %', tg_tag, SQLERRM;
END
$$
