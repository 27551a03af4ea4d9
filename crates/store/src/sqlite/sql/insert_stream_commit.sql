INSERT INTO stream_commit (stream, size, number) VALUES ($1, $2, $3)
