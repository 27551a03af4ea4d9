-- Sessions in this database that may write: who they are, the transaction they are in, and when their last statement began and ended (µs UTC). `reads` says that
-- this statement, going by its first word, has not changed rows. There is always a row, which says when the look was taken.
SELECT
    t.taken,
    a.usename::text AS user_name,
    a.application_name AS application,
    host(a.client_addr) AS address,
    a.backend_xid::text::pg_catalog.int8 AS xid,
    a.state = 'idle' AS idle,
    a.query ~* '^\s*(select|values|table|show|fetch|explain|declare|close|begin|start|set|reset|savepoint|release|rollback|abort|listen|notify|discard|deallocate)\M' AS reads,
    (extract(epoch FROM a.backend_start) * 1000000)::pg_catalog.int8 AS backend_start,
    (extract(epoch FROM a.xact_start) * 1000000)::pg_catalog.int8 AS xact_start,
    (extract(epoch FROM a.query_start) * 1000000)::pg_catalog.int8 AS query_start,
    (extract(epoch FROM a.state_change) * 1000000)::pg_catalog.int8 AS state_change
FROM (SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::pg_catalog.int8 AS taken) AS t
LEFT JOIN pg_catalog.pg_stat_activity AS a
    ON a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.application_name <> 'muniment' AND a.usename IS NOT NULL
    AND a.backend_type NOT IN ('walsender', 'autovacuum worker', 'parallel worker')
