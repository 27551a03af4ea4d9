SELECT d.id, d.table_name, d.operation, (extract(epoch FROM d.queued_at) * 1000000)::int8 AS queued_at, coalesce(f.attempts, 0) AS attempts,
    coalesce(f.last_error, '') AS last_error
FROM muniment.sys_audit_queue_dead d LEFT JOIN muniment.queue_failure f ON f.id = d.id
ORDER BY d.id LIMIT 1000
