INSERT INTO hot_batch (stream, first, end_index, first_id, last_id, recorded_at, min_time, max_time, hashes, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
