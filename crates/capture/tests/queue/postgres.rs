//! What the PostgreSQL queue does besides avoiding traps.

use crate::support::*;
use muniment_capture::Source;
use muniment_capture::health::Monitor;
use muniment_capture::plan::AttachOptions;
use muniment_capture::queue::postgres::{QueueMonitor, QueueOptions, QueueSource, apply, dead_letters, detach, end, plan};
use serde_json::json;
use std::time::Duration;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int)";

async fn scalar(server: &muniment_testkit::PostgresServer, sql: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut client(server).await).await.unwrap()
}

#[tokio::test]
async fn columns_are_left_out_and_masked_at_the_source() {
    let server = server();
    server.execute(DATABASE, "CREATE TABLE t (id int PRIMARY KEY, secret text, pin int, v float8)").await.unwrap();
    let columns = |column: &str| vec![format!("t.{column}")];
    attach(&server, &AttachOptions { exclude_columns: columns("secret"), mask_columns: columns("pin"), ..options(&["t"]) }).await;
    let mut one = client(&server).await;
    run(&mut one, "INSERT INTO t VALUES (1, 'hidden', 4711, 1e300); UPDATE t SET pin = 4712, secret = 'hidden2'").await;
    let kept: String = sqlx::query_scalar("SELECT string_agg(concat(old_row, new_row), '') FROM muniment.sys_audit_queue")
        .fetch_one(&mut one)
        .await
        .unwrap();
    assert!(!kept.contains("hidden") && !kept.contains("471"), "{kept}");
    let mut store = Store::default();
    store.catch_up(&mut source(&server)).await;
    assert_eq!(store.records[0].new.as_deref(), Some(r#"{"id":1,"pin":"***","v":1e+300}"#));
    assert_eq!(store.changes[1]["change_details"], "changed: pin (masked)");
}

#[tokio::test]
async fn a_key_that_would_be_hidden_is_refused() {
    let server = server();
    server.execute(DATABASE, "CREATE TABLE t (id int PRIMARY KEY, v int)").await.unwrap();
    let key = vec!["t.id".to_owned()];
    let masked = AttachOptions { mask_columns: key.clone(), ..options(&["t"]) };
    for options in [masked, AttachOptions { exclude_columns: key, ..options(&["t"]) }] {
        let error = plan(&server.url(DATABASE), &options).await.unwrap().permitted().unwrap_err().to_string();
        assert!(error.contains("public.t: id is part of its primary key"), "{error}");
    }
}

#[tokio::test]
async fn what_waits_in_the_queue_is_told_from_outside() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    let mut monitor = QueueMonitor::new(&server.url(DATABASE)).unwrap();
    let empty = monitor.look().await.unwrap();
    assert_eq!((empty.lag_seconds, empty.kept_bytes), (Some(0.0), Some(0)));
    server.execute(DATABASE, "INSERT INTO t VALUES (1, 0)").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let waiting = monitor.look().await.unwrap();
    assert!(waiting.lag_seconds.unwrap() >= 0.3 && waiting.kept_bytes.unwrap() > 0, "{waiting:?}");
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    while monitor.look().await.unwrap().lag_seconds != Some(0.0) {
        store.go_on(&mut source).await;
    }
}

#[tokio::test]
async fn values_do_not_depend_on_the_session_that_wrote_them() {
    let schema = "CREATE TYPE pair AS (a int, b timestamptz);
        CREATE TABLE t (id int PRIMARY KEY, at timestamptz, ats timestamptz[], span tstzrange, raw bytea, day date, local timestamp, pair pair, big numeric, f float8)";
    let (server, mut source) = attached(schema, &["t"]).await;
    let mut one = client(&server).await;
    let values = "'2024-05-31 12:00:00+00', '{2024-05-31 12:00:00+00,NULL}', '[2024-05-31 12:00:00+00,)', '\\x00ff5c', '2024-05-31', '2024-05-31 01:02:03', ROW(1, '2024-05-31 12:00:00+00'), 1.50, 'NaN'";
    run(&mut one, &format!("INSERT INTO t VALUES (1, {values})")).await;
    run(&mut one, &format!("SET timezone = 'Asia/Ho_Chi_Minh'; SET bytea_output = escape; INSERT INTO t VALUES (2, {values})")).await;
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    let rows: Vec<String> = store.records.iter().map(|record| record.new.clone().unwrap()).collect();
    let expected = r#"{"id":1,"at":"2024-05-31 12:00:00+00","ats":"{\"2024-05-31 12:00:00+00\",NULL}","span":"[\"2024-05-31 12:00:00+00\",)","raw":"\\x00ff5c","day":"2024-05-31","local":"2024-05-31 01:02:03","pair":"(1,\"2024-05-31 12:00:00+00\")","big":1.50,"f":"NaN"}"#;
    assert_eq!(rows[0], expected);
    assert_eq!(rows[1], expected.replace("\"id\":1", "\"id\":2"));
}

#[tokio::test]
async fn a_large_transaction_comes_in_batches_and_again_from_any_of_them() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    server.execute(DATABASE, "INSERT INTO t SELECT i, i FROM generate_series(1, 2500) i").await.unwrap();
    source.start(None).await.unwrap();
    let first = source.next().await.unwrap();
    let second = source.next().await.unwrap();
    assert_eq!((first.records, second.records), (1000, 1000));
    // The second was handed out and never stored.
    let mut store = Store { position: Some(first.position), ..Store::default() };
    let mut again = QueueSource::new(&server.url(DATABASE), QueueOptions::new("q")).unwrap();
    drop(source);
    store.catch_up(&mut again).await;
    let keys: Vec<i64> = store.records.iter().map(|record| record.key.parse().unwrap()).collect();
    assert_eq!(keys, (1001..=2500).collect::<Vec<_>>());
    assert_eq!(second.changes.iter().filter(|byte| **byte == b'\n').count(), 1000);
}

