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
                EXECUTE format('ALTER PUBLICATION %I ADD TABLE %I.%I %s', s.publication, m.schema_name, m.table_name, coalesce(visible, ''));
            END IF;
            IF m.fresh AND m.published THEN
                taken := taken || (m.schema_name || '.' || m.table_name);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            PERFORM muniment.note_trouble(s.name, m.relation, SQLERRM);
        END;
    END LOOP;
    FOR m IN
        SELECT a.relation, a.schema_name, a.table_name, v.visible
        FROM muniment.attached a
        CROSS JOIN LATERAL (SELECT muniment.visible_columns(s.name, a.relation, a.relation) AS visible) v
        JOIN pg_publication p ON p.pubname = s.publication
        LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = a.relation
        WHERE a.source = s.name AND a.published AND v.visible IS NOT NULL AND v.visible IS DISTINCT FROM (
            SELECT '(' || string_agg(quote_ident(c.attname), ', ' ORDER BY c.attnum) || ')'
            FROM pg_attribute c WHERE c.attrelid = a.relation AND c.attnum = ANY (r.prattrs))
    LOOP
        BEGIN
            EXECUTE format('ALTER PUBLICATION %I DROP TABLE %I.%I', s.publication, m.schema_name, m.table_name);
            EXECUTE format('ALTER PUBLICATION %I ADD TABLE %I.%I %s', s.publication, m.schema_name, m.table_name, m.visible);
        EXCEPTION WHEN OTHERS THEN
            PERFORM muniment.note_trouble(s.name, m.relation, SQLERRM);
        END;
    END LOOP;
    PERFORM muniment.note_columns();
    DELETE FROM muniment.at_work WHERE transaction_id = pg_current_xact_id();
    RETURN taken;
END
$$
