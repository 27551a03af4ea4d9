INSERT INTO muniment.queue_failure AS f (id, attempts, last_error) VALUES ($1, 1, left($2, 1000))
ON CONFLICT (id) DO UPDATE SET attempts = f.attempts + 1, last_error = excluded.last_error, failed_at = now()
RETURNING attempts
