SET TIME ZONE 'Asia/Ho_Chi_Minh';
CREATE SCHEMA "case";
CREATE TYPE "case".mood AS ENUM ('glad', 'so ''so''');
CREATE DOMAIN "case".code AS char(4) CHECK (VALUE <> 'none');
CREATE TABLE "case"."hồ ""sơ""" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "we""ird" text, amount numeric, big int8, flag bool, at timestamptz, raw bytea, list int[],
    texts text[], doc jsonb, kept json, mood "case".mood, span int4range, real float8, spot point, code "case".code
);
CREATE TABLE "case".part (hoso text, number int, note varchar(50), PRIMARY KEY (hoso, number));
