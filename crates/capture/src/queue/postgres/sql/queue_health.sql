-- How much the queue keeps, and how long its oldest change has been waiting to be stored.
SELECT pg_relation_size('muniment.sys_audit_queue_0') + pg_relation_size('muniment.sys_audit_queue_1') AS kept_bytes,
    (SELECT extract(epoch FROM clock_timestamp() - min(waiting.queued_at))::float8 FROM (
        (SELECT queued_at FROM muniment.queue_rows WHERE transaction_id >= pg_snapshot_xmax(s.upto) ORDER BY transaction_id, id LIMIT 1)
        UNION ALL
        (SELECT queued_at FROM muniment.queue_rows WHERE transaction_id = ANY (ARRAY(SELECT pg_snapshot_xip(s.upto))) ORDER BY transaction_id, id LIMIT 1)
    ) waiting) AS lag_seconds
FROM muniment.queue_state s
