INSERT INTO installation (id, origin, created_at) VALUES (1, $1, $2)
