-- In the manner of the audit trigger of the PostgreSQL wiki (2ndQuadrant): one table of actions with the row and the changed columns as hstore, session and statement.
CREATE EXTENSION hstore;
CREATE SCHEMA actions;
CREATE TABLE actions.logged (
    id bigserial PRIMARY KEY,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    relation oid NOT NULL,
    session_user_name text,
    at_transaction timestamptz NOT NULL,
    at_statement timestamptz NOT NULL,
    at_clock timestamptz NOT NULL,
    transaction bigint,
    application_name text,
    client_address inet,
    client_port integer,
    client_query text,
    action text NOT NULL CHECK (action IN ('I', 'D', 'U', 'T')),
    row_data hstore,
    changed_columns hstore
);
CREATE INDEX ON actions.logged (relation);
CREATE INDEX ON actions.logged (at_statement);
CREATE INDEX ON actions.logged (action);

CREATE FUNCTION actions.keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    entry actions.logged;
BEGIN
    entry := ROW(nextval('actions.logged_id_seq'), TG_TABLE_SCHEMA::text, TG_TABLE_NAME::text, TG_RELID, session_user::text, current_timestamp,
        statement_timestamp(), clock_timestamp(), txid_current(), current_setting('application_name'), inet_client_addr(), inet_client_port(), current_query(),
        substring(TG_OP, 1, 1), NULL, NULL);
    IF TG_OP = 'UPDATE' THEN
        entry.row_data := hstore(OLD.*);
        entry.changed_columns := hstore(NEW.*) - entry.row_data;
        IF entry.changed_columns = hstore('') THEN
            RETURN NULL;
        END IF;
    ELSIF TG_OP = 'DELETE' THEN
        entry.row_data := hstore(OLD.*);
    ELSE
        entry.row_data := hstore(NEW.*);
    END IF;
    INSERT INTO actions.logged VALUES (entry.*);
    RETURN NULL;
END
$$;

CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON app.cases FOR EACH ROW EXECUTE FUNCTION actions.keep();
