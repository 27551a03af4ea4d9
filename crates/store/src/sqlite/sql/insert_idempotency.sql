INSERT INTO idempotency (log, key, fingerprint, answer, created_at) VALUES ($1, $2, $3, $4, $5)
