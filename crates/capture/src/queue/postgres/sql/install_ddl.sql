-- Notes a table whose rows are about to be rewritten, for the report at the end of the command: no row trigger fires for it.
CREATE OR REPLACE FUNCTION muniment.queue_on_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('muniment.rewritten', concat_ws(',', nullif(current_setting('muniment.rewritten', true), ''), pg_event_trigger_table_rewrite_oid()::text), true);
END
$$;

-- After CREATE and ALTER: takes in what is new, and reports. It never makes the application's DDL fail: what goes wrong here is a warning, and Muniment looks again.
CREATE OR REPLACE FUNCTION muniment.queue_on_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    touched oid[];
    rewritten oid[];
    retyped oid[];
    former text[];
BEGIN
    IF EXISTS (SELECT FROM muniment.at_work WHERE transaction_id = pg_current_xact_id()) THEN
        RETURN;
    END IF;
    SELECT array_agg(DISTINCT c.oid) INTO touched
    FROM pg_event_trigger_ddl_commands() d
    JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'muniment';
    SELECT array_agg(DISTINCT q.relation) INTO retyped FROM muniment.retyped_tables(tg_tag) t (oid) JOIN muniment.queue_table q ON q.relation = t.oid;
    touched := touched || retyped;
    IF touched IS NULL AND tg_tag NOT IN ('ALTER SCHEMA', 'DROP TYPE', 'DROP DOMAIN', 'DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED') THEN
        RETURN;
    END IF;
    SELECT array_agg(q.table_name) INTO former
    FROM muniment.queue_table q JOIN pg_class c ON c.oid = q.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE q.table_name <> n.nspname || '.' || c.relname;
    IF touched IS NULL AND former IS NULL THEN
        RETURN;
    END IF;
    rewritten := ARRAY(SELECT c.oid FROM pg_class c WHERE c.oid::text = ANY (string_to_array(current_setting('muniment.rewritten', true), ',')));
    PERFORM set_config('muniment.rewritten', '', true);
    PERFORM muniment.queue_refresh();
    PERFORM muniment.queue_again(q.relation, q.key_columns = '{}')
    FROM muniment.queue_table q
    WHERE (q.relation = ANY (retyped) AND muniment.alters_values(current_query())) OR EXISTS (SELECT FROM (SELECT q.relation AS oid UNION SELECT t.relid FROM pg_partition_tree(q.relation) t) member WHERE member.oid = ANY (rewritten));
    PERFORM muniment.queue_note(q.table_name, 'DDL', NULL,
        json_build_object('tag', tg_tag, 'statement', muniment.queue_statement(tg_tag), 'rewritten', bool_or(coalesce(member.oid = ANY (rewritten), false))), NULL)
    FROM muniment.queue_table q
    CROSS JOIN LATERAL (SELECT q.relation AS oid UNION SELECT t.relid FROM pg_partition_tree(q.relation) t) member
    WHERE member.oid = ANY (touched || rewritten)
    GROUP BY q.table_name;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'muniment: % could not be taken in: %', tg_tag, SQLERRM;
END
$$;

-- After DROP, also of a schema or by CASCADE.
CREATE OR REPLACE FUNCTION muniment.queue_on_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF to_regclass('muniment.queue_table') IS NULL OR EXISTS (SELECT FROM muniment.at_work WHERE transaction_id = pg_current_xact_id()) THEN
        RETURN;
    END IF;
    PERFORM muniment.queue_leave(d.objid, tg_tag)
    FROM pg_event_trigger_dropped_objects() d
    WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.objid IN (SELECT relation FROM muniment.queue_table);
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d JOIN muniment.queue_partition p ON p.relation = d.objid WHERE d.classid = 'pg_class'::regclass) THEN
        PERFORM muniment.queue_refresh();
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'muniment: % could not be reported: %', tg_tag, SQLERRM;
END
$$;

DROP EVENT TRIGGER IF EXISTS muniment_queue_rewrite;
DROP EVENT TRIGGER IF EXISTS muniment_queue_ddl;
DROP EVENT TRIGGER IF EXISTS muniment_queue_drop;
CREATE EVENT TRIGGER muniment_queue_rewrite ON table_rewrite EXECUTE FUNCTION muniment.queue_on_rewrite();
CREATE EVENT TRIGGER muniment_queue_ddl ON ddl_command_end EXECUTE FUNCTION muniment.queue_on_ddl();
CREATE EVENT TRIGGER muniment_queue_drop ON sql_drop EXECUTE FUNCTION muniment.queue_on_drop();
ALTER EVENT TRIGGER muniment_queue_rewrite ENABLE ALWAYS;
ALTER EVENT TRIGGER muniment_queue_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER muniment_queue_drop ENABLE ALWAYS
