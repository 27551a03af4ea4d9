-- The columns of the audited tables, the newest of a name first.
SELECT q.relation, q.table_name, q.key_columns, q.masked, a.attname::text AS name, a.atttypid AS type,
    coalesce(a.attgenerated <> '', false) AS is_generated
FROM muniment.queue_table q LEFT JOIN pg_attribute a ON a.attrelid = q.relation AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY q.attached_at, q.relation, a.attnum
