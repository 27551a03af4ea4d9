INSERT INTO stream_commit (stream, size, number) VALUES (?, ?, ?)
