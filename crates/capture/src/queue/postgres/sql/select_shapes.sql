-- What the audited tables are like, and were like for changes before a number that are still in the queue: those first, and the table that was attached last.
SELECT table_name, key_columns, masked, columns::text AS columns, until
FROM (
    SELECT table_name, key_columns, masked, columns, until, NULL::timestamptz AS attached_at, NULL::oid AS relation FROM muniment.queue_shape
    UNION ALL
    SELECT table_name, key_columns, masked, columns, NULL, attached_at, relation FROM muniment.queue_table
) shapes
ORDER BY until, attached_at DESC, relation DESC
