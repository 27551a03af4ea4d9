-- Ways to get at what is masked or forbidden, one statement each, ending with a semicolon. A viewer asks them over two logs that differ only in what a viewer may not see:
-- the answers, or the refusals, must be the same byte for byte. What stands in front of `--` at the end of a line is the number by which a failure is reported.

-- Plainly.
SELECT ip_address FROM sys_audit_log ORDER BY id;
SELECT * FROM (SELECT id, ip_address, user_agent, session_id, old_values, new_values, change_details FROM sys_audit_log) ORDER BY id;
TABLE auth_audit_log ORDER BY 1 LIMIT 0;
SELECT a.ip_address, a.device_fingerprint, a.location, a.details FROM audit.auth_audit_log a ORDER BY a.id;
SELECT muniment.audit.sys_audit_log.new_values FROM muniment.audit.sys_audit_log ORDER BY id;
SELECT primary_key, changed_by, changed_by_username, change_reason, business_context FROM sys_audit_log WHERE compliance_level = 3;
SELECT "ip_address" AS "id", id AS ip_address FROM sys_audit_log ORDER BY 2;
SELECT username, email, external_id FROM users ORDER BY id;
SELECT session_id, ip_address FROM user_sessions ORDER BY id;

-- By conditions on what is masked.
SELECT id FROM sys_audit_log WHERE ip_address = '10.1.1.1';
SELECT id FROM sys_audit_log WHERE ip_address <> '10.1.1.1' ORDER BY id;
SELECT id FROM sys_audit_log WHERE ip_address LIKE '10.%' ORDER BY id;
SELECT id FROM sys_audit_log WHERE ip_address IN ('10.1.1.1', '10.2.2.2') ORDER BY id;
SELECT id FROM sys_audit_log WHERE ip_address BETWEEN '10.0.0.0' AND '10.9.9.9' ORDER BY id;
SELECT id FROM sys_audit_log WHERE ip_address IS NULL ORDER BY id;
SELECT id FROM sys_audit_log WHERE new_values ILIKE '%alpha%' ORDER BY id;
SELECT id FROM sys_audit_log WHERE regexp_like(new_values, 'alpha') ORDER BY id;
SELECT count(*) FROM sys_audit_log WHERE length(new_values) > 20;
SELECT count(*) FROM sys_audit_log WHERE octet_length(user_agent) = 12;
SELECT count(*) FROM sys_audit_log WHERE primary_key = 'alpha-key';
SELECT count(*) FROM sys_audit_log WHERE primary_key = 'bravo-key';
SELECT count(*) FROM sys_audit_log WHERE primary_key > 'alpha' AND primary_key < 'bravo';
SELECT count(*) FROM sys_audit_log WHERE table_name = 'case.hoso' AND primary_key IN ('alpha-key', 'bravo-key', 'open-1');
SELECT count(*) FROM sys_audit_log WHERE changed_by = 41;
SELECT count(*) FROM sys_audit_log WHERE changed_by > 0 OR primary_key LIKE 'alpha%';
SELECT count(*) FROM sys_audit_log WHERE NOT (primary_key <> 'alpha-key');
SELECT count(*) FROM sys_audit_log WHERE coalesce(changed_by_username, '') = 'alpha-user';

-- By what fails.
SELECT id FROM sys_audit_log WHERE 1 / (CASE WHEN primary_key = 'alpha-key' THEN 0 ELSE 1 END) = 1 ORDER BY id;
SELECT id FROM sys_audit_log WHERE 1 / (CASE WHEN ip_address = '10.1.1.1' THEN 0 ELSE 1 END) = 1 ORDER BY id;
SELECT CAST(ip_address AS BIGINT) FROM sys_audit_log ORDER BY id LIMIT 1;
SELECT id FROM sys_audit_log WHERE CAST(primary_key AS BIGINT) > 0;
SELECT CAST(new_values AS TIMESTAMP) FROM sys_audit_log;
SELECT arrow_cast(change_details, 'Int8') FROM sys_audit_log WHERE compliance_level = 3;
SELECT id FROM sys_audit_log WHERE 10 / (changed_by - 41) > 0 ORDER BY id;

