SELECT batch, stream, first, end_index, first_id, last_id, recorded_at, min_time, max_time, length(body) AS bytes
FROM hot_batch AS b
WHERE NOT EXISTS (SELECT 1 FROM flushed AS f WHERE f.stream = b.stream AND f.first <= b.first AND f.end_index >= b.end_index)
ORDER BY stream, first
