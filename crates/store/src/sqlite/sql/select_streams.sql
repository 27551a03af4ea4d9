SELECT stream, log, retention_years, size, frontier, last_hash, recorded_at FROM stream ORDER BY stream
