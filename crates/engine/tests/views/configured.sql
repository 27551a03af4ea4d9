-- Ways to get at what configuration masks: the reason of a change, and the fields `name` and `address.street` of documents that are shown otherwise. As in `attempts.sql`,
-- a viewer asks them over two logs that differ only in what is masked.

-- Plainly.
SELECT new_values FROM sys_audit_log ORDER BY id;
SELECT old_values, new_values, change_reason FROM sys_audit_log WHERE compliance_level < 3 ORDER BY id;
SELECT n.new_values AS harmless, n.change_reason AS operation FROM sys_audit_log n ORDER BY n.id;
SELECT * EXCEPT (id, recorded_at, blockchain_hash, previous_hash, signature) FROM sys_audit_log ORDER BY stream_index, table_name, primary_key;
SELECT new_values FROM sys_audit_log WHERE table_name = 'muniment.users';
SELECT new_values FROM sys_audit_log WHERE compliance_level = 3 ORDER BY id;

-- By conditions.
SELECT id FROM sys_audit_log WHERE new_values LIKE '%alpha%' ORDER BY id;
SELECT id FROM sys_audit_log WHERE new_values ILIKE '%ALPHA street%' ORDER BY id;
SELECT id FROM sys_audit_log WHERE NOT (new_values LIKE '%bravo%') ORDER BY id;
SELECT id FROM sys_audit_log WHERE new_values SIMILAR TO '%alpha%' ORDER BY id;
SELECT id FROM sys_audit_log WHERE new_values ~ 'alpha-[0-9]' ORDER BY id;
SELECT id FROM sys_audit_log WHERE regexp_like(new_values, '"name":"alpha') ORDER BY id;
SELECT id FROM sys_audit_log WHERE strpos(new_values, 'alpha') > 0 ORDER BY id;
SELECT id FROM sys_audit_log WHERE contains(new_values, 'alpha') ORDER BY id;
SELECT id FROM sys_audit_log WHERE new_values > '{"id":"open-1","name":"b' ORDER BY id;
SELECT id FROM sys_audit_log WHERE new_values = '{"id":"open-1","name":"alpha-0","address":{"street":"alpha street","city":"Hue"}}' ORDER BY id;
SELECT id FROM sys_audit_log WHERE new_values IN ('{"id":"open-1","name":"alpha-0","address":{"street":"alpha street","city":"Hue"}}') ORDER BY id;
SELECT id FROM sys_audit_log WHERE new_values BETWEEN '{"id":"open-1","name":"alpha' AND '{"id":"open-1","name":"alphb' ORDER BY id;
SELECT id FROM sys_audit_log WHERE change_reason = 'alpha-why' ORDER BY id;
SELECT id FROM sys_audit_log WHERE change_reason LIKE 'a%' OR 1 = 0 ORDER BY id;
SELECT id FROM sys_audit_log WHERE new_values LIKE '%alpha%' AND primary_key = 'open-1' AND compliance_level = 1 ORDER BY id;
SELECT id FROM sys_audit_log WHERE CASE WHEN new_values LIKE '%alpha%' THEN change_reason = 'alpha-why' ELSE false END ORDER BY id;

-- By what fails.
SELECT id FROM sys_audit_log WHERE 1 / (CASE WHEN new_values LIKE '%alpha-0%' THEN 0 ELSE 1 END) = 1 ORDER BY id;
SELECT id FROM sys_audit_log WHERE 1 / (CASE WHEN change_reason = 'alpha-why' THEN 0 ELSE 1 END) = 1 ORDER BY id;
SELECT CAST(substr(new_values, 25, 5) AS BIGINT) FROM sys_audit_log ORDER BY id;
SELECT id FROM sys_audit_log WHERE CAST(change_reason AS BIGINT) > 0;

-- By functions, order and grouping.
SELECT md5(new_values), length(new_values), octet_length(change_reason) FROM sys_audit_log WHERE table_name <> 'x' ORDER BY id;
SELECT substr(new_values, 24, 6), reverse(new_values), split_part(new_values, ':', 3) FROM sys_audit_log ORDER BY id;
SELECT regexp_replace(new_values, '.*"name":"([a-z]+).*', '\1') FROM sys_audit_log ORDER BY id;
SELECT levenshtein(change_reason, 'alpha-why'), encode(digest(new_values, 'sha256'), 'hex') FROM sys_audit_log ORDER BY id;
SELECT min(new_values), max(new_values), count(DISTINCT new_values), string_agg(change_reason, ',') FROM sys_audit_log WHERE compliance_level < 3;
SELECT new_values, count(*) FROM sys_audit_log GROUP BY new_values ORDER BY 1;
SELECT change_reason, count(*) FROM sys_audit_log GROUP BY change_reason ORDER BY 1;
SELECT id FROM sys_audit_log ORDER BY new_values, id;
SELECT rank() OVER (ORDER BY change_reason DESC, new_values), lag(new_values) OVER (ORDER BY id) FROM sys_audit_log ORDER BY id;

-- By joins and subqueries.
WITH t AS (SELECT id, new_values AS v, change_reason AS w FROM sys_audit_log) SELECT v, w FROM t ORDER BY id;
SELECT count(*) FROM sys_audit_log a JOIN (VALUES ('alpha-why'), ('bravo-why')) AS g(k) ON a.change_reason = g.k WHERE g.k = 'alpha-why';
SELECT count(*) FROM sys_audit_log a JOIN sys_audit_log b ON a.new_values = b.old_values;
SELECT id FROM sys_audit_log a WHERE EXISTS (SELECT 1 FROM (VALUES ('%alpha%')) AS g(k) WHERE a.new_values LIKE g.k) ORDER BY id;
SELECT (SELECT max(new_values) FROM sys_audit_log WHERE compliance_level = 1);
SELECT change_reason FROM sys_audit_log EXCEPT SELECT '***';
SELECT new_values FROM sys_audit_log UNION SELECT old_values FROM sys_audit_log ORDER BY 1;
EXPLAIN SELECT id FROM sys_audit_log WHERE change_reason = 'alpha-why';
