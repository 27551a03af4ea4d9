-- Whether every queued change that is visible in a snapshot has been processed.
SELECT NOT EXISTS (
    SELECT FROM muniment.queue_rows q, muniment.queue_state s
    WHERE pg_visible_in_snapshot(q.transaction_id, $1::pg_snapshot) AND NOT pg_visible_in_snapshot(q.transaction_id, s.upto)
)
