INSERT INTO outbox (log, line) VALUES ($1, $2)
