-- The name under which a table's changes are published: its own, or that of the parent it comes with.
CREATE OR REPLACE FUNCTION muniment.published_name(relation oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.schema_name || '.' || p.table_name
    FROM (SELECT relation AS oid, 0 AS level UNION ALL SELECT a.relid, 1 FROM pg_partition_ancestors(relation) a) up
    JOIN muniment.attached p ON p.relation = up.oid AND p.published
    ORDER BY up.level DESC LIMIT 1
$$;

-- Writes what happened to tables into the log of changes, in the transaction that did it.
CREATE OR REPLACE FUNCTION muniment.report_ddl(tag text, tables text[], rewritten text[], dropped text[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_logical_emit_message(true, 'muniment.ddl', json_build_object('tag', tag, 'statement',
        muniment.ddl_statement(tag, current_query(), EXISTS (SELECT FROM muniment.source s WHERE cardinality(s.excluded_columns) + cardinality(s.masked_columns) > 0)), 'user', session_user,
        'application', current_setting('application_name'), 'address', host(inet_client_addr()),
        'tables', coalesce(to_json(tables), '[]'), 'rewritten', coalesce(to_json(rewritten), '[]'), 'dropped', coalesce(to_json(dropped), '[]'))::text)
$$;

-- Before TRUNCATE of a partition, or of a partitioned table. The stream has the TRUNCATE of the table that is published, but nothing of one of its partitions alone: that is
-- reported, and since it is not known which rows go, all of the table come again. The published table comes first and says so to its partitions, and the first of several partitions to the others.
CREATE OR REPLACE FUNCTION muniment.on_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text := muniment.published_name(TG_RELID);
    said text := concat_ws(' ', name, statement_timestamp());
BEGIN
    IF name IS NULL OR coalesce(current_setting('muniment.truncated', true), '') = said THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('muniment.truncated', said, true);
    IF NOT EXISTS (SELECT FROM muniment.attached WHERE relation = TG_RELID AND published) THEN
        UPDATE muniment.attached a SET baseline = nextval('muniment.baseline')
        FROM muniment.attached p JOIN muniment.source s ON s.name = p.source AND s.baseline
        WHERE p.relation = TG_RELID AND a.source = p.source AND a.root = p.root;
        PERFORM muniment.report_ddl('TRUNCATE', ARRAY[name], ARRAY[name], CASE WHEN FOUND THEN ARRAY[name] END);
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'muniment: TRUNCATE of % could not be reported: %', TG_RELID::regclass, SQLERRM;
    RETURN NULL;
END
$$
