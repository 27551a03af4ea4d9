//! P2, P3, P4 and P8 for an SQLite file that is captured while random transactions run on it, and Muniment is killed in between. The file is the oracle.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod captured;
mod support;

use captured::Service;
use muniment_testkit::workload::{LogRecord, Random, Replay, Row, State};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow};
use sqlx::{AssertSqlSafe, Column, Connection, Executor, Row as _, SqliteConnection, TypeInfo, ValueRef};
use std::collections::{BTreeMap, BTreeSet};

const SCHEMA: &str = r#"
    CREATE TABLE things (id INTEGER PRIMARY KEY, n REAL, s TEXT, b BLOB, anything);
    CREATE TABLE "Sổ ""A""" (k TEXT, m INT, v, double AS (m * 2), PRIMARY KEY (k, m)) WITHOUT ROWID;
    CREATE TABLE keyless (a, b);
    CREATE TABLE journal (id INTEGER PRIMARY KEY, user_name TEXT);
"#;
const TABLES: [&str; 4] = ["things", "Sổ \"A\"", "keyless", "journal"];
const VALUES: [&str; 12] =
    ["NULL", "0", "-9223372036854775808", "1.5", "0.1", "2.5e-7", "9e999", "-9e999", "'it''s \"é\" \\ 🚀'", "''", "x'00ff'", "'NULL'"];

/// Random statements of one transaction's part.
fn change(random: &mut Random) -> String {
    let (id, other) = (random.below(20), random.below(20));
    let mut value = || VALUES[random.below(VALUES.len() as u64) as usize];
    let (a, b, c) = (value(), value(), value());
    match random.below(9) {
        0..=1 => format!("INSERT INTO things VALUES ({id}, {a}, {b}, {c}, {a}) ON CONFLICT (id) DO UPDATE SET n = n + 1, anything = {b}"),
        2 => format!("UPDATE things SET anything = {a}, s = 's' || id WHERE id BETWEEN {id} AND {id} + 3"),
        3 => format!("UPDATE OR IGNORE things SET id = {other} WHERE id = {id}"),
        4 => format!("DELETE FROM things WHERE id = {id}"),
        5 => format!("INSERT INTO \"Sổ \"\"A\"\"\" (k, m, v) VALUES (coalesce({a}, 'k'), {id}, {b}) ON CONFLICT DO NOTHING"),
        6 => format!("UPDATE OR IGNORE \"Sổ \"\"A\"\"\" SET m = {other}, v = {b} WHERE m = {id}"),
        7 => format!("INSERT INTO keyless VALUES ({}, {a}), ({}, {a})", id % 3, id % 3),
        _ => format!("DELETE FROM keyless WHERE a = {}", id % 3),
    }
}

/// One transaction; each step notes in the journal whom the context names.
async fn transaction(file: &mut SqliteConnection, random: &mut Random, number: u64) {
    let user = if random.percent(60) { Some(format!("user-{}", random.below(5))) } else { None };
    let mut script = "BEGIN IMMEDIATE;".to_owned();
    if let Some(user) = &user {
        script.push_str(&format!("INSERT INTO muniment_context (document) VALUES ('{{\"user_name\": \"{user}\"}}');"));
    }
    let journal = |step: u64| {
        let user = user.as_ref().map_or_else(|| "NULL".to_owned(), |user| format!("'{user}'"));
        format!("INSERT INTO journal VALUES ({}, {user});", number * 10 + step)
    };
    for _ in 0..1 + random.below(3) {
        script.push_str(&format!("{};", change(random)));
    }
    if random.percent(40) {
        script.push_str(&format!(
            "SAVEPOINT s; {}; {} {};",
            change(random),
            journal(1),
            if random.percent(50) { "RELEASE s" } else { "ROLLBACK TO s; RELEASE s" }
        ));
    }
    script.push_str(&journal(0));
    script.push_str("DELETE FROM muniment_context;");
    script.push_str(if random.percent(20) { "ROLLBACK" } else { "COMMIT" });
    file.execute(sqlx::raw_sql(AssertSqlSafe(script.as_str()))).await.unwrap_or_else(|error| panic!("{error}: {script}"));
}

