SELECT id, table_name, operation, queued_at, CAST(old_row AS BLOB) AS old_row, CAST(new_row AS BLOB) AS new_row, masked_changes, context_id, context, last_error, is_dead
FROM muniment_audit_queue WHERE id > ? ORDER BY id LIMIT ?
