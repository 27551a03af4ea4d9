SELECT batch, stream, first, end_index, first_id, last_id, recorded_at, min_time, max_time, length(body) AS bytes
FROM hot_batch WHERE flushed_at IS NULL ORDER BY stream, first
