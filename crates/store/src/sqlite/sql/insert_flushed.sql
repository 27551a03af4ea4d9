INSERT INTO flushed (stream, first, end_index, flushed_at) VALUES ($1, $2, $3, $4)
