-- Tables of the random workload: every kind of table and type that capture has to carry.

CREATE SCHEMA shop;
CREATE SCHEMA "Số liệu";

CREATE TYPE shop.mood AS ENUM ('sad', 'ok', 'it''s "fine", really', 'vui vẻ');
CREATE TYPE shop.address AS (street text, number integer, "Tỉnh" text);
CREATE DOMAIN shop.positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN shop.code AS varchar(12) CHECK (VALUE <> '');

CREATE TABLE shop.everything (
    id bigint PRIMARY KEY,
    c_smallint smallint, c_integer integer, c_bigint bigint,
    c_numeric numeric, c_decimal numeric(20, 4), c_real real, c_double double precision, c_money money,
    c_boolean boolean,
    c_char char(8), c_varchar varchar(40), c_text text, c_name name,
    c_bytea bytea,
    c_date date, c_time time, c_timetz timetz, c_timestamp timestamp, c_timestamptz timestamptz, c_interval interval,
    c_uuid uuid, c_inet inet, c_cidr cidr, c_macaddr macaddr, c_macaddr8 macaddr8,
    c_json json, c_jsonb jsonb,
    c_bit bit(5), c_varbit varbit(20),
    c_point point, c_line line, c_lseg lseg, c_box box, c_path path, c_polygon polygon, c_circle circle,
    c_tsvector tsvector, c_tsquery tsquery,
    c_int4range int4range, c_int8range int8range, c_numrange numrange, c_tsrange tsrange, c_tstzrange tstzrange, c_daterange daterange,
    c_int4multirange int4multirange,
    c_oid oid, c_lsn pg_lsn, c_regclass regclass,
    c_integers integer[], c_texts text[], c_numerics numeric[], c_jsonbs jsonb[], c_moods shop.mood[], c_grid text[][],
    c_mood shop.mood, c_positive shop.positive, c_code shop.code, c_address shop.address
);

-- Quoted names, Unicode, a key of two columns that are not the first.
CREATE TABLE "Số liệu"."Hồ sơ ""đặc biệt"", v1.0" (
    "Ghi chú" text,
    "số" integer NOT NULL,
    "mã" text NOT NULL,
    "select" text,
    "a b\c'd" text,
    PRIMARY KEY ("mã", "số")
);

-- Partitions of two levels; a row moves when its region or level changes.
CREATE TABLE shop.measured (
    id integer NOT NULL,
    region text NOT NULL,
    level integer NOT NULL,
    amount numeric,
    note text,
    PRIMARY KEY (id, region, level)
) PARTITION BY LIST (region);
CREATE TABLE shop.measured_north PARTITION OF shop.measured FOR VALUES IN ('north');
CREATE TABLE shop.measured_south PARTITION OF shop.measured FOR VALUES IN ('south') PARTITION BY RANGE (level);
CREATE TABLE shop.measured_south_low PARTITION OF shop.measured_south FOR VALUES FROM (0) TO (50);
CREATE TABLE shop.measured_south_high PARTITION OF shop.measured_south FOR VALUES FROM (50) TO (100);
-- Attached later, its columns in another order.
CREATE TABLE shop.measured_rest (note text, amount numeric, level integer NOT NULL, region text NOT NULL, id integer NOT NULL);
ALTER TABLE shop.measured ATTACH PARTITION shop.measured_rest DEFAULT;

CREATE TABLE shop.computed (
    id integer PRIMARY KEY,
    width integer NOT NULL,
    height integer NOT NULL,
    area integer GENERATED ALWAYS AS (width * height) STORED
);

CREATE TABLE shop.keyless (a integer, b text, c double precision);

-- Values that are stored out of line, next to one that changes often.
CREATE TABLE shop.toasted (
    id integer PRIMARY KEY,
    counter integer NOT NULL,
    body text,
    data bytea,
    doc jsonb
);
ALTER TABLE shop.toasted ALTER body SET STORAGE EXTERNAL, ALTER data SET STORAGE EXTERNAL;

CREATE TABLE shop.parent (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE shop.child (
    id integer PRIMARY KEY,
    parent integer NOT NULL REFERENCES shop.parent ON DELETE CASCADE ON UPDATE CASCADE,
    name text
);

-- Changed by DDL while the workload runs, if that is wanted.
CREATE TABLE shop.changing (id integer PRIMARY KEY, value integer, label text);

-- One row for each step of a committed transaction, written in it: what must be in the log exactly once, and whom it must name.
CREATE TABLE shop.journal (
    id bigint PRIMARY KEY,
    transaction bigint NOT NULL,
    user_name text
);
