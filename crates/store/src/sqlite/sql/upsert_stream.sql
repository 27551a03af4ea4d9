INSERT INTO stream (stream, log, retention_years, size, frontier, last_hash, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (stream) DO UPDATE SET
    size = excluded.size, frontier = excluded.frontier, last_hash = excluded.last_hash, recorded_at = excluded.recorded_at