#[tokio::test]
async fn what_is_stored_is_cleared_without_bloat() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    let mut store = Store::default();
    source.start(None).await.unwrap();
    for round in 0..4 {
        let (from, to) = (round * 20_000, (round + 1) * 20_000 - 1);
        server.execute(DATABASE, &format!("INSERT INTO t SELECT i, i FROM generate_series({from}, {to}) i")).await.unwrap();
        store.go_on(&mut source).await;
    }
    assert_eq!(store.records.len(), 80_000);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (-1, 0)").await.unwrap();
    store.go_on(&mut source).await;
    let left = "SELECT count(*) FROM muniment.queue_rows";
    // The database is told once a second.
    let waves = "SELECT count(*) FROM muniment.queue_wave";
    let begun = std::time::Instant::now();
    while scalar(&server, left).await > 1 || scalar(&server, waves).await > 1 {
        assert!(begun.elapsed().as_secs() < 30, "{} rows, {} waves", scalar(&server, left).await, scalar(&server, waves).await);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let bytes = scalar(
        &server,
        "SELECT pg_total_relation_size('muniment.sys_audit_queue_0') + pg_total_relation_size('muniment.sys_audit_queue_1')",
    )
    .await;
    assert!(bytes < 200_000, "{bytes}");
}

#[tokio::test]
async fn a_row_that_cannot_be_recorded_becomes_a_dead_letter() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (1, 0); INSERT INTO t VALUES (2, 0); INSERT INTO t VALUES (3, 0)").await.unwrap();
    for half in [0, 1] {
        let sabotage = format!("UPDATE muniment.sys_audit_queue_{half} SET operation = 'SABOTAGE' WHERE new_row ->> 'id' = '2'");
        server.execute(DATABASE, &sabotage).await.unwrap();
    }
    let mut store = Store::default();
    let mut failures = 0;
    while store.records.len() < 2 {
        source.start(store.position.as_deref()).await.unwrap();
        loop {
            match source.next().await {
                Ok(batch) => {
                    let mut next = Store { position: store.position.take(), ..Store::default() };
                    next.changes.extend(
                        String::from_utf8(batch.changes)
                            .unwrap()
                            .lines()
                            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()),
                    );
                    store.changes.append(&mut next.changes);
                    store.findings.extend(
                        String::from_utf8(batch.findings)
                            .unwrap()
                            .lines()
                            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()),
                    );
                    source.confirm(&batch.position).await.unwrap();
                    store.position = Some(batch.position);
                    store.records.resize(store.changes.len(), Default::default());
                    if store.changes.len() == 2 {
                        break;
                    }
                }
                Err(error) => {
                    failures += 1;
                    assert!(error.to_string().contains("SABOTAGE"), "{error}");
                    break;
                }
            }
        }
    }
    assert_eq!(failures, 5);
    assert_eq!(store.brief("v"), ["INSERT 1 0", "INSERT 3 0"]);
    assert!(store.findings.iter().any(|finding| finding["event_type"] == "CAPTURE_GAP"));
    let [dead] = &dead_letters(&server.url(DATABASE)).await.unwrap()[..] else { panic!("one dead letter") };
    assert_eq!((dead.attempts, dead.table.as_str()), (5, "public.t"));
    let row = "SELECT processing_attempts::int8 FROM muniment.sys_audit_queue WHERE is_dead AND NOT is_processed AND last_error LIKE '%SABOTAGE%'";
    assert_eq!(scalar(&server, row).await, 5);
    let mut plan = detach(&server.url(DATABASE), "q").await.unwrap();
    let refused = plan.permitted().unwrap_err().to_string();
    assert!(refused.contains("1 dead letters"), "{refused}");
    plan.overrule();
    plan.permitted().unwrap();
}

