-- A version below zero says that it is about to be detached.
INSERT INTO muniment_audit_state (name, schema_version, processed)
VALUES ({name}, 0, (SELECT seq FROM sqlite_sequence WHERE name = 'muniment_audit_queue'))
ON CONFLICT (name) DO UPDATE SET schema_version = 0