/// The file's contents, and the number of the last queued change that led to them.
async fn state(file: &mut SqliteConnection) -> (State, u64) {
    let mut state = State::default();
    for table in TABLES {
        let name = format!("main.{table}");
        state.tables.insert(name.clone(), BTreeMap::new());
        let sql = format!("SELECT * FROM \"{}\"", table.replace('"', "\"\""));
        for row in file.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql.as_str()))).await.unwrap() {
            state.add(&name, columns(&row));
        }
    }
    let newest: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'muniment_audit_queue'").fetch_optional(file).await.unwrap();
    (state, newest.unwrap_or_default() as u64)
}

fn columns(row: &SqliteRow) -> Row {
    let mut columns = Row::new();
    for column in row.columns().iter() {
        let (at, value) = (column.ordinal(), row.try_get_raw(column.ordinal()).unwrap());
        if value.is_null() {
            continue;
        }
        let text = match value.type_info().name() {
            "INTEGER" => row.get_unchecked::<i64, _>(at).to_string(),
            "REAL" => match row.get_unchecked::<f64, _>(at) {
                number if number.is_infinite() => format!("{}Infinity", if number < 0.0 { "-" } else { "" }),
                number => format!("{number:?}"),
            },
            "BLOB" => row.get_unchecked::<Vec<u8>, _>(at).iter().fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
            _ => row.get_unchecked::<String, _>(at),
        };
        columns.insert(column.name().to_owned(), text);
    }
    columns
}

/// Number of the change in the queue: `<source>:<number>`, and `.1` for the second record of a change of key.
fn number(record: &LogRecord) -> u64 {
    let position = record.position.as_deref().unwrap().rsplit_once(':').unwrap().1;
    position.split('.').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let mut service = Service::start();
    let path = service.folder.path().join("app.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    let mut file = SqliteConnection::connect_with(&options).await.unwrap();
    file.execute(sqlx::raw_sql(SCHEMA)).await.unwrap();
    let url = format!("sqlite://{}", path.display());
    service.succeed(&["attach", &url, "--table", "main.*", "--name", "sqlite:app", "--snapshot", "none"]);
    let second = service.command(&["attach", &url, "--table", "main.*", "--name", "sqlite:other", "--snapshot", "none"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned() + &String::from_utf8_lossy(&second.stdout);
    assert!(!second.status.success() && said.contains("this file has a queue already, which is read as sqlite:app"), "{said}");
    let (mut random, mut instants) = (Random::new(1), Vec::new());
    for n in 1..=300 {
        transaction(&mut file, &mut random, n).await;
        if n % 60 == 0 {
            instants.push(state(&mut file).await);
            service.muniment.kill();
            service.start_again();
        }
    }
    file.execute("INSERT INTO journal VALUES (0, NULL)").await.unwrap();
    let (last, _) = state(&mut file).await;
    service.is_logged("main.journal", "0").await;
    let log = service.log("true");
    for (instant, newest) in &instants {
        let mut replay = Replay::default();
        log.iter().filter(|record| number(record) <= *newest).for_each(|record| replay.apply(record).unwrap());
        let differences = replay.all().differences(instant, 10);
        assert!(differences.is_empty(), "the log (-) differs from the file (+) at {newest}: {differences:#?}");
    }
    assert!(log.windows(2).all(|pair| number(&pair[0]) <= number(&pair[1])));
    let steps: Vec<_> = log.iter().filter(|record| record.table == "main.journal").map(|record| record.key.clone()).collect();
    let once: BTreeSet<_> = steps.iter().cloned().collect();
    let committed: BTreeSet<_> = last.tables["main.journal"].keys().map(|row| row["id"].clone()).collect();
    assert_eq!((once.len(), &once), (steps.len(), &committed));
    for record in log.iter().filter(|record| record.table == "main.journal") {
        let row: serde_json::Value = serde_json::from_str(record.new.as_deref().unwrap()).unwrap();
        let named = record.user.as_deref().filter(|_| record.attribution.as_deref() == Some("APPLICATION"));
        assert_eq!(named, row["user_name"].as_str(), "{record:?}");
    }
    let reconciled = service.succeed(&["reconcile", "sqlite:app"]);
    assert!(reconciled.ends_with("no difference\n"), "{reconciled}");
    file.execute("DROP TRIGGER muniment_delete_keyless; DELETE FROM keyless").await.unwrap();
    assert_eq!(service.command(&["reconcile", "sqlite:app"]).status.code(), Some(1));
}