#[tokio::test]
async fn new_and_renamed_tables_are_taken_in_and_dropped_ones_reported() {
    let server = server();
    server.execute(DATABASE, "CREATE SCHEMA s; CREATE TABLE s.a (id int PRIMARY KEY)").await.unwrap();
    attach(&server, &options(&["s.*"])).await;
    let mut one = client(&server).await;
    run(&mut one, "CREATE TABLE s.b (id int PRIMARY KEY)").await;
    run(&mut one, "INSERT INTO s.b VALUES (1)").await;
    run(&mut one, "ALTER TABLE s.b RENAME TO c").await;
    run(&mut one, "INSERT INTO s.c VALUES (2)").await;
    run(&mut one, "ALTER TABLE s.c DROP COLUMN id").await;
    run(&mut one, "DROP TABLE s.c").await;
    let mut store = Store::default();
    store.catch_up(&mut source(&server)).await;
    let all: Vec<_> = store.records.iter().map(|record| format!("{} {}", record.operation, record.table)).collect();
    assert_eq!(all, ["DDL s.b", "INSERT s.b", "DDL s.b", "TRUNCATE s.b", "DDL s.c", "INSERT s.c", "DDL s.c", "DDL s.c", "TRUNCATE s.c"]);
    assert_eq!(store.changes[7]["change_details"], "DROP TABLE s.c");
}

#[tokio::test]
async fn the_queue_has_one_reader() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    source.start(None).await.unwrap();
    let mut other = crate::support::source(&server);
    assert!(other.start(None).await.unwrap_err().to_string().contains("somebody else"));
}

#[tokio::test]
async fn an_unknown_position_is_a_gap() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (1, 0)").await.unwrap();
    let mut store = Store { position: Some("70".into()), ..Store::default() };
    store.catch_up(&mut source).await;
    assert_eq!(store.findings[0]["event_type"], json!("CAPTURE_GAP"));
    assert_eq!(store.brief("v"), ["INSERT 1 0"]);
}

