WITH done AS (
    UPDATE muniment.queue_state s SET wave = w.number, upto = w.upto, processed_at = now()
    FROM muniment.queue_wave w WHERE w.number = $1 AND s.wave < w.number
), gone AS (
    DELETE FROM muniment.queue_failure f
    USING muniment.queue_rows q, muniment.queue_wave w
    WHERE f.id = q.id AND w.number = $1 AND pg_visible_in_snapshot(q.transaction_id, w.upto)
        AND NOT EXISTS (SELECT FROM muniment.sys_audit_queue_dead d WHERE d.id = f.id)
)
DELETE FROM muniment.queue_wave WHERE number < $1
