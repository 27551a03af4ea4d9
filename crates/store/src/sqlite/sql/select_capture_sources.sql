SELECT name, kind, url, options, attached_at, state FROM capture_source ORDER BY name
