INSERT INTO hot_batch (stream, first, end_index, first_id, last_id, recorded_at, min_time, max_time, hashes, body)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