#[tokio::test]
async fn plans_refuse_and_detaching_leaves_nothing() {
    let server = server();
    server
        .execute(DATABASE, "CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW w AS SELECT 1; CREATE UNLOGGED TABLE u (id int)")
        .await
        .unwrap();
    let url = server.url(DATABASE);
    for wrong in ["nowhere", "w"] {
        assert!(plan(&url, &options(&[wrong])).await.unwrap().permitted().is_err(), "{wrong}");
    }
    let planned = plan(&url, &options(&["*.*"])).await.unwrap();
    assert_eq!(planned.tables, ["public.t"]);
    assert!(planned.findings.iter().any(|finding| finding.subject == "public.u"));
    apply(&url, &planned).await.unwrap();
    let other = AttachOptions { name: Some("other".into()), ..options(&["t"]) };
    assert!(plan(&url, &other).await.unwrap().permitted().is_err());
    server.execute(DATABASE, "INSERT INTO t VALUES (1)").await.unwrap();
    let gone = detach(&url, "q").await.unwrap();
    assert!(gone.findings.iter().any(|finding| finding.text.starts_with("1 changes")));
    end(&url, &gone).await.unwrap();
    apply(&url, &gone).await.unwrap();
    assert_eq!(scalar(&server, "SELECT count(*) FROM pg_namespace WHERE nspname = 'muniment'").await, 0);
    let left = "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%muniment%') + (SELECT count(*) FROM pg_event_trigger)";
    assert_eq!(scalar(&server, left).await, 0);
    server.execute(DATABASE, "INSERT INTO t VALUES (2)").await.unwrap();
}

/// Rows of a table in the log: what every key's last record leaves, after the last time the table was emptied.
fn replayed(store: &Store, table: &str) -> std::collections::BTreeMap<String, serde_json::Value> {
    let mut rows = std::collections::BTreeMap::new();
    for change in store.changes.iter().filter(|change| change["table_name"] == table) {
        let key = change["primary_key"].as_str().unwrap().to_owned();
        match change["operation"].as_str().unwrap() {
            "INSERT" | "UPDATE" => drop(rows.insert(key, change["new_values"].clone())),
            "DELETE" => drop(rows.remove(&key)),
            "TRUNCATE" => rows.clear(),
            _ => {}
        }
    }
    rows
}

#[tokio::test]
async fn tables_that_are_altered_while_changes_wait() {
    let (server, mut source) = attached("CREATE TABLE t (id int PRIMARY KEY, at timestamp, bytes bytea)", &["public.*"]).await;
    server
        .execute(
            DATABASE,
            "INSERT INTO t VALUES (1, '2026-01-01 10:00', '\\x00ff'), (2, NULL, NULL);
             ALTER TABLE t RENAME COLUMN id TO number; UPDATE t SET at = '2026-01-02 10:00' WHERE number = 1;
             ALTER TABLE t ADD COLUMN code text; UPDATE t SET code = 'c' || number;
             ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (code); DELETE FROM t WHERE number = 2;
             ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (3, NULL, NULL, 'c3');
             CREATE TABLE gone (id int PRIMARY KEY, at timestamp); INSERT INTO gone VALUES (7, '2026-01-01 10:00'); DROP TABLE gone",
        )
        .await
        .unwrap();
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    let keys: Vec<String> = store
        .changes
        .iter()
        .filter(|change| change["operation"] != "DDL")
        .map(|change| [&change["operation"], &change["table_name"], &change["primary_key"]].map(|value| value.as_str().unwrap()).join(" "))
        .collect();
    let expected = [
        "INSERT public.t 1",
        "INSERT public.t 2",
        "UPDATE public.t 1",
        "UPDATE public.t 2",
        "UPDATE public.t 1",
        "DELETE public.t c2",
        "TRUNCATE public.t *",
        "INSERT public.u c3",
        "INSERT public.gone 7",
        "TRUNCATE public.gone *",
    ];
    assert_eq!(keys, expected);
    let first = &store.changes[0]["new_values"];
    assert_eq!((first["at"].as_str(), first["bytes"].as_str()), (Some("2026-01-01 10:00:00"), Some("\\x00ff")));
    let gone = store.changes.iter().find(|change| change["table_name"] == "public.gone" && change["operation"] == "INSERT").unwrap();
    assert_eq!(gone["new_values"]["at"], "2026-01-01 10:00:00", "its columns are known though it is gone");
    assert!(replayed(&store, "public.t").is_empty() && replayed(&store, "public.gone").is_empty());
    server.execute(DATABASE, "SELECT muniment.queue_refresh()").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    store.go_on(&mut source).await;
}

