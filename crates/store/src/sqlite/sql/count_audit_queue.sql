-- Changes of registers that are not in the log yet; dead letters are not waiting. The position is a number, or a number and a tag.
SELECT count(*) FROM muniment_audit_queue
WHERE NOT is_dead AND id > coalesce((SELECT CAST(value AS INTEGER) FROM position WHERE source = $1), 0)
