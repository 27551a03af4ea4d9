INSERT INTO file (path, stream, month, first, end_index, first_id, last_id, recorded_from, recorded_to, min_time, max_time,
                  bytes, sha256, previous_hash, nodes, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
