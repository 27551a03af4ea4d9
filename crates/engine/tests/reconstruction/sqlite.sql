ATTACH ':memory:' AS "case";
CREATE TABLE "case"."hồ ""sơ""" (id INTEGER PRIMARY KEY, "we""ird" TEXT, amount NUMERIC, flag BOOLEAN, raw BLOB);
CREATE TABLE "case".part (hoso TEXT, number INTEGER, note TEXT, PRIMARY KEY (hoso, number));
