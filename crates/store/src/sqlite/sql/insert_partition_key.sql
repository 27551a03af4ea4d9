INSERT INTO partition_key (stream, month, key) VALUES ($1, $2, $3) ON CONFLICT (stream, month) DO NOTHING
