//! SQLite as a source.

use crate::support::Store;
use muniment_capture::plan::AttachOptions;
use muniment_capture::queue::sqlite::{SqliteOptions, SqliteQueueSource, apply, attach_on, describe, detach, end, plan};
use muniment_testkit::workload::{Random, Replay};
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Row, SqliteConnection};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;

struct Database {
    _folder: TempDir,
    path: PathBuf,
}

impl Database {
    async fn create(schema: &str, mode: SqliteJournalMode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let mut connection =
            SqliteConnectOptions::new().filename(&path).create_if_missing(true).journal_mode(mode).connect().await.unwrap();
        execute(&mut connection, schema).await.unwrap();
        Self { _folder: folder, path }
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    async fn attach(&self, options: AttachOptions) {
        apply(&self.url(), &plan(&self.url(), &AttachOptions { name: Some("q".into()), ..options }).await.unwrap()).await.unwrap();
    }

    fn source(&self) -> SqliteQueueSource {
        SqliteQueueSource::new(self.url(), SqliteOptions::new("q"))
    }

    async fn client(&self) -> SqliteConnection {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .foreign_keys(true)
            .busy_timeout(std::time::Duration::from_secs(10))
            .connect()
            .await
            .unwrap()
    }
}

async fn execute(connection: &mut SqliteConnection, sql: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

fn tables(names: &[&str]) -> AttachOptions {
    AttachOptions { tables: names.iter().map(|name| (*name).to_owned()).collect(), ..AttachOptions::default() }
}

async fn attached(schema: &str) -> (Database, SqliteConnection) {
    let database = Database::create(schema, SqliteJournalMode::Wal).await;
    database.attach(tables(&["t"])).await;
    let client = database.client().await;
    (database, client)
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v)";

#[tokio::test]
async fn values_are_exact() {
    let (database, mut client) = attached(TABLE).await;
    let values = ["9223372036854775807", "0.1", "1.0", "1e30", "5e-324", "9e999", "-9e999", "x'00ff'", "'it''s \"q\" \\ đ'", "NULL", "''"];
    for value in values {
        execute(&mut client, &format!("INSERT INTO t (v) VALUES ({value})")).await.unwrap();
    }
    execute(&mut client, "UPDATE t SET v = 2 WHERE id = 1; UPDATE t SET id = 100 WHERE id = 2; DELETE FROM t WHERE id > 2").await.unwrap();
    let mut store = Store::default();
    store.catch_up(&mut database.source()).await;
    let kept: Vec<String> = store
        .records
        .iter()
        .take(values.len())
        .map(|record| record.new.clone().unwrap().split_once("\"v\":").unwrap().1.trim_end_matches('}').to_owned())
        .collect();
    let expected = [
        "9223372036854775807",
        "0.1",
        "1.0",
        "1e30",
        "5e-324",
        "\"Infinity\"",
        "\"-Infinity\"",
        "\"\\\\x00ff\"",
        "\"it's \\\"q\\\" \\\\ đ\"",
        "null",
        "\"\"",
    ];
    assert_eq!(kept, expected);
    let after: Vec<_> = store.records[values.len()..].iter().take(4).map(|record| format!("{} {}", record.operation, record.key)).collect();
    assert_eq!(after, ["UPDATE 1", "DELETE 2", "INSERT 100", "DELETE 3"]);
}

#[tokio::test]
async fn floating_point_numbers_are_exact() {
    let (database, mut client) = attached(TABLE).await;
    let mut random = Random::new(3);
    // Beyond this range SQLite's own text of a number can be off in its last digit.
    let scale = |random: &mut Random| 10f64.powi(random.below(30) as i32 - 15);
    let numbers: Vec<f64> = (0..2000).map(|_| (random.below(1 << 53) as f64 / 3.0) * scale(&mut random)).chain([0.1, 1.0 / 3.0]).collect();
    execute(&mut client, "BEGIN").await.unwrap();
    for number in &numbers {
        sqlx::query("INSERT INTO t (v) VALUES (?)").bind(number).execute(&mut client).await.unwrap();
    }
    execute(&mut client, "COMMIT").await.unwrap();
    let mut store = Store::default();
    store.catch_up(&mut database.source()).await;
    // Rust's own reader rounds right; that of JSON values doesn't.
    let kept = |row: &str| row.split_once("\"v\":").unwrap().1.trim_end_matches('}').to_owned();
    let both = numbers.iter().zip(store.records.iter().map(|record| kept(record.new.as_deref().unwrap())));
    let wrong: Vec<_> = both.filter(|(number, text)| text.parse::<f64>().ok() != Some(**number)).collect();
    assert!(wrong.is_empty(), "{} of {}: {:?}", wrong.len(), numbers.len(), wrong.first());
}

#[tokio::test]
async fn trap_4_a_context_ends_with_its_transaction() {
    let (database, mut client) = attached(TABLE).await;
    let context = r#"INSERT INTO muniment_context (document) VALUES ('{"user_id": 7}')"#;
    execute(&mut client, &format!("BEGIN; {context}; INSERT INTO t VALUES (1, 0); DELETE FROM muniment_context; COMMIT")).await.unwrap();
    execute(&mut client, "INSERT INTO t VALUES (2, 0)").await.unwrap();
    execute(&mut client, &format!("BEGIN; {context}; INSERT INTO t VALUES (3, 0)")).await.unwrap();
    assert!(execute(&mut client, "COMMIT").await.is_err(), "a context is left behind");
    execute(&mut client, "ROLLBACK; PRAGMA foreign_keys = OFF").await.unwrap();
    execute(&mut client, &format!("BEGIN; {context}; INSERT INTO t VALUES (4, 0); COMMIT")).await.unwrap();
    let mut store = Store::default();
    store.catch_up(&mut database.source()).await;
    execute(&mut client, "INSERT INTO t VALUES (5, 0)").await.unwrap();
    store.catch_up(&mut database.source()).await;
    let who: Vec<_> = store.changes.iter().map(|change| (change["primary_key"].as_str().unwrap(), change["changed_by"].clone())).collect();
    assert_eq!(who, [("1", json!(7)), ("2", json!(null)), ("4", json!(7)), ("5", json!(null))]);
    assert_eq!(store.changes[1]["attribution"], "NONE");
    let mut kinds: Vec<_> = store.findings.iter().map(|finding| finding["event_type"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["CAPTURE_BYPASSED", "UNATTRIBUTED_WRITE", "UNATTRIBUTED_WRITE"]);
}

#[tokio::test]
async fn a_key_that_would_be_hidden_is_refused() {
    let database = Database::create(TABLE, SqliteJournalMode::Wal).await;
    let options = AttachOptions { mask_columns: vec!["t.id".into()], ..tables(&["t"]) };
    let error = plan(&database.url(), &options).await.unwrap().permitted().unwrap_err().to_string();
    assert!(error.contains("t: id is part of its primary key"), "{error}");
}

#[tokio::test]
async fn columns_are_left_out_and_masked() {
    let database = Database::create("CREATE TABLE t (id INTEGER PRIMARY KEY, secret TEXT, pin INTEGER)", SqliteJournalMode::Delete).await;
    database.attach(AttachOptions { exclude_columns: vec!["t.secret".into()], mask_columns: vec!["t.pin".into()], ..tables(&["t"]) }).await;
    execute(&mut database.client().await, "INSERT INTO t VALUES (1, 'hidden', 4711); UPDATE t SET pin = 4712, secret = 'x'").await.unwrap();
    let mut store = Store::default();
    store.catch_up(&mut database.source()).await;
    assert_eq!(store.records[0].new.as_deref(), Some(r#"{"id":1,"pin":"***"}"#));
    assert_eq!(store.changes[1]["change_details"], "changed: pin (masked)");
}

#[tokio::test]
async fn trap_9_ddl_and_bypassed_triggers_are_found() {
    let (database, mut client) = attached(TABLE).await;
    let (mut source, mut store) = (database.source(), Store::default());
    store.catch_up(&mut source).await;
    execute(&mut client, "ALTER TABLE t ADD COLUMN w").await.unwrap();
    store.go_on(&mut source).await;
    execute(&mut client, "INSERT INTO t VALUES (1, 2, 3)").await.unwrap();
    store.go_on(&mut source).await;
    assert_eq!((store.records[0].operation.as_str(), store.records[1].new.as_deref()), ("DDL", Some(r#"{"id":1,"v":2,"w":3}"#)));
    execute(&mut client, "DROP TRIGGER muniment_insert_t; INSERT INTO t VALUES (2, 0, 0)").await.unwrap();
    store.go_on(&mut source).await;
    assert!(store.findings.iter().any(|finding| finding["event_type"] == "CAPTURE_BYPASSED"));
    execute(&mut client, "INSERT INTO t VALUES (3, 0, 0); DROP TABLE t").await.unwrap();
    store.go_on(&mut source).await;
    let brief: Vec<_> = store.records.iter().map(|record| format!("{} {}", record.operation, record.key)).collect();
    // Dropping a table deletes its rows first, without firing triggers.
    assert_eq!(brief, ["DDL *", "INSERT 1", "TRUNCATE *", "SNAPSHOT 1", "SNAPSHOT 2", "INSERT 3", "DDL *", "TRUNCATE *"]);
}

#[tokio::test]
async fn the_queue_is_emptied_and_detaching_leaves_nothing() {
    let (database, mut client) = attached(TABLE).await;
    execute(
        &mut client,
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) INSERT INTO t SELECT i, i FROM n",
    )
    .await
    .unwrap();
    let (mut source, mut store) = (database.source(), Store::default());
    store.catch_up(&mut source).await;
    assert_eq!((store.records.len(), store.batches >= 3), (2500, true));
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    store.go_on(&mut source).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM muniment_audit_queue").fetch_one(&mut client).await.unwrap();
    // The last one tells whether the file is still the same.
    assert_eq!(left, 1);
    drop(source);
    let gone = detach(&database.url(), "q").await.unwrap();
    end(&database.url(), &gone).await.unwrap();
    apply(&database.url(), &gone).await.unwrap();
    let names: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%muniment%'").fetch_one(&mut client).await.unwrap();
    assert_eq!(names, 0);
}

#[tokio::test]
async fn triggers_can_be_put_on_an_open_connection() {
    let database = Database::create(TABLE, SqliteJournalMode::Wal).await;
    let mut client = database.client().await;
    let table = describe(&mut client, "t").await.unwrap();
    assert_eq!((table.key.as_slice(), table.columns.len()), (&["id".to_owned()][..], 2));
    attach_on(&mut client, &[table]).await.unwrap();
    execute(&mut client, "INSERT INTO t VALUES (1, 0)").await.unwrap();
    let mut store = Store::default();
    store.catch_up(&mut database.source()).await;
    assert_eq!(store.brief("v"), ["INSERT 1 0"]);
}

/// Several writers and a reader that is broken off at any moment: the log replayed is the table, each change once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_replayed_is_the_table() {
    for mode in [SqliteJournalMode::Wal, SqliteJournalMode::Delete] {
        let database =
            Database::create("CREATE TABLE t (a INTEGER, b TEXT, c, PRIMARY KEY (a, b)) WITHOUT ROWID; CREATE TABLE k (x, y)", mode).await;
        database.attach(tables(&["*.*"])).await;
        let writers: Vec<_> = (0..3).map(|seed| tokio::spawn(write(database.path.clone(), seed))).collect();
        let mut store = Store::default();
        while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
            let mut source = database.source();
            let _ = tokio::time::timeout(std::time::Duration::from_millis(60), store.catch_up(&mut source)).await;
        }
        store.catch_up(&mut database.source()).await;
        let mut replay = Replay::default();
        let mut rows: BTreeMap<String, i64> = BTreeMap::new();
        let mut positions = std::collections::BTreeSet::new();
        for record in &store.records {
            assert!(positions.insert(record.position.clone()), "{record:?} came twice");
            replay.apply(record).unwrap();
            for (sign, row) in [(-1, &record.old), (1, &record.new)] {
                if let Some(row) = row {
                    *rows.entry(format!("{} {row}", record.table)).or_default() += sign;
                }
            }
        }
        rows.retain(|_, count| *count != 0);
        assert_eq!(rows, live(&database).await);
    }
}

async fn write(path: PathBuf, seed: u64) {
    let mut random = Random::new(seed + 1);
    let mut client = SqliteConnectOptions::new()
        .filename(&path)
        .foreign_keys(true)
        .busy_timeout(std::time::Duration::from_secs(20))
        .connect()
        .await
        .unwrap();
    for _ in 0..60 {
        let mut sql = String::from("BEGIN IMMEDIATE; INSERT INTO muniment_context (document) VALUES ('{\"user_id\": 1}');");
        for _ in 0..=random.below(4) {
            let (a, b) = (random.below(20), random.below(20));
            sql += &match random.below(5) {
                0 | 1 => format!("INSERT INTO t VALUES ({a}, 'b{}', {b}.25) ON CONFLICT DO UPDATE SET c = c || 'x';", b % 3),
                2 => format!("UPDATE t SET a = a + 100 WHERE a = {a};"),
                3 => format!("DELETE FROM t WHERE a % 7 = {}; INSERT INTO k VALUES ({a}, x'0{}');", b % 7, b % 10),
                _ => format!("SAVEPOINT s; DELETE FROM k; ROLLBACK TO s; UPDATE k SET y = {a} WHERE x = {b};"),
            };
        }
        sql += "DELETE FROM muniment_context;";
        sql += if random.percent(20) { "ROLLBACK" } else { "COMMIT" };
        // Two rows may come to have the same key; then all of it is rolled back.
        if execute(&mut client, &sql).await.is_err() {
            let _ = execute(&mut client, "ROLLBACK").await;
        }
    }
}

/// The tables' rows as the log has them, and how often each is there.
async fn live(database: &Database) -> BTreeMap<String, i64> {
    let mut rows = BTreeMap::new();
    for (table, columns) in [("t", ["a", "b", "c"].as_slice()), ("k", &["x", "y"])] {
        let value = |column: &&str| {
            format!(
                "'\"{column}\":' || CASE typeof({column}) WHEN 'blob' THEN '\"\\\\x' || lower(hex({column})) || '\"' ELSE json_quote({column}) END"
            )
        };
        let sql =
            format!("SELECT '{{' || {} || '}}' AS row FROM {table}", columns.iter().map(value).collect::<Vec<_>>().join(" || ',' || "));
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut database.client().await).await.unwrap() {
            *rows.entry(format!("main.{table} {}", row.get::<String, _>("row"))).or_default() += 1;
        }
    }
    rows
}

#[tokio::test]
async fn tables_that_come_change_their_names_and_go() {
    let schema = "CREATE TABLE old (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO old VALUES (1, 'a')";
    let database = Database::create(schema, SqliteJournalMode::Wal).await;
    database.attach(AttachOptions { exclude_columns: vec!["main.fresh.secret".into()], ..tables(&["main.*"]) }).await;
    let mut client = database.client().await;
    let mut source = database.source();
    let mut store = Store::default();
    let mut step = async |sql: &str, store: &mut Store| {
        execute(&mut client, sql).await.unwrap();
        let before = store.records.len();
        if store.position.is_none() {
            store.catch_up(&mut source).await;
        } else {
            store.go_on(&mut source).await;
        }
        let brief = |record: &muniment_testkit::workload::LogRecord| format!("{} {} {}", record.operation, record.table, record.key);
        store.records[before..].iter().map(brief).collect::<Vec<_>>()
    };
    assert_eq!(step("INSERT INTO old VALUES (2, 'b')", &mut store).await, ["SNAPSHOT main.old 1", "INSERT main.old 2"]);
    // Made and written to before anybody looks.
    let made = step("CREATE TABLE fresh (id INTEGER PRIMARY KEY, secret TEXT); INSERT INTO fresh VALUES (7, 'x')", &mut store).await;
    assert_eq!(made, ["DDL main.fresh *", "SNAPSHOT main.fresh 7"]);
    assert_eq!(step("UPDATE fresh SET secret = 'y'; DELETE FROM fresh", &mut store).await, ["UPDATE main.fresh 7", "DELETE main.fresh 7"]);
    assert!(!store.changes.iter().any(|change| change.to_string().contains("secret\":")), "left out by a pattern: {:?}", store.changes);
    let renamed = step("ALTER TABLE old RENAME TO new; UPDATE new SET v = 'c' WHERE id = 1", &mut store).await;
    let expected =
        ["UPDATE main.old 1", "DDL main.old *", "TRUNCATE main.old *", "DDL main.new *", "SNAPSHOT main.new 1", "SNAPSHOT main.new 2"];
    assert_eq!(renamed, expected);
    assert_eq!(step("DELETE FROM new WHERE id = 2", &mut store).await, ["DELETE main.new 2"]);
    let column = "ALTER TABLE new RENAME COLUMN id TO number; UPDATE new SET v = 'd'";
    let renamed = ["UPDATE main.new 1", "DDL main.new *", "TRUNCATE main.new *", "SNAPSHOT main.new 1"];
    assert_eq!(step(column, &mut store).await, renamed, "under the key that it had");
    assert_eq!(step("UPDATE new SET v = 'e'", &mut store).await, ["UPDATE main.new 1"]);
    let again = step("DROP TABLE new", &mut store).await;
    assert_eq!(again, ["DDL main.new *", "TRUNCATE main.new *"]);
    let again = step("CREATE TABLE new (a TEXT PRIMARY KEY); INSERT INTO new VALUES ('x')", &mut store).await;
    assert_eq!(again, ["DDL main.new *", "SNAPSHOT main.new x"]);
    assert_eq!(step("INSERT INTO new VALUES ('y')", &mut store).await, ["INSERT main.new y"]);
}

#[tokio::test]
async fn hidden_columns_stay_hidden_and_tables_made_anew_begin_anew() {
    let schema =
        "CREATE TABLE t (id INTEGER PRIMARY KEY, Secret TEXT, pin TEXT); INSERT INTO t VALUES (1, 'CLEAR', 'CLEAR'), (2, 'CLEAR', 'CLEAR');
        CREATE VIRTUAL TABLE found USING fts5(body)";
    let database = Database::create(schema, SqliteJournalMode::Wal).await;
    let hidden =
        AttachOptions { exclude_columns: vec!["main.*.secret".into()], mask_columns: vec!["main.t.pin".into()], ..tables(&["main.*"]) };
    database.attach(hidden).await;
    let mut client = database.client().await;
    execute(&mut client, "INSERT INTO found VALUES ('text')").await.unwrap();
    let (mut source, mut store) = (database.source(), Store::default());
    store.catch_up(&mut source).await;
    execute(&mut client, "ALTER TABLE t RENAME COLUMN secret TO other; ALTER TABLE t RENAME COLUMN pin TO number").await.unwrap();
    store.go_on(&mut source).await;
    execute(&mut client, "UPDATE t SET other = 'CLEAR2', number = 'CLEAR2'; CREATE TABLE u (id INTEGER PRIMARY KEY, SECRET TEXT); INSERT INTO u VALUES (1, 'CLEAR')").await.unwrap();
    store.go_on(&mut source).await;
    let values: Vec<_> = store.changes.iter().map(|change| format!("{}{}", change["old_values"], change["new_values"])).collect();
    assert!(!values.iter().any(|text| text.contains("CLEAR")), "{values:?}");
    execute(&mut client, "CREATE TABLE v (id INTEGER PRIMARY KEY, pin TEXT); ALTER TABLE t RENAME TO s; UPDATE s SET number = 'CLEAR3'")
        .await
        .unwrap();
    store.go_on(&mut source).await;
    execute(&mut client, "UPDATE s SET number = 'CLEAR4'; ALTER TABLE s RENAME TO t").await.unwrap();
    store.go_on(&mut source).await;
    let values: Vec<_> = store.changes.iter().map(|change| format!("{}{}", change["old_values"], change["new_values"])).collect();
    assert!(!values.iter().any(|text| text.contains("CLEAR")), "{values:?}");
    let before = store.records.len();
    // The way in which SQLite's documentation tells to alter a table.
    let anew = "BEGIN; CREATE TABLE t_new (id INTEGER PRIMARY KEY, w TEXT); INSERT INTO t_new SELECT id, 'w' FROM t WHERE id = 1; DROP TABLE t; ALTER TABLE t_new RENAME TO t; COMMIT";
    execute(&mut client, anew).await.unwrap();
    store.go_on(&mut source).await;
    let brief: Vec<_> =
        store.records[before..].iter().map(|record| format!("{} {} {}", record.operation, record.table, record.key)).collect();
    assert_eq!(brief, ["DDL main.t *", "TRUNCATE main.t *", "SNAPSHOT main.t 1"]);
}

/// A backup in place of the file, or over it, with new changes up to the numbers that had been read.
#[tokio::test]
async fn a_file_that_is_set_back_is_noticed() {
    let (database, mut client) = attached("CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')").await;
    let mut source = database.source();
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    let backup = database.path.with_extension("bak");
    let copied = sqlx::query("VACUUM INTO ?").bind(backup.to_str()).execute(&mut client).await;
    copied.unwrap();
    execute(&mut client, "INSERT INTO t VALUES (2, 'b'), (3, 'c')").await.unwrap();
    store.go_on(&mut source).await;
    drop(client);
    std::fs::rename(&backup, &database.path).unwrap();
    for side in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{side}", database.path.display()));
    }
    let mut client = database.client().await;
    execute(&mut client, "INSERT INTO t VALUES (10, 'x'), (11, 'y'), (12, 'z')").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    store.go_on(&mut source).await;
    assert!(store.findings.iter().any(|finding| finding["event_type"] == "CAPTURE_GAP"), "{:?}", store.findings);
    let mut rows = BTreeMap::new();
    for record in &store.records {
        match (record.operation.as_str(), &record.new) {
            ("TRUNCATE", _) => rows.clear(),
            (_, Some(new)) => drop(rows.insert(record.key.clone(), new.clone())),
            _ => drop(rows.remove(&record.key)),
        }
    }
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), ["1", "10", "11", "12"]);
    let inserted = store.records.iter().filter(|record| record.operation == "INSERT").map(|record| record.key.as_str());
    assert_eq!(inserted.collect::<Vec<_>>(), ["2", "3", "10", "11", "12"]);
}
