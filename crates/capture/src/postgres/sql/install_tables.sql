-- What Muniment has set up here: one row for each source that reads this database. Patterns are those of LIKE.
CREATE TABLE IF NOT EXISTS muniment.source (
    name             text PRIMARY KEY,
    publication      text NOT NULL,
    slot             text NOT NULL,
    identity         text NOT NULL CHECK (identity IN ('full', 'key')),
    attribution      text NOT NULL CHECK (attribution IN ('activity', 'trigger')),
    baseline         boolean NOT NULL,
    schemas          text[] NOT NULL,
    tables           text[] NOT NULL,
    excluded_schemas text[] NOT NULL,
    excluded_tables  text[] NOT NULL,
    excluded_columns text[] NOT NULL,
    attached_at      timestamptz NOT NULL DEFAULT now()
);

CREATE SEQUENCE IF NOT EXISTS muniment.baseline;

-- One row for each table and partition that a source has. `published` is false for partitions, which come with their root.
-- A baseline is due while baseline_done differs from baseline.
CREATE TABLE IF NOT EXISTS muniment.attached (
    source          text NOT NULL REFERENCES muniment.source (name) ON DELETE CASCADE,
    relation        oid NOT NULL,
    schema_name     text NOT NULL,
    table_name      text NOT NULL,
    published       boolean NOT NULL,
    former_identity "char" NOT NULL,
    former_index    text,
    baseline        bigint,
    baseline_done   bigint,
    PRIMARY KEY (source, relation)
);

-- The primary key as its columns' names and numbers.
ALTER TABLE muniment.attached ADD COLUMN IF NOT EXISTS key_columns text[], ADD COLUMN IF NOT EXISTS key_numbers int2[];

-- Numbers of the columns that it has or had, by name: what is dropped and added again under its name is another one.
ALTER TABLE muniment.attached ADD COLUMN IF NOT EXISTS column_numbers jsonb NOT NULL DEFAULT '{}';

-- For a partition, the table that it comes with: when it leaves that one, its rows do.
ALTER TABLE muniment.attached ADD COLUMN IF NOT EXISTS root oid;

-- Columns that are left out or masked, by number: under another name they are it still.
ALTER TABLE muniment.attached ADD COLUMN IF NOT EXISTS hidden_numbers int2[], ADD COLUMN IF NOT EXISTS masked_numbers int2[];
ALTER TABLE muniment.source ADD COLUMN IF NOT EXISTS masked_schemas text[] NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS masked_tables text[] NOT NULL DEFAULT '{}', ADD COLUMN IF NOT EXISTS masked_columns text[] NOT NULL DEFAULT '{}';

-- Primary keys that tables had for the changes in the WAL before `until`, of which later ones have another.
CREATE TABLE IF NOT EXISTS muniment.former_key (
    relation    oid NOT NULL,
    until       pg_lsn NOT NULL,
    key_columns text[] NOT NULL
);

-- Tables that could not be taken in, and why.
CREATE TABLE IF NOT EXISTS muniment.trouble (
    source   text NOT NULL REFERENCES muniment.source (name) ON DELETE CASCADE,
    relation oid NOT NULL,
    reason   text NOT NULL,
    PRIMARY KEY (source, relation)
);

REVOKE ALL ON muniment.source, muniment.attached, muniment.former_key, muniment.trouble FROM PUBLIC;
REVOKE ALL ON SEQUENCE muniment.baseline FROM PUBLIC
