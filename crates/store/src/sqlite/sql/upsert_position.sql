INSERT INTO position (source, value, updated_at) VALUES ($1, $2, $3)
ON CONFLICT (source) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at
