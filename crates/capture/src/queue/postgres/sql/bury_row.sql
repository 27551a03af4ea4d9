INSERT INTO muniment.sys_audit_queue_dead SELECT * FROM muniment.queue_rows WHERE id = $1 ON CONFLICT (id) DO NOTHING
