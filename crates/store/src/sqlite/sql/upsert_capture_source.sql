INSERT INTO capture_source (name, kind, url, options, attached_at, state) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, url = excluded.url, options = excluded.options, state = excluded.state
