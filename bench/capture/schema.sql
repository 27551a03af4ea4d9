-- One table of twelve columns with 200,000 rows, as a case-handling application has them.
CREATE SCHEMA app;
CREATE TABLE app.cases (
    id bigint PRIMARY KEY,
    number text NOT NULL,
    title text NOT NULL,
    status text NOT NULL,
    priority smallint NOT NULL,
    owner integer NOT NULL,
    amount numeric(18, 2) NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    closed boolean NOT NULL,
    address text,
    note text
);
INSERT INTO app.cases
SELECT id, 'HS-' || id, 'Application of citizen number ' || id, 'open', id % 5, id % 1000, id * 1.25, now(), now(), false,
    id % 300 || ' Main Street, District ' || id % 24, 'received at the counter, all papers complete'
FROM generate_series(1, 200000) id;
CREATE TABLE app.probe (id bigint PRIMARY KEY);
VACUUM ANALYZE app.cases;
