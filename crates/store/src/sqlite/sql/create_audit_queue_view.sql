-- The queue of the registers' triggers as the design has it; lines leave it within moments after they are in the log, but for the last one.
CREATE VIEW IF NOT EXISTS sys_audit_queue AS
SELECT
    q.id,
    CASE WHEN q.table_name LIKE 'main.%' THEN 'muniment.' || substr(q.table_name, 6) ELSE q.table_name END AS table_name,
    CASE WHEN q.operation = 'DDL' THEN '*' ELSE coalesce(CAST(json_extract(
        CASE WHEN json_valid(coalesce(q.new_row, q.old_row)) THEN coalesce(q.new_row, q.old_row) END, '$.id') AS TEXT), '') END AS primary_key,
    q.operation,
    q.queued_at * 1000 AS queued_at,
    CASE WHEN NOT q.is_dead AND q.id <= p.reached THEN p.updated_at END AS processed_at,
    NOT q.is_dead AND q.id <= coalesce(p.reached, 0) AS is_processed,
    q.processing_attempts,
    substr(q.last_error, 1, 1000) AS last_error
FROM muniment_audit_queue q
LEFT JOIN (SELECT CAST(value AS INTEGER) AS reached, updated_at FROM position WHERE source = 'capture:muniment') p
