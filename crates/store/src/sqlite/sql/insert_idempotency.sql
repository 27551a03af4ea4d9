INSERT INTO idempotency (log, key, fingerprint, answer, created_at) VALUES (?, ?, ?, ?, ?)
