INSERT INTO sqlite_sequence (name, seq)
SELECT 'muniment_audit_queue', CAST(strftime('%s', 'now') AS INTEGER) * 1000000
WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'muniment_audit_queue')
