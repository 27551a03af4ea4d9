INSERT INTO log_head (log, next_id) VALUES ($1, $2)
ON CONFLICT (log) DO UPDATE SET next_id = max(next_id, excluded.next_id)
