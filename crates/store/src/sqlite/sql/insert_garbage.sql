INSERT INTO garbage (path, since) VALUES ($1, $2) ON CONFLICT (path) DO NOTHING
