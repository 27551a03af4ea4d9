-- Keeps what a table is like, or was until now, for the changes that are still in the queue.
CREATE OR REPLACE FUNCTION muniment.queue_remember(known oid) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO muniment.queue_shape (table_name, until, key_columns, masked, columns)
    SELECT t.table_name, nextval('muniment.queue_id'), t.key_columns, t.masked, t.columns FROM muniment.queue_table t WHERE t.relation = known
$$;

-- The DDL that is being run, as it is recorded.
CREATE OR REPLACE FUNCTION muniment.queue_statement(tag text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT muniment.ddl_statement(tag, current_query(), EXISTS (SELECT FROM muniment.queue_source s WHERE cardinality(s.excluded_columns) + cardinality(s.masked_columns) > 0))
$$;

-- There is no table of this name any more: it is kept for the changes that wait, reported, and forgotten if it is not there under another name.
CREATE OR REPLACE FUNCTION muniment.queue_leave(known oid, tag text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT muniment.queue_remember(known);
    SELECT muniment.queue_note(q.table_name, 'DDL', NULL, json_build_object('tag', tag, 'gone', true,
        'statement', muniment.queue_statement(tag)), NULL)
    FROM muniment.queue_table q WHERE q.relation = known;
    DELETE FROM muniment.queue_table q WHERE q.relation = known AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = known)
$$;

-- All rows of a table or partition are to be read, if the source wants that. `ends` says that what the log has of the table may not be there any more.
CREATE OR REPLACE FUNCTION muniment.queue_again(known oid, ends boolean) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT muniment.queue_note(q.table_name, 'TRUNCATE', NULL, NULL, NULL)
    FROM muniment.queue_table q, muniment.queue_source s WHERE ends AND s.baseline AND q.relation = known;
    INSERT INTO muniment.queue_baseline (relation, number)
    SELECT c.oid, nextval('muniment.queue_id')
    FROM muniment.queue_source s, (SELECT known AS oid UNION SELECT t.relid FROM pg_partition_tree(known) t) member JOIN pg_class c ON c.oid = member.oid AND c.relkind = 'r'
    WHERE s.baseline
    ON CONFLICT (relation) DO UPDATE SET number = excluded.number
$$;

-- Whether a table's changes are written to the queue. Its trigger has its number in its name, since PostgreSQL gives partitions triggers of the same name.
CREATE OR REPLACE FUNCTION muniment.queue_watches(known oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = known AND g.tgname = '00_muniment_row_' || known
        AND g.tgfoid IN ('muniment.queue_row()'::regprocedure, 'muniment.queue_reduced_row()'::regprocedure))
$$;

-- Takes a table's own row triggers away; those that it has from the table that it is a partition of stay.
CREATE OR REPLACE FUNCTION muniment.queue_unwatch(known oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m record;
BEGIN
    FOR m IN
        SELECT g.tgname FROM pg_trigger g
        WHERE g.tgrelid = known AND g.tgparentid = 0 AND (g.tgname = '00_muniment_row_' || known
            OR g.tgfoid IN ('muniment.queue_row()'::regprocedure, 'muniment.queue_reduced_row()'::regprocedure))
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', m.tgname, known::regclass);
    END LOOP;
END
$$;

-- Enables triggers that somebody has disabled. Run when attaching: that they are disabled is a finding as long as nobody does.
CREATE OR REPLACE FUNCTION muniment.queue_enable() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m record;
BEGIN
    FOR m IN
        SELECT q.relation, q.table_name, n.nspname, c.relname, g.tgname
        FROM muniment.queue_table q
        CROSS JOIN LATERAL (SELECT q.relation AS oid UNION SELECT t.relid FROM pg_partition_tree(q.relation) t) member
        JOIN pg_class c ON c.oid = member.oid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_trigger g ON g.tgrelid = c.oid AND g.tgfoid IN ('muniment.queue_row()'::regprocedure, 'muniment.queue_reduced_row()'::regprocedure, 'muniment.queue_truncate()'::regprocedure)
            AND g.tgenabled <> 'A'
    LOOP
        PERFORM muniment.queue_note(m.table_name, 'BYPASSED', NULL,
            to_json(format('trigger %s of %I.%I was disabled and is enabled by attaching again: changes meanwhile are not captured', m.tgname, m.nspname, m.relname)), NULL);
        EXECUTE format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I', m.nspname, m.relname, m.tgname);
        PERFORM muniment.queue_again(m.relation, true);
    END LOOP;
END
$$;

-- The tables that the source's patterns take in; partitions come with the topmost of their parents that a pattern names.
CREATE OR REPLACE FUNCTION muniment.queue_members() RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH named AS (
        SELECT DISTINCT c.oid
        FROM muniment.queue_source s
        CROSS JOIN LATERAL unnest(s.schemas, s.tables) AS pattern (schema_like, table_like)
        JOIN pg_namespace n ON n.nspname LIKE pattern.schema_like AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'muniment')
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname LIKE pattern.table_like
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    )
    SELECT oid FROM named
    EXCEPT
    SELECT t.relid FROM named, pg_partition_tree(named.oid) t WHERE t.level > 0
$$;

-- Brings the triggers in line with the patterns of the source: new tables are taken in, renamed ones are recorded under their new name, and new partitions are watched
-- for TRUNCATE. Run when attaching, and by the event trigger.
CREATE OR REPLACE FUNCTION muniment.queue_refresh() RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
    m record;
    former muniment.queue_table;
    taken text[] := '{}';
BEGIN
    INSERT INTO muniment.at_work VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING;
    -- Names under which there is no table any more; where there is no event trigger, a moment after it happened.
    FOR m IN
        SELECT q.relation
        FROM muniment.queue_table q LEFT JOIN pg_class c ON c.oid = q.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid IS NULL OR q.table_name <> n.nspname || '.' || c.relname
    LOOP
        PERFORM muniment.queue_leave(m.relation, 'the table was dropped, or has another name');
    END LOOP;
    FOR m IN
        WITH top AS (SELECT t.oid FROM muniment.queue_members() t (oid))
        SELECT c.oid AS relation, n.nspname, c.relname, n.nspname || '.' || c.relname AS table_name,
            ARRAY(SELECT a.attname::text FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place) AS key_columns,
            (SELECT coalesce(json_agg(json_build_array(a.attname, a.atttypid::int8, a.attgenerated <> '') ORDER BY a.attnum), '[]')
                FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
            ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND (EXISTS (
                SELECT FROM unnest(s.excluded_schemas, s.excluded_tables, s.excluded_columns) AS pattern (schema_like, table_like, column_like)
                WHERE n.nspname LIKE schema_like AND c.relname LIKE table_like AND a.attname LIKE column_like)
                OR a.attnum = ANY (known.excluded_numbers)) ORDER BY a.attnum) AS excluded,
            ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND (EXISTS (
                SELECT FROM unnest(s.masked_schemas, s.masked_tables, s.masked_columns) AS pattern (schema_like, table_like, column_like)
                WHERE n.nspname LIKE schema_like AND c.relname LIKE table_like AND a.attname LIKE column_like)
                OR a.attnum = ANY (known.masked_numbers)) ORDER BY a.attnum) AS masked
        FROM top JOIN pg_class c ON c.oid = top.oid JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN muniment.queue_source s
        LEFT JOIN muniment.queue_table known ON known.relation = c.oid
        ORDER BY n.nspname, c.relname
    LOOP
        SELECT * INTO former FROM muniment.queue_table t WHERE t.relation = m.relation AND t.table_name = m.table_name;
        IF former.relation IS NULL OR former.excluded <> m.excluded OR former.masked <> m.masked
            OR NOT muniment.queue_watches(m.relation)
        THEN
            -- Nothing was captured while its trigger was missing.
            IF former.relation IS NOT NULL AND NOT muniment.queue_watches(m.relation) THEN
                PERFORM muniment.queue_again(m.relation, true);
            END IF;
            PERFORM muniment.queue_unwatch(m.relation);
            IF m.excluded = '{}' AND m.masked = '{}' THEN
                EXECUTE format('CREATE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %I.%I FOR EACH ROW EXECUTE FUNCTION muniment.queue_row(%L)',
                    '00_muniment_row_' || m.relation, m.nspname, m.relname, m.table_name);
            ELSE
                EXECUTE format('CREATE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %I.%I FOR EACH ROW EXECUTE FUNCTION muniment.queue_reduced_row(%L, %L, %L)',
                    '00_muniment_row_' || m.relation, m.nspname, m.relname, m.table_name, m.excluded,
                    coalesce((SELECT jsonb_object_agg(k, '***') FROM unnest(m.masked) k WHERE k <> ALL (m.excluded)), '{}'));
            END IF;
            EXECUTE format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I', m.nspname, m.relname, '00_muniment_row_' || m.relation);
            taken := taken || m.table_name;
        END IF;
        IF EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = m.relation AND a.attnum > 0 AND NOT a.attisdropped
                AND (former.column_numbers ->> a.attname::text)::int <> a.attnum) THEN
            PERFORM muniment.queue_again(m.relation, m.key_columns = '{}');
        END IF;
        IF NOT EXISTS (SELECT FROM muniment.queue_table t WHERE t.relation = m.relation
                AND (t.table_name, t.key_columns, t.excluded, t.masked, t.columns::text) = (m.table_name, m.key_columns, m.excluded, m.masked, m.columns::text))
        THEN
            PERFORM muniment.queue_remember(m.relation);
            INSERT INTO muniment.queue_table AS t (relation, table_name, key_columns, excluded, masked, columns, excluded_numbers, masked_numbers)
            VALUES (m.relation, m.table_name, m.key_columns, m.excluded, m.masked, m.columns,
                ARRAY(SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = m.relation AND a.attname = ANY (m.excluded)),
                ARRAY(SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = m.relation AND a.attname = ANY (m.masked)))
            ON CONFLICT (relation) DO UPDATE SET table_name = m.table_name, key_columns = m.key_columns, excluded = m.excluded, masked = m.masked, columns = m.columns,
                excluded_numbers = excluded.excluded_numbers, masked_numbers = excluded.masked_numbers;
            -- Rows that are others now, though none was changed. Those of a table without a key are known by all their values.
            IF former.relation IS NULL THEN
                PERFORM muniment.queue_again(m.relation, false);
            ELSIF former.key_columns <> m.key_columns OR former.columns::text <> m.columns::text AND (m.key_columns = '{}' OR EXISTS (
                    SELECT FROM json_array_elements(m.columns) now (it)
                    LEFT JOIN json_array_elements(former.columns) was (it) ON was.it ->> 0 = now.it ->> 0
                    WHERE was.it ->> 1 <> now.it ->> 1 OR (was.it IS NULL AND (json_array_length(former.columns) >= json_array_length(m.columns)
                        OR EXISTS (SELECT FROM pg_attribute a WHERE a.attname = now.it ->> 0 AND a.atthasmissing
                            AND a.attrelid IN (SELECT m.relation UNION SELECT t.relid FROM pg_partition_tree(m.relation) t)))))
                    OR EXISTS (SELECT FROM json_array_elements(former.columns) was (it)
                        WHERE was.it ->> 0 NOT IN (SELECT now.it ->> 0 FROM json_array_elements(m.columns) now (it))))
            THEN
                PERFORM muniment.queue_again(m.relation, former.key_columns <> m.key_columns OR m.key_columns = '{}');
            END IF;
        END IF;
    END LOOP;
    UPDATE muniment.queue_table q SET column_numbers = q.column_numbers || now.numbers
    FROM muniment.queue_table b CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(c.attname, c.attnum) AS numbers FROM pg_attribute c WHERE c.attrelid = b.relation AND c.attnum > 0 AND NOT c.attisdropped) now
    WHERE b.relation = q.relation AND NOT q.column_numbers @> now.numbers;
    -- Partitions that have come, with or without rows, and those that have gone with theirs.
    FOR m IN
        INSERT INTO muniment.queue_partition AS p (relation, root)
        SELECT t.relid, q.relation
        FROM muniment.queue_table q JOIN pg_class c ON c.oid = q.relation AND c.relkind = 'p' CROSS JOIN LATERAL pg_partition_tree(q.relation) t
        WHERE t.level > 0
        ON CONFLICT (relation) DO UPDATE SET root = excluded.root WHERE p.root <> excluded.root
        RETURNING p.relation
    LOOP
        -- It may have been a table of its own, whose trigger would queue all that its new table's does.
        PERFORM muniment.queue_unwatch(m.relation);
        PERFORM muniment.queue_leave(q.relation, 'the table became a partition') FROM muniment.queue_table q WHERE q.relation = m.relation;
        DELETE FROM muniment.queue_table q WHERE q.relation = m.relation;
        PERFORM muniment.queue_again(m.relation, false);
    END LOOP;
    FOR m IN
        SELECT p.relation, p.root, n.nspname, c.relname, c.oid IN (SELECT muniment.queue_members()) AS stays
        FROM muniment.queue_partition p LEFT JOIN pg_class c ON c.oid = p.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid IS NULL OR NOT EXISTS (SELECT FROM pg_partition_ancestors(c.oid) up WHERE up.relid = p.root)
    LOOP
        DELETE FROM muniment.queue_partition p WHERE p.relation = m.relation;
        PERFORM muniment.queue_again(c.oid, true) FROM pg_class c WHERE c.oid = m.root;
        IF NOT m.stays THEN
            EXECUTE format('DROP TRIGGER IF EXISTS "00_muniment_truncate" ON %I.%I', m.nspname, m.relname);
        END IF;
    END LOOP;
    FOR m IN
        SELECT n.nspname, c.relname, n.nspname || '.' || c.relname AS table_name
        FROM muniment.queue_table q
        CROSS JOIN LATERAL (SELECT q.relation AS oid UNION SELECT t.relid FROM pg_partition_tree(q.relation) t) member
        JOIN pg_class c ON c.oid = member.oid AND c.relkind IN ('r', 'p') JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_trigger g ON g.tgrelid = c.oid AND g.tgname = '00_muniment_truncate'
        WHERE g.oid IS NULL OR g.tgargs <> convert_to(n.nspname || '.' || c.relname, getdatabaseencoding()) || '\x00'::bytea
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS "00_muniment_truncate" ON %I.%I', m.nspname, m.relname);
        EXECUTE format('CREATE TRIGGER "00_muniment_truncate" AFTER TRUNCATE ON %I.%I FOR EACH STATEMENT EXECUTE FUNCTION muniment.queue_truncate(%L)',
            m.nspname, m.relname, m.table_name);
        EXECUTE format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER "00_muniment_truncate"', m.nspname, m.relname);
    END LOOP;
    IF EXISTS (SELECT FROM muniment.queue_shape) THEN
        DELETE FROM muniment.queue_shape s WHERE NOT EXISTS (SELECT FROM muniment.queue_rows q WHERE q.id < s.until AND q.table_name = s.table_name);
    END IF;
    DELETE FROM muniment.at_work WHERE transaction_id = pg_current_xact_id();
    RETURN taken;
END
$$
