//! What changes look like: operations, keys, types, names, exclusion and masking.

use crate::support::*;
use muniment_capture::postgres::ColumnRules;
use muniment_capture::postgres::patterns::ColumnPattern;
use serde_json::{Value, json};
use std::collections::HashSet;

#[tokio::test]
async fn insert_update_delete_with_context() {
    let server = server(
        "CREATE SCHEMA \"case\"; CREATE TABLE \"case\".hoso (id int PRIMARY KEY, fee numeric, note text);
         ALTER TABLE \"case\".hoso REPLICA IDENTITY FULL",
    )
    .await;
    let mut store = Store::open(config(&server)).await;
    let sql = r#"BEGIN;
        SELECT pg_logical_emit_message(true, 'muniment.context', '{"user_id":7,"user_name":"lan","change_reason":"appeal"}');
        INSERT INTO "case".hoso VALUES (1, 10.50, 'a');
        UPDATE "case".hoso SET fee = 12.00;
        SELECT pg_logical_emit_message(true, 'muniment.context', '{"user_id":8}');
        DELETE FROM "case".hoso; COMMIT"#;
    server.execute(DATABASE, sql).await.unwrap();
    store.catch_up(&server).await;

    assert_eq!(
        store.summaries(),
        [
            r#"INSERT case.hoso 1 - {"id":1,"fee":10.50,"note":"a"} -"#,
            r#"UPDATE case.hoso 1 {"id":1,"fee":10.50,"note":"a"} {"id":1,"fee":12.00,"note":"a"} changed: fee"#,
            r#"DELETE case.hoso 1 {"id":1,"fee":12.00,"note":"a"} - -"#,
        ]
    );
    let [insert, update, delete] = &store.changes[..] else { panic!() };
    assert_eq!(
        (&insert["changed_by"], &insert["changed_by_username"], &insert["change_reason"]),
        (&json!(7), &json!("lan"), &json!("appeal"))
    );
    assert_eq!((&delete["changed_by"], &delete["changed_by_username"], &delete["change_reason"]), (&json!(8), &Value::Null, &Value::Null));
    assert_eq!(update["attribution"], "APPLICATION");
    let position = insert["source_position"].as_str().unwrap();
    let (commit, _) = position.rsplit_once('/').unwrap();
    assert_eq!(update["source_position"], format!("{commit}/1"));
    assert_eq!(delete["source_position"], format!("{commit}/2"));
    let transaction = insert["transaction_id"].as_str().unwrap();
    let (timeline, lsn) = commit.strip_prefix("pg:test:").unwrap().split_once('/').unwrap();
    assert_eq!(timeline, "1");
    assert!(transaction.starts_with("pg:test:") && transaction.ends_with(&format!("@{lsn}")), "{transaction}");
    let now: i64 = ask(&server, "SELECT (extract(epoch FROM now()) * 1000000)::int8::text").await.parse().unwrap();
    assert!((now - insert["changed_at"].as_i64().unwrap()).abs() < 60_000_000);
    assert_eq!(store.findings, Vec::<Value>::new());
}

