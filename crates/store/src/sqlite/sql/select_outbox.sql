SELECT id, log, line FROM outbox WHERE id > $1 ORDER BY id LIMIT $2
