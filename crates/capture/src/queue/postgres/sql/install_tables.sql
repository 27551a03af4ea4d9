-- What Muniment has set up here. One row: the queue has one reader.
CREATE TABLE muniment.queue_source (
    name             text PRIMARY KEY,
    schemas          text[] NOT NULL,
    tables           text[] NOT NULL,
    excluded_schemas text[] NOT NULL,
    excluded_tables  text[] NOT NULL,
    excluded_columns text[] NOT NULL,
    masked_schemas   text[] NOT NULL,
    masked_tables    text[] NOT NULL,
    masked_columns   text[] NOT NULL,
    -- Whether rows are recorded that were there before.
    baseline         boolean NOT NULL,
    attached_at      timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX queue_source_one ON muniment.queue_source ((true));

-- One row for each audited table, by the name under which its changes are recorded.
CREATE TABLE muniment.queue_table (
    relation    oid PRIMARY KEY,
    table_name  text NOT NULL,
    key_columns text[] NOT NULL,
    excluded    text[] NOT NULL,
    masked      text[] NOT NULL,
    columns     json NOT NULL,
    -- Under another name they are left out or masked still.
    excluded_numbers int2[] NOT NULL,
    masked_numbers   int2[] NOT NULL,
    -- Numbers of the columns that it has or had, by name: what is dropped and added again under its name is another one.
    column_numbers   jsonb NOT NULL DEFAULT '{}',
    attached_at timestamptz NOT NULL DEFAULT now()
);

-- What tables were like for the changes before the one numbered `until`. Whoever alters a table has it for itself, so that numbers tell before from after.
CREATE TABLE muniment.queue_shape (
    table_name  text NOT NULL,
    until       bigint NOT NULL,
    key_columns text[] NOT NULL,
    masked      text[] NOT NULL,
    columns     json NOT NULL
);

-- Tables and partitions of which the rows that are there are still to be read.
CREATE TABLE muniment.queue_baseline (
    relation oid PRIMARY KEY,
    number   bigint NOT NULL
);

-- Partitions, and the tables under whose names they are recorded: when they leave those, their rows do.
CREATE TABLE muniment.queue_partition (
    relation oid PRIMARY KEY,
    root     oid NOT NULL
);

-- Not cached: the numbers of conflicting changes must grow in the order in which they were made.
-- It begins with the time in µs: what is attached again doesn't use a number twice.
CREATE SEQUENCE muniment.queue_id;
SELECT setval('muniment.queue_id', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);

-- The queue. Its rows are never updated or deleted: the triggers write to one half while the other is emptied by TRUNCATE, so that there is no bloat.
CREATE TABLE muniment.sys_audit_queue_0 (
    id               bigint NOT NULL,
    transaction_id   xid8 NOT NULL,
    queued_at        timestamptz NOT NULL,
    table_name       text NOT NULL,
    operation        text NOT NULL,
    old_row          json,
    new_row          json,
    masked_changes   text[],
    context          text,
    session_user_name name,
    application_name text,
    client_address   inet
) WITH (autovacuum_enabled = off);
CREATE INDEX sys_audit_queue_0_order ON muniment.sys_audit_queue_0 (transaction_id, id);
CREATE TABLE muniment.sys_audit_queue_1 (LIKE muniment.sys_audit_queue_0) WITH (autovacuum_enabled = off);
CREATE INDEX sys_audit_queue_1_order ON muniment.sys_audit_queue_1 (transaction_id, id);

-- Where a reader has been: each wave is what became visible between the snapshot before it and its own. Wave 0 is nothing.
CREATE TABLE muniment.queue_wave (
    number bigint PRIMARY KEY,
    upto   pg_snapshot NOT NULL
);
INSERT INTO muniment.queue_wave (number, upto) VALUES (0, '3:3:');

-- Everything visible in this snapshot is stored by Muniment.
CREATE TABLE muniment.queue_state (
    wave         bigint NOT NULL,
    upto         pg_snapshot NOT NULL,
    processed_at timestamptz
);
CREATE UNIQUE INDEX queue_state_one ON muniment.queue_state ((true));
INSERT INTO muniment.queue_state (wave, upto) VALUES (0, '3:3:');

-- Changes of which no record could be made, and how often that was tried.
CREATE TABLE muniment.queue_failure (
    id         bigint PRIMARY KEY,
    attempts   integer NOT NULL,
    last_error text NOT NULL,
    failed_at  timestamptz NOT NULL DEFAULT now()
);

-- Those that were given up: kept here until somebody looks at them.
CREATE TABLE muniment.sys_audit_queue_dead (LIKE muniment.sys_audit_queue_0, PRIMARY KEY (id));

CREATE VIEW muniment.queue_rows AS
    SELECT * FROM muniment.sys_audit_queue_0 UNION ALL SELECT * FROM muniment.sys_audit_queue_1;

-- The queue as the design has it. What is processed is known from the reader's snapshot, the key from the images: nothing has to be written to say so.
CREATE VIEW muniment.sys_audit_queue AS
    SELECT q.id, q.table_name,
        CASE WHEN cardinality(t.key_columns) = 1 THEN coalesce(q.new_row, q.old_row) ->> t.key_columns[1]
            ELSE (SELECT json_agg(coalesce(q.new_row, q.old_row) ->> k.name ORDER BY k.place)::text FROM unnest(t.key_columns) WITH ORDINALITY AS k (name, place))
        END AS primary_key,
        q.operation, q.queued_at,
        CASE WHEN pg_visible_in_snapshot(q.transaction_id, s.upto) AND d.id IS NULL THEN s.processed_at END AS processed_at,
        pg_visible_in_snapshot(q.transaction_id, s.upto) AND d.id IS NULL AS is_processed,
        coalesce(f.attempts, 0) AS processing_attempts, f.last_error,
        q.old_row, q.new_row, q.transaction_id, nullif(q.context, '') AS context, q.session_user_name, q.application_name, q.client_address,
        d.id IS NOT NULL AS is_dead
    FROM (
        SELECT * FROM muniment.queue_rows
        UNION ALL
        SELECT * FROM muniment.sys_audit_queue_dead d WHERE NOT EXISTS (SELECT FROM muniment.queue_rows r WHERE r.id = d.id)
    ) q
    CROSS JOIN muniment.queue_state s
    LEFT JOIN muniment.sys_audit_queue_dead d ON d.id = q.id
    LEFT JOIN muniment.queue_failure f ON f.id = q.id
    LEFT JOIN LATERAL (
        SELECT key_columns FROM (
            SELECT s.key_columns, s.until FROM muniment.queue_shape s WHERE s.table_name = q.table_name AND s.until > q.id
            UNION ALL
            SELECT t.key_columns, NULL FROM muniment.queue_table t WHERE t.table_name = q.table_name
        ) shapes ORDER BY until LIMIT 1
    ) t ON true;

-- What stands for an image that is too large to be read at once.
CREATE FUNCTION muniment.queue_omitted(image json) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT json_build_object('$omitted', json_build_object('bytes', octet_length(image::text), 'sha256', encode(sha256(convert_to(image::text, 'UTF8')), 'hex')))::text
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA muniment FROM PUBLIC;
REVOKE ALL ON SEQUENCE muniment.queue_id FROM PUBLIC