/// Type, value as SQL, the JSON expected.
const TYPES: &[(&str, &str, &str)] = &[
    ("smallint", "-32768", "-32768"),
    ("int", "2147483647", "2147483647"),
    ("bigint", "9223372036854775807", "9223372036854775807"),
    ("numeric", "123456789012345678901234567890.000000000000000000010", "123456789012345678901234567890.000000000000000000010"),
    ("numeric", "'NaN'", "\"NaN\""),
    ("numeric", "'-Infinity'", "\"-Infinity\""),
    ("real", "1e-20", "1e-20"),
    ("float8", "0.1", "0.1"),
    ("float8", "'Infinity'", "\"Infinity\""),
    ("float8", "'-0'", "-0"),
    ("float8", "1e300", "1e+300"),
    ("boolean", "true", "true"),
    ("text", "E'a\\n\"b\\\\'", "\"a\\n\\\"b\\\\\""),
    ("char(5)", "'ab'", "\"ab   \""),
    ("varchar(5)", "''", "\"\""),
    ("bytea", "'\\xdeadbeef'", "\"\\\\xdeadbeef\""),
    ("date", "'infinity'", "\"infinity\""),
    ("date", "'4713-01-01 BC'", "\"4713-01-01 BC\""),
    ("timestamp", "'294276-12-31 23:59:59.999999'", "\"294276-12-31 23:59:59.999999\""),
    ("timestamptz", "'2024-02-29 12:00:00.5+07'", "\"2024-02-29 05:00:00.5+00\""),
    ("time", "'24:00:00'", "\"24:00:00\""),
    ("timetz", "'00:00:00-15:59'", "\"00:00:00-15:59\""),
    ("interval", "'1 year -2 days 03:04:05.678'", "\"1 year -2 days +03:04:05.678\""),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
    ("json", "E'{\"a\" :\\n [1.00, \"\\\\u00e9\"]}'", "{\"a\" :  [1.00, \"\\u00e9\"]}"),
    ("json", "'\"\\ud800\"'", "{\"$json\":\"\\\"\\\\ud800\\\"\"}"),
    ("jsonb", "'null'", "{\"$json\":\"null\"}"),
    ("jsonb", "'{\"b\":1.10,\"a\":null}'", "{\"a\": null, \"b\": 1.10}"),
    ("int[]", "'{1,NULL,3}'", "\"{1,NULL,3}\""),
    ("text[][]", "'{{a,\"b c\"},{\"\",NULL}}'", "\"{{a,\\\"b c\\\"},{\\\"\\\",NULL}}\""),
    ("inet", "'10.0.0.1/8'", "\"10.0.0.1/8\""),
    ("cidr", "'::/0'", "\"::/0\""),
    ("macaddr", "'08:00:2b:01:02:03'", "\"08:00:2b:01:02:03\""),
    ("bit(3)", "B'101'", "\"101\""),
    ("varbit", "B''", "\"\""),
    ("point", "'(1,2.5)'", "\"(1,2.5)\""),
    ("box", "'((0,0),(1,1))'", "\"(1,1),(0,0)\""),
    ("int4range", "'[1,5)'", "\"[1,5)\""),
    ("tstzrange", "'[2024-01-01 00:00+00,)'", "\"[\\\"2024-01-01 00:00:00+00\\\",)\""),
    ("nummultirange", "'{[1,2),[5,6]}'", "\"{[1,2),[5,6]}\""),
    ("tsvector", "'a:1 b:2'", "\"'a':1 'b':2\""),
    ("tsquery", "'a & b'", "\"'a' & 'b'\""),
    ("xml", "'<a/>'", "\"<a/>\""),
    ("oid", "4294967295", "\"4294967295\""),
    ("pg_lsn", "'16/B374D848'", "\"16/B374D848\""),
    ("mood", "'so-so'", "\"so-so\""),
    ("amount", "1.50", "1.50"),
    ("flag", "false", "false"),
    ("document", "'{\"x\":[]}'", "{\"x\": []}"),
    ("pair", "'(1,\"a b\")'", "\"(1,\\\"a b\\\")\""),
    ("int", "NULL", "null"),
];

#[tokio::test]
async fn all_types() {
    let columns: Vec<String> = TYPES.iter().enumerate().map(|(at, (kind, ..))| format!("c{at} {kind}")).collect();
    let server = server(&format!(
        "CREATE TYPE mood AS ENUM ('sad', 'so-so'); CREATE DOMAIN amount AS numeric; CREATE DOMAIN flag AS boolean; CREATE DOMAIN document AS jsonb;
         CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY, {}); ALTER TABLE t REPLICA IDENTITY FULL",
        columns.join(", ")
    ))
    .await;
    let mut store = Store::open(config(&server)).await;
    let values: Vec<&str> = TYPES.iter().map(|(_, value, _)| *value).collect();
    server.execute(DATABASE, &format!("INSERT INTO t VALUES (1, {})", values.join(", "))).await.unwrap();
    server.execute(DATABASE, "UPDATE t SET id = id; DELETE FROM t").await.unwrap();
    let mut raw = String::new();
    while store.changes.len() < 3 {
        let batch = store.next().await;
        raw.push_str(std::str::from_utf8(&batch.changes).unwrap());
        store.keep(&batch);
    }
    let members: Vec<String> = TYPES.iter().enumerate().map(|(at, (.., expected))| format!("\"c{at}\":{expected}")).collect();
    for (line, name) in raw.lines().zip(["new_values", "old_values", "old_values"]) {
        for (member, (kind, value, _)) in members.iter().zip(TYPES) {
            assert!(line.contains(member), "{kind} {value} in {line}");
        }
        assert!(line.contains(&format!("\"{name}\":{{\"id\":1,{}}}", members.join(","))));
    }
}

