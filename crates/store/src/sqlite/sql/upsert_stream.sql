INSERT INTO stream (stream, log, retention_years, size, frontier, last_hash, recorded_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (stream) DO UPDATE SET
    size = excluded.size, frontier = excluded.frontier, last_hash = excluded.last_hash, recorded_at = excluded.recorded_at
