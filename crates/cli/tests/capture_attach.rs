//! `muniment attach`, `sources` and `detach` as they are typed: on a free data folder, and through the server that holds it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod support;

use muniment_testkit::{PASSWORD, PostgresOptions, PostgresServer};
use serde_json::Value;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};
use support::{Client, ServerProcess, muniment, query, verify};

const DATABASE: &str = "postgres";

fn run(data: &Path, arguments: &[&str]) -> Output {
    muniment().arg("--data").arg(data).args(["--log-level", "error"]).args(arguments).output().unwrap()
}

/// What a command that succeeds prints: standard output, then standard error.
fn done(data: &Path, arguments: &[&str]) -> (String, String) {
    let output = run(data, arguments);
    let texts = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{arguments:?}: {}", texts.1);
    assert!(!format!("{texts:?}").contains(PASSWORD), "a password is shown");
    texts
}

fn wait_for(data: &Path, sql: &str, expected: &str) {
    let began = Instant::now();
    loop {
        let lines = query(data, sql).join("\n");
        if lines == expected {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{sql}: {lines}, not {expected}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_attached_captured_killed_and_detached() {
    let postgres = PostgresServer::start(&PostgresOptions::default()).unwrap();
    let run_sql = async |sql: &str| postgres.execute(DATABASE, sql).await.unwrap();
    run_sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
    let folder = tempfile::tempdir().unwrap();
    let (data, url) = (folder.path().join("data"), postgres.url(DATABASE));

    let (script, found) = done(&data, &["attach", &url, "--table", "t", "--name", "pg:t", "--dry-run"]);
    assert!(script.contains("REPLICA IDENTITY FULL") && script.contains("pg_create_logical_replication_slot"), "{script}");
    assert!(found.contains("warning: max_slot_wal_keep_size"), "{found}");
    assert!(!data.exists(), "a dry run made a data folder");
    let refused = run(&data, &["attach", &url, "--table", "missing", "--name", "pg:t"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("refused: public.missing: there is no such table"));
    assert!(done(&data, &["sources"]).0.contains("No other database is attached."));

    let (attached, _) = done(&data, &["attach", &url, "--table", "t", "--name", "pg:t", "--when-full", "stop-database"]);
    assert!(attached.starts_with("pg:t is attached."), "{attached}");
    assert!(done(&data, &["sources"]).0.contains("stopped"));
    run_sql("UPDATE t SET v = 'c' WHERE id = 1").await;

    let mut server = ServerProcess::start(&data, &[]);
    let by_operation = "SELECT operation, count(*) FROM sys_audit_log GROUP BY operation ORDER BY operation";
    wait_for(&data, by_operation, "SNAPSHOT,2\nUPDATE,1");
    run_sql("BEGIN; SELECT muniment.context('{\"user_name\":\"lan\",\"change_reason\":\"test\"}'); DELETE FROM t WHERE id = 2; COMMIT")
        .await;
    wait_for(
        &data,
        "SELECT changed_by_username, change_reason, attribution FROM sys_audit_log WHERE operation = 'DELETE'",
        "lan,test,APPLICATION",
    );
    server.kill();
    run_sql("INSERT INTO t SELECT n, 'n' FROM generate_series(10, 109) n").await;
    let server = ServerProcess::start(&data, &[]);
    wait_for(&data, by_operation, "DELETE,1\nINSERT,100\nSNAPSHOT,2\nUPDATE,1");
    let positions = "SELECT count(*) - count(DISTINCT source_position) FROM sys_audit_log";
    assert_eq!(query(&data, positions), ["0"]);

    let mut client = Client::new(&server.address);
    let source = || -> Value {
        serde_json::from_str(&Client::new(&server.address).request("GET", "/api/v1/sources/pg:t", "", &[]).unwrap().1).unwrap()
    };
    assert_eq!((&source()["state"], &source()["changes"]), (&Value::from("running"), &Value::from(100)));
    let metrics = client.request("GET", "/metrics", "", &[]).unwrap().1;
    assert!(metrics.contains("muniment_capture_changes_total{source=\"pg:t\"} 100"), "{metrics}");
    run_sql("CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (7)").await;
    done(&data, &["attach", &url, "--table", "u", "--name", "pg:t"]);
    wait_for(&data, "SELECT operation FROM sys_audit_log WHERE table_name = 'public.u'", "SNAPSHOT");
    assert_eq!(source()["options"]["tables"], serde_json::json!(["t", "u"]));

    assert!(done(&data, &["detach", "pg:t", "--dry-run"]).0.contains("DROP PUBLICATION"));
    done(&data, &["detach", "pg:t"]);
    let left: Value = serde_json::from_str(&client.request("GET", "/api/v1/sources", "", &[]).unwrap().1).unwrap();
    let names: Vec<_> = left.as_array().unwrap().iter().map(|source| source["name"].clone()).collect();
    assert_eq!(names, ["muniment"], "only the registers' own");
    let acts = "SELECT event_type FROM security_audit_log WHERE event_type LIKE 'CAPTURE%' ORDER BY id";
    assert_eq!(query(&data, acts), ["CAPTURE_ATTACHED", "CAPTURE_ATTACHED", "CAPTURE_DETACHED"]);
    let left: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_namespace WHERE nspname = 'muniment')",
    )
    .fetch_one(&postgres.pool(DATABASE))
    .await
    .unwrap();
    assert_eq!(left, 0);
    server.stop();
    assert!(verify(&data).0);
}

#[tokio::test(flavor = "multi_thread")]
async fn detaching_reads_first_what_is_waiting() {
    let postgres = PostgresServer::start(&PostgresOptions::default()).unwrap();
    let run_sql = async |sql: &str| postgres.execute(DATABASE, sql).await.unwrap();
    run_sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let folder = tempfile::tempdir().unwrap();
    let (data, url) = (folder.path().join("data"), postgres.url(DATABASE));
    let file = folder.path().join("app.db");
    let app = sqlite_file(&file).await;
    let sqlite = format!("sqlite:{}", file.display());
    let mut expected = 0;
    for (source, more) in [(&url, ["--mode", "replication"]), (&url, ["--mode", "queue"]), (&sqlite, ["--snapshot", "none"])] {
        // The second time its numbers must not be those of the first.
        for _ in 0..2 {
            let mut attach = vec!["attach", source.as_str(), "--table", "t", "--name", "src:t", "--when-full", "stop-database"];
            attach.extend(more);
            done(&data, &attach);
            let insert = "INSERT INTO t SELECT n FROM generate_series(1, 3000) n; DELETE FROM t";
            if source.starts_with("sqlite") {
                for statement in [
                    "WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 3000) INSERT INTO t SELECT id FROM n",
                    "DELETE FROM t",
                ] {
                    sqlx::query(statement).execute(&app).await.unwrap();
                }
            } else {
                run_sql(insert).await;
            }
            done(&data, &["detach", "src:t"]);
            expected += 6000;
            let counted = "SELECT count(*), count(DISTINCT source_position) FROM sys_audit_log WHERE table_name LIKE '%.t' AND operation IN ('INSERT', 'DELETE')";
            assert_eq!(query(&data, counted), [format!("{expected},{expected}")], "{source} {more:?}");
        }
    }
    let findings =
        "SELECT event_type FROM security_audit_log WHERE event_type NOT IN ('CAPTURE_ATTACHED', 'CAPTURE_DETACHED', 'UNATTRIBUTED_WRITE')";
    assert_eq!(query(&data, findings), Vec::<String>::new());
}

/// A file with the table `t`.
async fn sqlite_file(file: &Path) -> sqlx::SqlitePool {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE t (id INTEGER PRIMARY KEY)").execute(&pool).await.unwrap();
    pool
}
