-- The rows of a wave after a place in it. Transactions come one after the other, by their last row's number: a transaction that changed a row after another had is later in
-- that order, and so are those that committed later as far as it can matter. Within each, rows are in the order of the changes.
DECLARE muniment_wave NO SCROLL CURSOR FOR
SELECT t.last_id, q.id, q.transaction_id::text AS transaction_id, (extract(epoch FROM q.queued_at) * 1000000)::int8 AS queued_at, q.table_name, q.operation,
    CASE WHEN octet_length(q.old_row::text) > 33554432 THEN muniment.queue_omitted(q.old_row) ELSE q.old_row::text END AS old_row,
    CASE WHEN octet_length(q.new_row::text) > 33554432 THEN muniment.queue_omitted(q.new_row) ELSE q.new_row::text END AS new_row,
    q.masked_changes, q.context, q.session_user_name::text AS session_user_name, q.application_name, host(q.client_address) AS client_address,
    q.id = ANY (ARRAY(SELECT d.id FROM muniment.sys_audit_queue_dead d)) AS is_dead,
    CASE WHEN q.id = ANY (ARRAY(SELECT d.id FROM muniment.sys_audit_queue_dead d)) THEN
        (SELECT f.last_error FROM muniment.queue_failure f WHERE f.id = q.id)
    END AS last_error
FROM (
    SELECT r.transaction_id, max(r.id) AS last_id
    FROM (
        SELECT transaction_id, id FROM muniment.queue_rows
        WHERE transaction_id >= pg_snapshot_xmax($1::pg_snapshot) AND transaction_id < pg_snapshot_xmax($2::pg_snapshot)
        UNION ALL
        SELECT transaction_id, id FROM muniment.queue_rows WHERE transaction_id = ANY (ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot)))
    ) r
    WHERE pg_visible_in_snapshot(r.transaction_id, $2::pg_snapshot)
    GROUP BY r.transaction_id
    HAVING max(r.id) >= $3
    ORDER BY max(r.id)
) t
CROSS JOIN LATERAL (
    SELECT * FROM muniment.queue_rows q WHERE q.transaction_id = t.transaction_id AND (t.last_id, q.id) > ($3, $4) ORDER BY q.id
) q
