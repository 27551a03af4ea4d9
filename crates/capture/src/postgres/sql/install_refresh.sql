-- Notes that a table could not be taken in. Muniment shows it, and tries again.
CREATE OR REPLACE FUNCTION muniment.note_trouble(source_name text, relation oid, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE WARNING 'muniment: % could not be taken in: %', relation::regclass, reason;
    INSERT INTO muniment.trouble VALUES (source_name, relation, reason) ON CONFLICT ON CONSTRAINT trouble_pkey DO UPDATE SET reason = excluded.reason;
END
$$;

-- Brings publication, replica identities and statement triggers in line with a source's patterns: new tables and partitions are taken in, and new columns of tables of
-- which some columns are excluded. Returns the tables that were taken in. Run by the event trigger, and by Muniment where there is none.
CREATE OR REPLACE FUNCTION muniment.refresh(source_name text) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s muniment.source;
    m record;
    visible text;
    taken text[] := '{}';
    bypassed oid[] := '{}';
    names text[];
BEGIN
    SELECT * INTO STRICT s FROM muniment.source WHERE name = source_name;
    -- What this does to tables is not reported as the application's DDL.
    INSERT INTO muniment.at_work VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING;
    DELETE FROM muniment.attached a WHERE a.source = s.name AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = a.relation);
    DELETE FROM muniment.trouble t WHERE t.source = s.name;
    FOR m IN
        SELECT members.*, a.relation IS NULL AS fresh, a.published AS was_published
        FROM muniment.members(s.name) members LEFT JOIN muniment.attached a ON a.source = s.name AND a.relation = members.relation
        WHERE a.relation IS NULL OR a.published <> members.published
        ORDER BY members.relation
    LOOP
        -- One that can't be taken in is no reason to leave out the others.
        BEGIN
            visible := muniment.visible_columns(s.name, m.relation, m.root);
            IF visible IS NOT NULL AND NOT m.has_key AND m.published THEN
                RAISE EXCEPTION 'columns of it are left out, and it has no primary key';
            END IF;
            INSERT INTO muniment.attached AS a (source, relation, schema_name, table_name, published, former_identity, former_index, baseline)
            SELECT s.name, m.relation, m.schema_name, m.table_name, m.published, coalesce(o.former_identity, m.identity),
                coalesce(o.former_index, (SELECT i.indexrelid::regclass::text FROM pg_index i WHERE i.indrelid = m.relation AND i.indisreplident)),
                CASE WHEN s.baseline THEN nextval('muniment.baseline') END
            FROM (SELECT) AS one LEFT JOIN LATERAL
                (SELECT f.former_identity, f.former_index FROM muniment.attached f WHERE f.relation = m.relation ORDER BY f.source LIMIT 1) o ON true
            ON CONFLICT (source, relation) DO UPDATE SET published = excluded.published,
                schema_name = excluded.schema_name, table_name = excluded.table_name, baseline = excluded.baseline;
            IF m.identity = 'n' OR (m.identity = 'd' AND (s.identity = 'full' OR NOT m.has_key) AND visible IS NULL) THEN
                EXECUTE format('ALTER TABLE %I.%I REPLICA IDENTITY %s', m.schema_name, m.table_name,
                    CASE WHEN m.has_key AND (s.identity = 'key' OR visible IS NOT NULL) THEN 'DEFAULT' ELSE 'FULL' END);
            END IF;
            IF s.attribution = 'trigger' AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = m.relation AND tgname = 'muniment_session') THEN
                EXECUTE format('CREATE TRIGGER muniment_session BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I.%I FOR EACH STATEMENT '
                    'EXECUTE FUNCTION muniment.name_session()', m.schema_name, m.table_name);
            END IF;
            IF (NOT m.published OR EXISTS (SELECT FROM pg_class WHERE oid = m.relation AND relkind = 'p'))
                AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = m.relation AND tgname = 'muniment_truncate') THEN
                EXECUTE format('CREATE TRIGGER muniment_truncate BEFORE TRUNCATE ON %I.%I FOR EACH STATEMENT EXECUTE FUNCTION muniment.on_truncate()',
                    m.schema_name, m.table_name);
            END IF;
            -- One that was attached by itself before it became a partition is in it still.
            IF m.published AND NOT coalesce(m.was_published, false) AND NOT EXISTS (
                SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = s.publication AND r.prrelid = m.relation)
            THEN
                EXECUTE format('ALTER PUBLICATION %I ADD TABLE ONLY %I.%I %s', s.publication, m.schema_name, m.table_name, coalesce(visible, ''));
            END IF;
            IF m.fresh AND m.published THEN
                taken := taken || (m.schema_name || '.' || m.table_name);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            PERFORM muniment.note_trouble(s.name, m.relation, SQLERRM);
        END;
    END LOOP;
    -- Tables that are published, but not as they should be: somebody has altered the publication, or the table has other columns or no key any more. Without a replica
    -- identity that covers what is published, PostgreSQL would refuse the application's UPDATE.
    FOR m IN
        SELECT a.relation, a.schema_name, a.table_name, a.published, v.visible, k.has_key,
            (c.relreplident = 'n' OR (c.relreplident = 'd' AND NOT k.has_key)
                OR (c.relreplident = 'i' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.relation AND i.indisreplident))
                OR (c.relreplident = 'f' AND v.visible IS NOT NULL)) AS lacks_identity,
            r.prrelid IS NOT NULL AS is_in, r.prrelid IS NULL OR r.prqual IS NOT NULL AS is_bypassed,
            v.visible IS DISTINCT FROM (SELECT '(' || string_agg(quote_ident(c.attname), ', ' ORDER BY c.attnum) || ')'
                FROM pg_attribute c WHERE c.attrelid = a.relation AND c.attnum = ANY (r.prattrs)) AS has_other_columns
        FROM muniment.attached a JOIN pg_class c ON c.oid = a.relation
        JOIN muniment.members(s.name) member ON member.relation = a.relation
        CROSS JOIN LATERAL (SELECT muniment.visible_columns(s.name, a.relation, member.root) AS visible) v
        CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.relation AND i.indisprimary) AS has_key) k
        JOIN pg_publication p ON p.pubname = s.publication
        LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = a.relation
        WHERE a.source = s.name
    LOOP
        BEGIN
            IF m.visible IS NOT NULL AND NOT m.has_key THEN
                IF m.is_in THEN
                    EXECUTE format('ALTER PUBLICATION %I DROP TABLE %I.%I', s.publication, m.schema_name, m.table_name);
                END IF;
                IF m.published THEN
                    UPDATE muniment.attached a SET published = false WHERE a.source = s.name AND a.relation = m.relation;
                    PERFORM muniment.note_trouble(s.name, m.relation, 'columns of it are left out, and it has no primary key');
                END IF;
                CONTINUE;
            END IF;
            IF m.lacks_identity THEN
                EXECUTE format('ALTER TABLE %I.%I REPLICA IDENTITY %s', m.schema_name, m.table_name, CASE WHEN m.has_key AND (s.identity = 'key' OR m.visible IS NOT NULL) THEN 'DEFAULT' ELSE 'FULL' END);
            END IF;
            IF m.published AND (m.is_bypassed OR m.has_other_columns) THEN
                IF m.is_in THEN
                    EXECUTE format('ALTER PUBLICATION %I DROP TABLE %I.%I', s.publication, m.schema_name, m.table_name);
                END IF;
                EXECUTE format('ALTER PUBLICATION %I ADD TABLE ONLY %I.%I %s', s.publication, m.schema_name, m.table_name, coalesce(m.visible, ''));
                IF m.is_bypassed THEN
                    bypassed := bypassed || m.relation;
                END IF;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            PERFORM muniment.note_trouble(s.name, m.relation, SQLERRM);
        END;
    END LOOP;
    IF EXISTS (SELECT FROM pg_publication p WHERE p.pubname = s.publication AND NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND p.pubviaroot)) THEN
        EXECUTE format('ALTER PUBLICATION %I SET (publish = ''insert, update, delete, truncate'', publish_via_partition_root = true)', s.publication);
        bypassed := ARRAY(SELECT a.relation FROM muniment.attached a WHERE a.source = s.name AND a.published);
    END IF;
    IF bypassed <> '{}' THEN
        UPDATE muniment.attached a SET baseline = nextval('muniment.baseline') WHERE a.source = s.name AND s.baseline AND a.root = ANY (bypassed);
        names := ARRAY(SELECT a.schema_name || '.' || a.table_name FROM muniment.attached a WHERE a.source = s.name AND a.relation = ANY (bypassed) ORDER BY 1);
        PERFORM pg_logical_emit_message(true, 'muniment.ddl', json_build_object('tag', 'ALTER PUBLICATION', 'statement', muniment.ddl_statement('ALTER PUBLICATION', current_query(), true),
            'user', session_user, 'application', current_setting('application_name'), 'address', host(inet_client_addr()), 'tables', names, 'rewritten', names,
            'reason', 'the publication left it out or a part of its changes, and was put right: what was changed meanwhile is not captured',
            'dropped', CASE WHEN s.baseline THEN to_json(names) ELSE '[]' END)::text);
    END IF;
    PERFORM muniment.note_columns();
    DELETE FROM muniment.at_work WHERE transaction_id = pg_current_xact_id();
    RETURN taken;
END
$$
