//! SQL, entity history and states as of an instant, through flush and compaction (P6) and at their limits (P10).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_cast::pretty::pretty_format_batches;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use muniment_engine::history::{HistoryOptions, TableAtOptions, entity_at, entity_history, parse_time, table_at};
use muniment_engine::query::output::{Encoder, OutputFormat};
use muniment_engine::query::{QueryEngine, QueryLimits, parameter};
use muniment_engine::{Engine, EngineConfig, EngineError, IngestRequest, Receipt};
use muniment_model::Format;
use muniment_store::register::{ChangedBy, RegisterChange};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

struct Fixture {
    _folder: TempDir,
    engine: Arc<Engine>,
    query: QueryEngine,
}

impl Fixture {
    async fn new(limits: QueryLimits) -> Self {
        let folder = TempDir::new().unwrap();
        let engine = Engine::open(EngineConfig::new(folder.path().join("data"))).await.unwrap();
        let query = QueryEngine::new(engine.store().clone(), limits).unwrap();
        Self { _folder: folder, engine, query }
    }

    async fn send(&self, log: &str, body: &str) -> Receipt {
        send(&self.engine, log, body).await
    }

    async fn table(&self, sql: &str) -> String {
        let batches = self.query.collect(sql, Vec::new()).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        pretty_format_batches(&batches).unwrap().to_string()
    }

    async fn number(&self, sql: &str) -> i64 {
        number(&self.query.collect(sql, Vec::new()).await.unwrap())
    }

    async fn add_users(&self) {
        let table = muniment_model::table("users").unwrap();
        let row = |name: &str| RegisterChange::Insert { table, values: vec![("username", name.into())] };
        let by = ChangedBy { username: "test".to_owned(), ..ChangedBy::default() };
        let ids = self.engine.store().db().change_registers(&[row("lan"), row("minh")], &by).await.unwrap();
        assert_eq!(ids, [1, 2]);
    }
}

async fn send(engine: &Arc<Engine>, log: &str, body: &str) -> Receipt {
    let body = Bytes::from(body.to_owned());
    engine.ingest(IngestRequest { log, body, format: Format::Ndjson, idempotency_key: None, position: None }).await.unwrap()
}

