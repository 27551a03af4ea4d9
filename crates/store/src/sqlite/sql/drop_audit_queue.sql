-- What an older version made, and never wrote to.
DROP TABLE sys_audit_queue
