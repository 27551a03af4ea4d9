INSERT INTO log_head (log, next_id) VALUES (?, ?)
ON CONFLICT (log) DO UPDATE SET next_id = max(next_id, excluded.next_id)