fn number(batches: &[RecordBatch]) -> i64 {
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

/// A change of `case.hoso` at a minute of 2026-01-01, values as JSON or empty.
fn change(key: &str, operation: &str, minute: u32, old: &str, new: &str) -> String {
    let mut line = format!(
        r#"{{"table_name":"case.hoso","operation":"{operation}","primary_key":"{key}","changed_at":"2026-01-01T00:{minute:02}:00Z","changed_by":1"#
    );
    for (name, value) in [("old_values", old), ("new_values", new)] {
        if !value.is_empty() {
            line.push_str(&format!(r#","{name}":{value}"#));
        }
    }
    line + "}\n"
}

fn minute(minute: u32) -> i64 {
    parse_time(&format!("2026-01-01T00:{minute:02}:00Z")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_registers_are_one_schema() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    fixture.add_users().await;
    fixture.send("sys_audit_log", &(change("1", "INSERT", 0, "", r#"{"a":1}"#) + &change("2", "INSERT", 1, "", "{}"))).await;
    let joined =
        "SELECT u.username, l.primary_key, l.changed_at FROM audit.sys_audit_log l JOIN audit.users u ON u.id = l.changed_by ORDER BY 2";
    let expected = "\
+----------+-------------+----------------------+
| username | primary_key | changed_at           |
+----------+-------------+----------------------+
| lan      | 1           | 2026-01-01T00:00:00Z |
| lan      | 2           | 2026-01-01T00:01:00Z |
+----------+-------------+----------------------+";
    assert_eq!(fixture.table(joined).await, expected);
    fixture.engine.flush_all().await.unwrap();
    assert_eq!(fixture.table(joined).await, expected, "the same from Parquet");
    assert_eq!(
        fixture.number("SELECT count(*) FROM sys_audit_log WHERE primary_key = '2' AND table_name NOT LIKE 'muniment.%'").await,
        1,
        "a name without schema"
    );
    assert_eq!(fixture.number("WITH c AS (SELECT 1 AS n) SELECT n FROM c").await, 1);
    assert!(fixture.table("SHOW TABLES").await.contains("| muniment      | audit              | investigations          | BASE TABLE |"));
    assert!(fixture.table("DESCRIBE audit.users").await.contains("username"));
    assert!(fixture.table("EXPLAIN SELECT * FROM audit.users").await.contains("physical_plan"));
    assert!(fixture.table("SHOW COLUMNS FROM audit.api_access_log").await.contains("response_time_ms"));
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_bound_and_never_spliced() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    fixture.send("sys_audit_log", &change("x' OR '1'='1", "INSERT", 0, "", "{}")).await;
    let by_key = "SELECT count(*) FROM sys_audit_log WHERE primary_key = $1 AND changed_by = $2";
    let parameters = |key: &str| vec![parameter(&serde_json::json!(key)).unwrap(), parameter(&serde_json::json!(1)).unwrap()];
    assert_eq!(number(&fixture.query.collect(by_key, parameters("x' OR '1'='1")).await.unwrap()), 1);
    assert_eq!(number(&fixture.query.collect(by_key, parameters("y' OR '1'='1")).await.unwrap()), 0);
    assert!(parameter(&serde_json::json!([1])).is_err());
    assert!(fixture.query.collect(by_key, vec![ScalarValue::from(1_i64)]).await.is_err(), "a parameter is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_does_not_only_read_is_refused() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    let file = fixture.engine.store().folder().join("muniment.db");
    let path = file.display();
    std::fs::write(fixture.engine.store().folder().join("x.csv"), "a\n1\n").unwrap();
    let csv = fixture.engine.store().folder().join("x.csv");
    let tricks = [
        "INSERT INTO users (id, username) VALUES (9, 'x')".to_owned(),
        "INSERT INTO sys_audit_log SELECT * FROM sys_audit_log".to_owned(),
        "UPDATE users SET username = 'x'".to_owned(),
        "DELETE FROM users".to_owned(),
        "TRUNCATE TABLE users".to_owned(),
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        "CREATE SCHEMA s".to_owned(),
        "CREATE DATABASE d".to_owned(),
        "CREATE FUNCTION f(INT) RETURNS INT RETURN $1".to_owned(),
        "DROP TABLE users".to_owned(),
        "DROP VIEW users".to_owned(),
        "ALTER TABLE users ADD COLUMN x INT".to_owned(),
        format!("COPY (SELECT 1) TO '{path}.out.csv'"),
        format!("COPY users TO '{path}.out.parquet'"),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{}'", csv.display()),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "RESET datafusion.execution.batch_size".to_owned(),
        "BEGIN".to_owned(),
        "COMMIT".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "EXECUTE p".to_owned(),
        "DEALLOCATE p".to_owned(),
        "SELECT 1; SELECT 2".to_owned(),
        "SELECT 1; DROP TABLE users".to_owned(),
        "EXPLAIN DELETE FROM users".to_owned(),
        "EXPLAIN ANALYZE INSERT INTO users (id, username) VALUES (9, 'x')".to_owned(),
        format!("EXPLAIN COPY (SELECT 1) TO '{path}.out.csv'"),
        "WITH x AS (SELECT 9 AS id) INSERT INTO users (id) SELECT id FROM x".to_owned(),
        "WITH x AS (INSERT INTO users (id, username) VALUES (9, 'x') RETURNING id) SELECT * FROM x".to_owned(),
        "SELECT 1 INTO t".to_owned(),
        format!("SELECT * FROM '{}'", csv.display()),
        format!("SELECT * FROM \"{}\"", csv.display()),
        format!("SELECT * FROM 'file://{}'", csv.display()),
        format!("SELECT * FROM read_csv('{}')", csv.display()),
        format!("SELECT * FROM read_parquet('{path}')"),
        "SELECT * FROM installation".to_owned(),
        "SELECT * FROM public.users".to_owned(),
        "SELECT repeat('x', 2000000000)".to_owned(),
        "SELECT range(0, 10000000000)".to_owned(),
        "VACUUM".to_owned(),
        "PRAGMA journal_mode = DELETE".to_owned(),
        "ATTACH 'x.db' AS x".to_owned(),
        "CALL f()".to_owned(),
        String::new(),
        "-- nothing".to_owned(),
    ];
    for trick in tricks {
        let outcome = fixture.query.collect(&trick, Vec::new()).await;
        assert!(matches!(outcome, Err(EngineError::Parameter { .. } | EngineError::Query(_))), "{trick}: {outcome:?}");
    }
    assert_eq!(fixture.number("SELECT count(*) FROM users").await, 0);
    assert!(!file.with_file_name("muniment.db.out.csv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_statements_of_any_shape_are_bounded() {
    let fixture = Fixture::new(QueryLimits { time: Duration::from_secs(120), ..QueryLimits::default() }).await;
    let doubling = |from: usize| {
        let steps = (1..from).map(|n| format!("c{n} AS (SELECT a.n FROM c{} a, c{} b)", n - 1, n - 1)).collect::<Vec<_>>();
        format!(
            "WITH c0 AS (SELECT 1 AS n), {} SELECT count(*) FROM c{} WHERE EXISTS (SELECT 1 FROM c{})",
            steps.join(", "),
            from - 1,
            from - 1
        )
    };
    let shapes = [
        format!("SELECT {}", "1+".repeat(100_000) + "1"),
        format!("SELECT {}", "1+".repeat(1000) + "1"),
        format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("SELECT {}1{}", "(".repeat(2000), ")".repeat(2000)),
        format!("SELECT {}true", "NOT ".repeat(3000)),
        format!("SELECT 1{}", "::int".repeat(2000)),
        format!("SELECT 1 {}", "UNION ALL SELECT 1 ".repeat(1000)),
        format!("SELECT 1 {}", "UNION VALUES (1) ".repeat(500)),
        format!("SELECT * FROM users {}", ", users".repeat(500)),
        format!("SELECT * FROM {}users{}", "(SELECT * FROM ".repeat(200), ")".repeat(200)),
        format!("SELECT CASE {} END", "WHEN true THEN CASE ".repeat(45)),
        format!("SELECT {}1", "CAST(".repeat(45)),
        format!("SELECT '{}'", "x".repeat(300_000)),
        doubling(40),
        doubling(20),
    ];
    for shape in shapes {
        let outcome = fixture.query.collect(&shape, Vec::new()).await;
        assert!(matches!(outcome, Err(EngineError::Parameter { .. } | EngineError::Query(_))), "{}…: {outcome:?}", &shape[..60]);
    }
    let long = format!("SELECT count(*) FROM users WHERE id IN ({})", (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    assert_eq!(fixture.number(&long).await, 0, "a long list is no deep statement");
    let deep = format!("SELECT count(*) FROM users WHERE id = 0 {}", "OR id + 1 = 2 ".repeat(100));
    assert_eq!(fixture.number(&deep).await, 0);
    let growing = (1..60).map(|n| format!("c{n} AS (SELECT n + n - n AS n FROM c{})", n - 1)).collect::<Vec<_>>().join(", ");
    assert_eq!(fixture.number(&format!("WITH c0 AS (SELECT id AS n FROM users), {growing} SELECT count(n) FROM c59")).await, 0);
    assert_eq!(fixture.number(&format!("SELECT {}", "1+".repeat(120) + "1")).await, 121);
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_rows_time_and_memory_have_limits() {
    let limits = QueryLimits { memory_bytes: 8 << 20, time: Duration::from_secs(2), rows: 1000, partitions: 2 };
    let fixture = Fixture::new(limits).await;
    let stopped = async |sql: &str| match fixture.query.collect(sql, Vec::new()).await {
        Err(error @ EngineError::QueryLimit(_)) => error.to_string(),
        outcome => panic!("{sql}: {outcome:?}"),
    };
    assert_eq!(number(&fixture.query.collect("SELECT max(value) FROM generate_series(1, 1000)", Vec::new()).await.unwrap()), 1000);
    assert!(stopped("SELECT * FROM generate_series(1, 1001)").await.contains("more than 1000 rows"));
    let began = std::time::Instant::now();
    assert!(stopped("SELECT count(*) FROM generate_series(1, 1000000000000)").await.contains("longer than 2 s"));
    assert!(
        stopped("WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t").await.contains("longer than 2 s")
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let hungry = "SELECT count(*) FROM (SELECT DISTINCT value * 7919 % 1000003 FROM generate_series(1, 1000000))";
    let patient = Fixture::new(QueryLimits { time: Duration::from_secs(60), ..limits }).await;
    let outcome = patient.query.collect(hungry, Vec::new()).await;
    assert!(matches!(&outcome, Err(EngineError::QueryLimit(reason)) if reason.contains("more than 8388608 bytes")), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_so_many_queries_run_at_once() {
    let limits = QueryLimits { time: Duration::from_millis(500), partitions: 1, ..QueryLimits::default() };
    let fixture = Fixture::new(limits).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(fixture.query.sql("SELECT 1", Vec::new()).await.unwrap());
    }
    assert!(matches!(fixture.query.sql("SELECT 1", Vec::new()).await, Err(EngineError::Busy { .. })));
    held.pop();
    fixture.query.sql("SELECT 1", Vec::new()).await.unwrap();
}

async fn written(fixture: &Fixture, format: OutputFormat, sql: &str) -> Vec<u8> {
    let mut result = fixture.query.sql(sql, Vec::new()).await.unwrap();
    let mut encoder = Encoder::new(format, &result.schema).unwrap();
    let mut bytes = Vec::new();
    while let Some(batch) = result.try_next().await.unwrap() {
        bytes.extend(encoder.write(&batch).unwrap());
    }
    bytes.extend(encoder.finish().unwrap());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_written_in_five_formats() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    let metric = |name: &str, value: &str, at: &str| {
        format!(r#"{{"metric_name":"{name}","metric_category":"API","metric_value":{value},"measured_at":"{at}"}}"#) + "\n"
    };
    let body = metric("a", "1.5", "2026-01-01T00:00:00Z") + &metric("b, \\\"c\\\"", "123456789012.123456", "2026-01-01T07:00:00.25+07:00");
    fixture.send("system_performance_log", &body).await;
    let sql = "SELECT id, metric_name, metric_value, measured_at, metric_unit, measured_at::timestamp AS local, erased_payload, is_threshold_exceeded \
               FROM (SELECT *, arrow_cast('ab', 'Binary') AS erased_payload FROM system_performance_log) ORDER BY id";
    let text = async |format| String::from_utf8(written(&fixture, format, sql).await).unwrap();
    assert_eq!(
        text(OutputFormat::Csv).await,
        "id,metric_name,metric_value,measured_at,metric_unit,local,erased_payload,is_threshold_exceeded\n\
         1,a,1.500000,2026-01-01T00:00:00Z,,2026-01-01T00:00:00Z,6162,false\n\
         2,\"b, \"\"c\"\"\",123456789012.123456,2026-01-01T00:00:00.250Z,,2026-01-01T00:00:00.250Z,6162,false\n"
    );
    let first = "{\"id\":1,\"metric_name\":\"a\",\"metric_value\":1.500000,\"measured_at\":\"2026-01-01T00:00:00Z\",\"metric_unit\":null,\
                 \"local\":\"2026-01-01T00:00:00Z\",\"erased_payload\":\"6162\",\"is_threshold_exceeded\":false}";
    let second = "{\"id\":2,\"metric_name\":\"b, \\\"c\\\"\",\"metric_value\":123456789012.123456,\"measured_at\":\"2026-01-01T00:00:00.250Z\",\
                  \"metric_unit\":null,\"local\":\"2026-01-01T00:00:00.250Z\",\"erased_payload\":\"6162\",\"is_threshold_exceeded\":false}";
    assert_eq!(text(OutputFormat::Ndjson).await, format!("{first}\n{second}\n"));
    assert_eq!(text(OutputFormat::Json).await, format!("[{first},{second}]"));
    let table = text(OutputFormat::Table).await;
    assert!(table.contains("| 1  | a           | 1.500000            | 2026-01-01T00:00:00Z     |"), "{table}");

    let stream = written(&fixture, OutputFormat::Arrow, sql).await;
    let reader = arrow_ipc::reader::StreamReader::try_new(stream.as_slice(), None).unwrap();
    assert_eq!(*reader.schema().field(1).data_type(), arrow_schema::DataType::Utf8);
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);

    let nothing = "SELECT id, metric_name FROM system_performance_log WHERE id < 0";
    assert_eq!(written(&fixture, OutputFormat::Csv, nothing).await, b"id,metric_name\n");
    assert_eq!(written(&fixture, OutputFormat::Json, nothing).await, b"[]");
    assert_eq!(written(&fixture, OutputFormat::Ndjson, nothing).await, b"");
    assert_eq!(written(&fixture, OutputFormat::Csv, "SELECT [1, 2] AS list").await, b"list\n\"[1, 2]\"\n");
    assert_eq!(written(&fixture, OutputFormat::Json, "SELECT [1, 2] AS list").await, b"[{\"list\":[1,2]}]");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_columns_are_there() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    for n in 0..3 {
        fixture.send("sys_audit_log", &(change("1", "INSERT", n, "", "{}") + &change("2", "INSERT", n, "", "{}"))).await;
    }
    let linked = "SELECT count(*) FROM sys_audit_log a JOIN sys_audit_log b ON b.stream_index = a.stream_index + 1 AND b.previous_hash = a.blockchain_hash";
    let first = "SELECT count(*) FROM sys_audit_log WHERE previous_hash = repeat64";
    let first = first.replace("repeat64", &format!("'{}'", "0".repeat(64)));
    for flushed in [false, true] {
        assert_eq!(fixture.number(linked).await, 5, "flushed: {flushed}");
        assert_eq!(fixture.number(&first).await, 1, "flushed: {flushed}");
        assert_eq!(fixture.number("SELECT count(DISTINCT signature) FROM sys_audit_log").await, 3, "flushed: {flushed}");
        let origin = fixture.engine.origin();
        assert_eq!(fixture.number(&format!("SELECT count(*) FROM sys_audit_log WHERE signature LIKE '{origin}%'")).await, 6);
        // Every step of a recursion scans again.
        let steps = "WITH RECURSIVE chain AS (SELECT stream_index, blockchain_hash FROM sys_audit_log WHERE stream_index = 0 \
            UNION ALL SELECT a.stream_index, a.blockchain_hash FROM sys_audit_log a JOIN chain ON a.previous_hash = chain.blockchain_hash) \
            SELECT count(*) FROM chain";
        assert_eq!(fixture.number(steps).await, 6, "flushed: {flushed}");
        fixture.engine.flush_all().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_tells_what_changed_field_by_field() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    let insert = change("7", "INSERT", 0, "", r#"{"no":"HS-7","fee":10.00,"big":12345678901234567890}"#);
    let receipt = fixture.send("sys_audit_log", &(insert + &change("8", "INSERT", 0, "", "{}"))).await;
    fixture.engine.flush_all().await.unwrap();
    let update = change(
        "7",
        "UPDATE",
        5,
        r#"{"no":"HS-7","fee":10.00,"big":12345678901234567890}"#,
        r#"{"no":"HS-7", "fee":10.50,"big":12345678901234567891,"note":null}"#,
    );
    fixture.send("sys_audit_log", &update).await;
    fixture.send("sys_audit_log", &change("7", "DELETE", 9, r#"{"no":"HS-7"}"#, "")).await;
    let history = entity_history(&fixture.query, "case.hoso", "7", HistoryOptions::default()).await.unwrap();
    let fields = history.iter().map(|change| format!("{} {}", change.operation, serde_json::to_string(&change.fields).unwrap()));
    assert_eq!(
        fields.collect::<Vec<_>>(),
        [
            r#"INSERT [{"field":"no","new":"HS-7"},{"field":"fee","new":10.00},{"field":"big","new":12345678901234567890}]"#,
            r#"UPDATE [{"field":"fee","old":10.00,"new":10.50},{"field":"big","old":12345678901234567890,"new":12345678901234567891},{"field":"note","new":null}]"#,
            r#"DELETE [{"field":"no","old":"HS-7"}]"#,
        ]
    );
    let first = &history[0];
    assert_eq!((first.id, first.stream.as_str(), first.stream_index), (1, "sys_audit_log/7y", 0));
    assert_eq!(first.commit, receipt.commit);
    assert_eq!(first.changed_by, Some(1));
    let stored = fixture.table("SELECT blockchain_hash FROM sys_audit_log WHERE id = 1").await;
    assert!(stored.contains(&first.blockchain_hash));
    assert!(serde_json::to_string(first).unwrap().contains(r#""changed_at":"2026-01-01T00:00:00Z""#));

    let newest = HistoryOptions { descending: true, limit: 1, ..HistoryOptions::default() };
    assert_eq!(entity_history(&fixture.query, "case.hoso", "7", newest).await.unwrap()[0].operation, "DELETE");
    let middle = HistoryOptions { from: Some(minute(5)), to: Some(minute(9)), ..HistoryOptions::default() };
    let middle = entity_history(&fixture.query, "case.hoso", "7", middle).await.unwrap();
    assert_eq!(middle.iter().map(|change| change.operation.as_str()).collect::<Vec<_>>(), ["UPDATE"]);
    assert!(entity_history(&fixture.query, "case.other", "7", HistoryOptions::default()).await.unwrap().is_empty());
}

async fn check_at(fixture: &Fixture, key: &str, at: u32, expected: Option<&str>) {
    let state = entity_at(&fixture.query, "case.hoso", key, minute(at)).await.unwrap();
    assert_eq!(state.as_ref().map(|state| state.document.get()), expected, "{key} at minute {at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_known_as_of_any_instant() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    fixture.send("sys_audit_log", &change("1", "INSERT", 1, "", r#"{"a":1,"b":2}"#)).await;
    fixture.send("sys_audit_log", &change("1", "UPDATE", 2, r#"{"a":1}"#, r#"{"a":5.0}"#)).await;
    fixture.engine.flush_all().await.unwrap();
    fixture.send("sys_audit_log", &change("1", "UPDATE", 3, r#"{"a":5.0,"b":2}"#, r#"{"a":5.0}"#)).await;
    fixture.send("sys_audit_log", &change("1", "DELETE", 4, r#"{"a":5.0}"#, "")).await;
    fixture.send("sys_audit_log", &change("1", "INSERT", 5, "", r#"{"a":9}"#)).await;
    fixture.send("sys_audit_log", &change("1", "DDL", 6, "", "")).await;
    fixture.send("sys_audit_log", &change("*", "TRUNCATE", 7, "", "")).await;
    fixture.send("sys_audit_log", &change("1", "SNAPSHOT", 8, "", r#"{"a":10}"#)).await;
    for (at, expected) in [
        (0, None),
        (1, Some(r#"{"a":1,"b":2}"#)),
        (2, Some(r#"{"a":5.0,"b":2}"#)),
        (3, Some(r#"{"a":5.0}"#)),
        (4, None),
        (5, Some(r#"{"a":9}"#)),
        (6, Some(r#"{"a":9}"#)),
        (7, None),
        (8, Some(r#"{"a":10}"#)),
        (59, Some(r#"{"a":10}"#)),
    ] {
        check_at(&fixture, "1", at, expected).await;
    }
    let state = entity_at(&fixture.query, "case.hoso", "1", minute(2)).await.unwrap().unwrap();
    assert_eq!((state.id, state.operation.as_str(), state.changed_at), (2, "UPDATE", minute(2)));
    let history = entity_history(&fixture.query, "case.hoso", "1", HistoryOptions::default()).await.unwrap();
    assert_eq!(history[6].operation, "TRUNCATE", "emptying the table is part of the row's history");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_one_commit_apply_in_their_order_across_retention_classes() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    let sensitive = |line: String| line.replace(r#""changed_by":1"#, r#""changed_by":1,"compliance_level":2"#);
    let mut body = String::new();
    for n in 0..6 {
        let line = change("1", "UPDATE", 1, "", &format!(r#"{{"n":{n}}}"#));
        body.push_str(&if n % 2 == 0 { line } else { sensitive(line) });
    }
    fixture.send("sys_audit_log", &body).await;
    assert_eq!(fixture.number("SELECT count(DISTINCT retention_years) FROM sys_audit_log").await, 2);
    check_at(&fixture, "1", 1, Some(r#"{"n":5}"#)).await;
    let history = entity_history(&fixture.query, "case.hoso", "1", HistoryOptions::default()).await.unwrap();
    assert_eq!(history.iter().map(|change| change.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
}

/// Look-ups of entities read files by themselves; they must find what a scan finds.
#[tokio::test(flavor = "multi_thread")]
async fn look_ups_find_what_scans_find() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    // More than a row group; one key on a third of the rows, the others in several stretches each.
    for half in 0..2 {
        let key = |n: u32| if n.is_multiple_of(3) { "busy".to_owned() } else { (n % 5_000).to_string() };
        let rows = (0..40_000).map(|n| change(&key(n + half), "UPDATE", n % 60, "", &format!(r#"{{"n":{n}}}"#)));
        fixture.send("sys_audit_log", &rows.collect::<String>()).await;
    }
    fixture.send("sys_audit_log", &change("*", "TRUNCATE", 1, "", "")).await;
    fixture.engine.flush_all().await.unwrap();
    fixture.send("sys_audit_log", &change("17", "DELETE", 2, r#"{"n":1}"#, "")).await;
    for keys in ["'17'", "'busy'", "'busy', '17', '4999'", "'*'", "'none'", "''"] {
        for columns in
            ["count(*)", "count(primary_key)", "sum(id), count(new_values), min(changed_at), count(old_values)", "max(new_values)"]
        {
            let asked =
                |column: &str| format!("SELECT {columns} FROM sys_audit_log WHERE table_name = 'case.hoso' AND {column} IN ({keys})");
            assert_eq!(
                fixture.table(&asked("primary_key")).await,
                fixture.table(&asked("concat(primary_key, '')")).await,
                "{columns} of {keys}"
            );
        }
    }
    let first = "SELECT id FROM sys_audit_log WHERE primary_key = 'busy' ORDER BY id LIMIT 2";
    assert_eq!(fixture.number(first).await, 1);
}

async fn rows_at(fixture: &Fixture, at: u32, limit: usize) -> String {
    let (mut rows, mut options) = (Vec::new(), TableAtOptions { after: None, limit });
    loop {
        let page = table_at(&fixture.query, "case.hoso", minute(at), &options).await.unwrap();
        rows.extend(page.rows.into_iter().map(|state| format!("{}={}", state.primary_key, state.document.get())));
        match page.next {
            Some(next) => options.after = Some(next),
            None => return rows.join(" "),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_known_as_of_any_instant() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    let rows =
        |keys: std::ops::Range<u32>, at| keys.map(move |key| change(&key.to_string(), "INSERT", at, "", &format!(r#"{{"k":{key}}}"#)));
    fixture.send("sys_audit_log", &rows(1..6, 1).collect::<String>()).await;
    fixture.engine.flush_all().await.unwrap();
    fixture.send("sys_audit_log", &(change("2", "UPDATE", 2, "", r#"{"k":22}"#) + &change("3", "DELETE", 2, "", ""))).await;
    let emptied = change("9", "INSERT", 3, "", "{}") + &change("", "TRUNCATE", 3, "", "") + &change("8", "INSERT", 3, "", r#"{"k":8}"#);
    fixture.send("sys_audit_log", &emptied).await;
    for limit in [1, 2, 5, 1000] {
        assert_eq!(rows_at(&fixture, 0, limit).await, "");
        assert_eq!(rows_at(&fixture, 1, limit).await, r#"1={"k":1} 2={"k":2} 3={"k":3} 4={"k":4} 5={"k":5}"#);
        assert_eq!(rows_at(&fixture, 2, limit).await, r#"1={"k":1} 2={"k":22} 4={"k":4} 5={"k":5}"#);
        assert_eq!(rows_at(&fixture, 3, limit).await, r#"8={"k":8}"#);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_queries_count_right_through_flush_and_compaction() {
    let fixture = Fixture::new(QueryLimits::default()).await;
    let (acknowledged, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    let (engine, counted, begun) = (fixture.engine.clone(), acknowledged.clone(), sent.clone());
    let writer = tokio::spawn(async move {
        for n in 0..120_u64 {
            let size = n % 7 + 1;
            let body: String = (0..size).map(|k| change(&format!("{n}-{k}"), "INSERT", 1, "", "{}")).collect();
            begun.fetch_add(size, Ordering::SeqCst);
            send(&engine, "sys_audit_log", &body).await;
            counted.fetch_add(size, Ordering::SeqCst);
        }
    });
    let (engine, stop) = (fixture.engine.clone(), done.clone());
    let mover = tokio::spawn(async move {
        let merge_at_once = muniment_store::Compaction { min_files: 2, ..Default::default() };
        while !stop.load(Ordering::SeqCst) {
            engine.flush_all().await.unwrap();
            while engine.store().compact(&merge_at_once, muniment_engine::now()).await.unwrap().is_some() {}
            engine.store().remove_retired().await.unwrap();
        }
    });
    let readers = (0..3).map(|reader| {
        let (query, acknowledged, sent, done) = (fixture.query.clone(), acknowledged.clone(), sent.clone(), done.clone());
        tokio::spawn(async move {
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) {
                let sql = match reader {
                    0 => "SELECT count(*) FROM sys_audit_log",
                    1 => "SELECT count(primary_key) FROM sys_audit_log WHERE table_name = 'case.hoso'",
                    _ => "SELECT count(DISTINCT primary_key) + 0 * max(stream_index) FROM sys_audit_log",
                };
                let before = acknowledged.load(Ordering::SeqCst);
                let batches = query.collect(sql, Vec::new()).await.unwrap();
                let after = sent.load(Ordering::SeqCst);
                let count = if before == 0 && reader == 2 { continue } else { number(&batches) as u64 };
                assert!((before..=after).contains(&count), "{sql}: {count} is not between {before} and {after}");
                rounds += 1;
            }
            rounds
        })
    });
    let readers: Vec<_> = readers.collect();
    writer.await.unwrap();
    done.store(true, Ordering::SeqCst);
    mover.await.unwrap();
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    assert_eq!(fixture.number("SELECT count(*) FROM sys_audit_log").await as u64, acknowledged.load(Ordering::SeqCst));
}
