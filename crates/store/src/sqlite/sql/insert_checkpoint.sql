INSERT INTO checkpoint (size, note) VALUES (?, ?)