-- By functions.
SELECT min(ip_address), max(ip_address), count(ip_address), count(DISTINCT ip_address) FROM sys_audit_log;
SELECT approx_distinct(new_values), string_agg(user_agent, ',') FROM sys_audit_log;
SELECT array_agg(primary_key ORDER BY primary_key) FROM sys_audit_log WHERE compliance_level = 3;
SELECT first_value(session_id ORDER BY id), last_value(session_id ORDER BY id) FROM sys_audit_log;
SELECT md5(ip_address), encode(digest(new_values, 'sha256'), 'hex') FROM sys_audit_log ORDER BY id;
SELECT substr(ip_address, 1, 1), ascii(ip_address), reverse(ip_address), upper(user_agent) FROM sys_audit_log ORDER BY id;
SELECT levenshtein(ip_address, '10.1.1.1') FROM sys_audit_log ORDER BY id;
SELECT struct(ip_address, new_values), make_array(ip_address, session_id) FROM sys_audit_log ORDER BY id;
SELECT named_struct('a', ip_address)['a'] FROM sys_audit_log ORDER BY id;
SELECT nullif(ip_address, '10.1.1.1'), coalesce(NULL, new_values), greatest(ip_address, '9') FROM sys_audit_log ORDER BY id;
SELECT bit_xor(changed_by), sum(changed_by), avg(changed_by), median(changed_by) FROM sys_audit_log WHERE compliance_level = 3;
SELECT lag(ip_address) OVER (ORDER BY id), rank() OVER (ORDER BY ip_address), ntile(2) OVER (ORDER BY new_values) FROM sys_audit_log ORDER BY id;
SELECT arrow_typeof(ip_address), to_timestamp(change_reason) FROM sys_audit_log WHERE compliance_level = 3;

-- By order and grouping.
SELECT id FROM sys_audit_log ORDER BY ip_address, id;
SELECT id FROM sys_audit_log ORDER BY new_values DESC, id LIMIT 1;
SELECT id FROM sys_audit_log WHERE compliance_level = 3 ORDER BY primary_key, id LIMIT 1;
SELECT id FROM sys_audit_log WHERE compliance_level = 3 ORDER BY changed_by, id;
SELECT ip_address, count(*) FROM sys_audit_log GROUP BY ip_address ORDER BY 1;
SELECT count(*) FROM sys_audit_log GROUP BY ip_address HAVING max(new_values) > 'b';
SELECT count(*) FROM (SELECT DISTINCT session_id FROM sys_audit_log);
SELECT grouping(ip_address), count(*) FROM sys_audit_log GROUP BY ROLLUP (ip_address) ORDER BY 1, 2;
SELECT DISTINCT ON (user_agent) id FROM sys_audit_log ORDER BY user_agent, id;