#[tokio::test]
async fn quoted_and_unicode_names() {
    let name = "Hồ sơ \"đặc biệt\".x";
    let quoted = name.replace('"', "\"\"");
    let server =
        server(&format!("CREATE SCHEMA \"S C\"; CREATE TABLE \"S C\".\"{quoted}\" (\"Id \"\"x\" int PRIMARY KEY, \"tên\" text)")).await;
    let mut store = Store::open(config(&server)).await;
    server.execute(DATABASE, &format!("INSERT INTO \"S C\".\"{quoted}\" VALUES (1, 'Nguyễn')")).await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(store.changes[0]["table_name"], format!("S C.{name}"));
    assert_eq!(store.changes[0]["new_values"], json!({"Id \"x": 1, "tên": "Nguyễn"}));
}

#[tokio::test]
async fn keys() {
    let server = server(
        "CREATE TABLE two (b int, a text, c int, PRIMARY KEY (a, b)); ALTER TABLE two REPLICA IDENTITY FULL;
         CREATE TABLE none (a int, b text); ALTER TABLE none REPLICA IDENTITY FULL;
         CREATE TABLE plain (id text PRIMARY KEY, v int)",
    )
    .await;
    let mut store = Store::open(config(&server)).await;
    let long = "k".repeat(150);
    server.execute(DATABASE, "INSERT INTO two VALUES (1, 'x', 5)").await.unwrap();
    server.execute(DATABASE, "INSERT INTO none VALUES (1, NULL)").await.unwrap();
    server.execute(DATABASE, "UPDATE none SET b = 'q'").await.unwrap();
    server.execute(DATABASE, &format!("INSERT INTO plain VALUES ('{long}', 1), ('', 2)")).await.unwrap();
    server.execute(DATABASE, "UPDATE plain SET v = 3 WHERE id = ''; DELETE FROM plain WHERE id = ''").await.unwrap();
    store.catch_up(&server).await;
    let keys: Vec<&str> = store.changes.iter().map(|change| change["primary_key"].as_str().unwrap()).collect();
    assert_eq!(keys[..4], [r#"["x","1"]"#, r#"["1",null]"#, r#"["1",null]"#, r#"["1","q"]"#]);
    assert!(keys[4].starts_with("kkkk") && keys[4].len() == 97);
    assert_eq!(
        store.summaries()[5..],
        [
            r#"INSERT public.plain  - {"id":"","v":2} -"#,
            // With the default replica identity the old row isn't known, and of a row that went only the key.
            r#"UPDATE public.plain  - {"id":"","v":3} -"#,
            r#"DELETE public.plain  {"id":""} - -"#,
        ]
    );
}

#[tokio::test]
async fn excluded_and_masked_columns() {
    let server =
        server("CREATE TABLE u (id int PRIMARY KEY, name text, password text, card text); ALTER TABLE u REPLICA IDENTITY FULL").await;
    let mut config = config(&server);
    config.columns =
        ColumnRules { excluded: vec![ColumnPattern::parse("u.password").unwrap()], masked: vec![ColumnPattern::parse("u.card").unwrap()] };
    let mut store = Store::open(config).await;
    server.execute(DATABASE, "INSERT INTO u VALUES (1, 'a', 'hunter2', '4111')").await.unwrap();
    server.execute(DATABASE, "UPDATE u SET password = 'hunter3', card = '4222', name = 'b'").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(
        store.summaries(),
        [
            r#"INSERT public.u 1 - {"id":1,"name":"a","card":"***"} -"#,
            r#"UPDATE public.u 1 {"id":1,"name":"a","card":"***"} {"id":1,"name":"b","card":"***"} changed: name, card (masked)"#,
        ]
    );
}

#[tokio::test]
async fn values_too_large_to_be_kept() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY, a text, b text)").await;
    let mut store = Store::open(config(&server)).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (1, repeat('x', 300000), 'small')").await.unwrap();
    store.catch_up(&server).await;
    let hash = ask(&server, "SELECT encode(sha256(convert_to(repeat('x', 300000), 'UTF8')), 'hex')").await;
    assert_eq!(store.changes[0]["new_values"], json!({"id": 1, "a": {"$omitted": {"bytes": 300_000, "sha256": hash}}, "b": "small"}));
}

