-- The columns of the primary key that a table had at an LSN, if it has another now.
SELECT key_columns FROM muniment.former_key WHERE relation = $1 AND until > $2::pg_catalog.pg_lsn ORDER BY until LIMIT 1
