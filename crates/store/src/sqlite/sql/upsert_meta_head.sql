INSERT INTO meta_head (id, size, frontier, time) VALUES (1, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET size = excluded.size, frontier = excluded.frontier, time = excluded.time
