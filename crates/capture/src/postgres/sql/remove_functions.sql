DROP FUNCTION IF EXISTS muniment.on_ddl(), muniment.on_truncate(), muniment.on_rewrite(), muniment.on_drop(), muniment.report_ddl(text, text[], text[], text[]),
    muniment.published_name(oid), muniment.refresh(text), muniment.note_trouble(text, oid, text), muniment.visible_columns(text, oid, oid), muniment.members(text), muniment.note_columns(), muniment.key_of(oid), muniment.retyped_tables(text), muniment.alters_values(text), muniment.ddl_statement(text, text, boolean), muniment.name_session();
DROP FUNCTION IF EXISTS muniment.set_context(bigint, text, text, text, text, text, text, text, text, integer), muniment.context(jsonb);
DROP TABLE IF EXISTS muniment.attached, muniment.trouble, muniment.source, muniment.former_key;
DROP SEQUENCE IF EXISTS muniment.baseline
