INSERT INTO landmark (number, type, subject) VALUES ($1, $2, $3)