#[tokio::test]
async fn bytes_of_a_database_without_encoding() {
    let server = server("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0").await;
    server.execute("ascii", "CREATE TABLE t (id int PRIMARY KEY, a text)").await.unwrap();
    server.execute("ascii", "CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    server.execute("ascii", "SELECT pg_create_logical_replication_slot('s2', 'pgoutput')").await.unwrap();
    let mut config = config(&server);
    (config.url, config.slot) = (server.url("ascii"), "s2".into());
    let mut store = Store::open(config).await;
    server.execute("ascii", "INSERT INTO t VALUES (1, E'\\xff\\x41')").await.unwrap();
    while store.changes.is_empty() {
        store.step().await;
    }
    assert_eq!(store.changes[0]["new_values"], json!({"id": 1, "a": {"$hex": "ff41"}}));
}

#[tokio::test]
async fn a_large_transaction_comes_in_batches() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY, a text)").await;
    let mut config = config(&server);
    config.limits.records = 1000;
    let mut store = Store::open(config).await;
    server.execute(DATABASE, "INSERT INTO t SELECT n, repeat('x', 20) FROM generate_series(1, 20000) n").await.unwrap();
    while store.changes.len() < 20_000 {
        let batch = store.next().await;
        assert!(batch.records <= 1000);
        store.keep(&batch);
    }
    assert!(store.batches > 20);
    let positions: HashSet<&str> = store.changes.iter().map(|change| change["source_position"].as_str().unwrap()).collect();
    assert_eq!(positions.len(), 20_000);
    let transactions: HashSet<&str> = store.changes.iter().map(|change| change["transaction_id"].as_str().unwrap()).collect();
    assert_eq!(transactions.len(), 1);
}

#[tokio::test]
async fn more_than_a_socket_holds() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY, a text)").await;
    let mut config = config(&server);
    config.url = server.socket_url(DATABASE);
    let mut store = Store::open(config).await;
    let transactions = "DO $$ BEGIN FOR n IN 1..3000 LOOP INSERT INTO t VALUES (n, 'a'); COMMIT; END LOOP; END $$";
    server.execute(DATABASE, transactions).await.unwrap();
    server.execute(DATABASE, "INSERT INTO t SELECT n, repeat('x', 2000) FROM generate_series(3001, 6000) n").await.unwrap();
    store.catch_up(&server).await;
    let keys: Vec<&str> = store.changes.iter().map(|change| change["primary_key"].as_str().unwrap()).collect();
    assert_eq!(keys, (1..=6000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_table_that_changes() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY, a text); ALTER TABLE t REPLICA IDENTITY FULL").await;
    let mut store = Store::open(config(&server)).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    server.execute(DATABASE, "ALTER TABLE t ADD COLUMN b numeric").await.unwrap();
    server.execute(DATABASE, "UPDATE t SET b = 1.0").await.unwrap();
    server.execute(DATABASE, "ALTER TABLE t RENAME COLUMN a TO c; ALTER TABLE t RENAME TO t2").await.unwrap();
    server.execute(DATABASE, "UPDATE t2 SET c = 'z'").await.unwrap();
    server.execute(DATABASE, "ALTER TABLE t2 DROP COLUMN c").await.unwrap();
    server.execute(DATABASE, "DELETE FROM t2").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(
        store.summaries(),
        [
            r#"INSERT public.t 1 - {"id":1,"a":"a"} -"#,
            r#"UPDATE public.t 1 {"id":1,"a":"a","b":null} {"id":1,"a":"a","b":1.0} changed: b"#,
            r#"UPDATE public.t2 1 {"id":1,"c":"a","b":1.0} {"id":1,"c":"z","b":1.0} changed: c"#,
            r#"DELETE public.t2 1 {"id":1,"b":1.0} - -"#,
        ]
    );
}

#[tokio::test]
async fn ddl_messages() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut store = Store::open(config(&server)).await;
    let message = r#"{"tag":"ALTER TABLE","statement":"ALTER TABLE t ALTER id TYPE bigint","user":"owner","application":"psql","address":"10.1.2.3",
        "tables":["public.t"],"rewritten":["public.t"],"dropped":[]}"#;
    server.execute(DATABASE, &format!("SELECT pg_logical_emit_message(true, 'muniment.ddl', '{message}')")).await.unwrap();
    server.execute(DATABASE, "SELECT pg_logical_emit_message(true, 'muniment.ddl', 'not JSON')").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(store.summaries(), ["DDL public.t * - - ALTER TABLE t ALTER id TYPE bigint", "DDL * * - - not JSON"]);
    assert_eq!((&store.changes[0]["attribution"], &store.changes[0]["changed_by_username"]), (&json!("DATABASE"), &json!("owner")));
    assert_eq!(store.findings[1]["event_type"], "CAPTURE_BYPASSED");
    assert_eq!(store.findings[1]["resource_accessed"], "public.t");
    assert!(store.source.baseline_need().tables.contains("public.t"));
    store.source.baseline_taken();
    assert!(store.source.baseline_need().tables.is_empty());
}
