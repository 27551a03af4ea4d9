DROP EVENT TRIGGER IF EXISTS muniment_queue_rewrite;
DROP EVENT TRIGGER IF EXISTS muniment_queue_ddl;
DROP EVENT TRIGGER IF EXISTS muniment_queue_drop;
DROP FUNCTION IF EXISTS muniment.queue_on_rewrite(), muniment.queue_on_ddl(), muniment.queue_on_drop(), muniment.queue_refresh(), muniment.queue_members(), muniment.queue_watches(oid), muniment.queue_unwatch(oid), muniment.retyped_tables(text), muniment.alters_values(text), muniment.ddl_statement(text, text, boolean), muniment.queue_statement(text), muniment.queue_again(oid, boolean), muniment.queue_enable(), muniment.queue_remember(oid), muniment.queue_leave(oid, text),
    muniment.queue_truncate(),
    muniment.queue_reduced_row(), muniment.queue_row(), muniment.queue_note(text, text, json, json, text[]), muniment.queue_omitted(json);
DROP FUNCTION IF EXISTS muniment.set_context(bigint, text, text, text, text, text, text, text, text, integer), muniment.context(jsonb);
DROP VIEW IF EXISTS muniment.sys_audit_queue, muniment.queue_rows;
DROP TABLE IF EXISTS muniment.sys_audit_queue_dead, muniment.queue_failure, muniment.queue_state, muniment.queue_wave, muniment.sys_audit_queue_1, muniment.sys_audit_queue_0,
    muniment.queue_table, muniment.queue_shape, muniment.queue_baseline, muniment.queue_partition, muniment.queue_source, muniment.queue_ending;
DROP SEQUENCE IF EXISTS muniment.queue_id
