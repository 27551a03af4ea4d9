DROP TABLE IF EXISTS muniment_audit_queue;
DROP TABLE IF EXISTS muniment_context;
DROP TABLE IF EXISTS muniment_context_end;
DROP TABLE IF EXISTS muniment_audit_table;
DROP TABLE IF EXISTS muniment_audit_state;
DROP TABLE IF EXISTS muniment_audit_pattern;
DROP TABLE IF EXISTS muniment_audit_shape
