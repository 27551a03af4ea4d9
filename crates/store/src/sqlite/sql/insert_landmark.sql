INSERT INTO landmark (number, type, subject) VALUES (?, ?, ?)