#[tokio::test]
async fn keys_that_are_passed_on_in_one_statement() {
    let (server, mut source) = attached("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v int)", &["t"]).await;
    server.execute(DATABASE, "INSERT INTO t SELECT n, n FROM generate_series(1, 5000) n; UPDATE t SET id = id + 1").await.unwrap();
    server
        .execute(
            DATABASE,
            "BEGIN; UPDATE t SET id = -id WHERE id < 4; UPDATE t SET v = 0 WHERE id = -2; UPDATE t SET id = -id WHERE id < 0; COMMIT",
        )
        .await
        .unwrap();
    let swap = "BEGIN; UPDATE t SET id = 0 WHERE id = 10; UPDATE t SET id = 10 WHERE id = 11; UPDATE t SET id = 11 WHERE id = 0;
        UPDATE t SET id = 10, v = 9 WHERE id = 10; UPDATE t SET id = 11, v = 10 WHERE id = 11; COMMIT";
    server.execute(DATABASE, swap).await.unwrap();
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    let rows = replayed(&store, "public.t");
    assert_eq!(rows.len(), 5000);
    for (key, row) in rows {
        assert_eq!(key, row["id"].to_string());
        let expected = if key == "2" { 0 } else { row["id"].as_i64().unwrap() - 1 };
        assert_eq!(row["v"], expected, "{key}");
    }
}

#[tokio::test]
async fn a_trigger_that_was_disabled_is_reported_and_enabled_by_attaching_again() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    server.execute(DATABASE, "ALTER TABLE t DISABLE TRIGGER USER; INSERT INTO t VALUES (1, 0)").await.unwrap();
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    assert!(store.findings.iter().any(|finding| finding["event_type"] == "CAPTURE_BYPASSED"), "{:?}", store.findings);
    attach(&server, &options(&["t"])).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (2, 0)").await.unwrap();
    store.go_on(&mut source).await;
    assert_eq!(store.brief("id").last().map(String::as_str), Some("INSERT 2 2"));
}

#[tokio::test]
async fn hidden_columns_stay_hidden_under_other_names() {
    let server = server();
    server
        .execute(DATABASE, "CREATE TABLE t (id int PRIMARY KEY, secret text, pin text); INSERT INTO t VALUES (1, 'CLEAR', 'CLEAR')")
        .await
        .unwrap();
    let hidden = AttachOptions { exclude_columns: vec!["t.secret".into()], mask_columns: vec!["t.pin".into()], ..options(&["public.*"]) };
    attach(&server, &hidden).await;
    let mut source = source(&server);
    let script = "UPDATE t SET secret = 'CLEAR1'; ALTER TABLE t RENAME secret TO other; ALTER TABLE t RENAME pin TO number;
        UPDATE t SET other = 'CLEAR2', number = 'CLEAR2'; ALTER TABLE t RENAME TO u; UPDATE u SET other = 'CLEAR3', number = 'CLEAR3'";
    server.execute(DATABASE, script).await.unwrap();
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    let values: Vec<_> = store.changes.iter().map(|change| format!("{}{}", change["old_values"], change["new_values"])).collect();
    assert_eq!(values.iter().filter(|text| text.contains("***")).count(), 3);
    assert!(!values.iter().any(|text| text.contains("CLEAR")), "{values:?}");
}