-- By names, expressions, subqueries.
WITH t AS (SELECT id, ip_address AS harmless FROM sys_audit_log) SELECT harmless FROM t ORDER BY id;
WITH RECURSIVE t AS (SELECT ip_address, id FROM sys_audit_log UNION ALL SELECT ip_address, id + 1000000 FROM t WHERE id < 1000) SELECT ip_address FROM t ORDER BY id;
SELECT (SELECT max(ip_address) FROM sys_audit_log) AS x;
SELECT id FROM sys_audit_log s WHERE EXISTS (SELECT 1 FROM auth_audit_log a WHERE a.ip_address = s.ip_address AND a.ip_address <> '***') ORDER BY id;
SELECT id FROM sys_audit_log WHERE ip_address IN (SELECT '10.1.1.1') ORDER BY id;
SELECT id FROM sys_audit_log WHERE ip_address = (SELECT '10.1.1.1') ORDER BY id;
SELECT s.ip_address FROM sys_audit_log s, LATERAL (SELECT s.ip_address AS y) l ORDER BY s.id;
SELECT x.ip_address FROM (VALUES ('10.1.1.1')) AS v(a) JOIN sys_audit_log x ON x.ip_address = v.a;
SELECT count(*) FROM sys_audit_log a JOIN auth_audit_log b USING (ip_address);
SELECT count(*) FROM sys_audit_log a JOIN sys_audit_log b ON a.primary_key = b.primary_key AND a.compliance_level = 3;
SELECT count(*) FROM sys_audit_log a LEFT JOIN (VALUES ('alpha-key'), ('bravo-key')) AS g(k) ON a.primary_key = g.k WHERE g.k IS NOT NULL;
SELECT count(*) FROM sys_audit_log a FULL JOIN (VALUES ('10.1.1.1')) AS g(k) ON a.ip_address = g.k;
SELECT ip_address FROM sys_audit_log INTERSECT SELECT '10.1.1.1';
SELECT ip_address FROM sys_audit_log EXCEPT SELECT '***';
SELECT ip_address FROM auth_audit_log UNION SELECT primary_key FROM sys_audit_log WHERE compliance_level = 3;
SELECT COLUMNS('ip_.*') FROM sys_audit_log;
SELECT * EXCEPT (id, recorded_at, blockchain_hash, previous_hash, signature) FROM sys_audit_log ORDER BY stream_index, table_name;
SELECT unnest(make_array(ip_address, new_values)) FROM sys_audit_log;
SELECT CASE WHEN ip_address = '10.1.1.1' THEN 'yes' ELSE 'no' END FROM sys_audit_log ORDER BY id;
PIVOT sys_audit_log ON ip_address USING count(*);

-- By what describes queries and tables.
EXPLAIN SELECT id FROM sys_audit_log WHERE primary_key = 'alpha-key';
EXPLAIN ANALYZE SELECT id FROM sys_audit_log WHERE primary_key = 'alpha-key';
EXPLAIN VERBOSE SELECT min(ip_address) FROM sys_audit_log;
EXPLAIN FORMAT TREE SELECT * FROM sys_audit_log WHERE ip_address = '10.1.1.1';
SELECT table_name, column_name FROM information_schema.columns WHERE table_name IN ('api_keys', 'user_roles', 'investigations', 'legal_holds') ORDER BY 1, 2;
SELECT table_name FROM information_schema.tables ORDER BY 1;
SELECT * FROM information_schema.views ORDER BY 1, 2, 3;
SHOW TABLES;
SHOW COLUMNS FROM sys_audit_log;
DESCRIBE api_keys;

-- At what is forbidden.
SELECT * FROM legal_holds;
SELECT * FROM audit.investigations;
SELECT * FROM compliance_reports;
SELECT * FROM "legal_holds";
SELECT 1 WHERE EXISTS (SELECT * FROM data_retention_policies);
SELECT * FROM sqlite_master;
SELECT * FROM hot_batches;
SELECT * FROM pg_catalog.pg_class;
SELECT * FROM '/etc/passwd';
SELECT * FROM read_parquet('logs');
SELECT * FROM parquet_metadata('logs');
SELECT * FROM metadata_cache();

-- By changing something.
CREATE VIEW v AS SELECT * FROM sys_audit_log;
CREATE TABLE t AS SELECT ip_address FROM sys_audit_log;
CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/';
CREATE FUNCTION f(x text) RETURNS text RETURN x;
COPY (SELECT ip_address FROM sys_audit_log) TO '/var/lib/x';
INSERT INTO users SELECT * FROM users;
SET datafusion.execution.parquet.pushdown_filters = true;
RESET datafusion.catalog.information_schema;
PREPARE p AS SELECT ip_address FROM sys_audit_log;
SELECT 1; SELECT ip_address FROM sys_audit_log;
