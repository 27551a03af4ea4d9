//! The workload runs, most of its transactions commit, every table is in use; and the oracle notices what a log could get wrong.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use muniment_testkit::workload::{Ddl, Instant, LogRecord, Replay, TABLES, Workload, WorkloadOptions};
use muniment_testkit::{PostgresOptions, PostgresServer};

#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_in_use() {
    let server = PostgresServer::start(&PostgresOptions::default().setting("deadlock_timeout", "50ms")).unwrap();
    let options =
        WorkloadOptions { context_sql: "SELECT {}::jsonb".into(), ddl: Ddl::Rewriting, truncate: false, ..WorkloadOptions::default() };
    let workload = Workload::create(server.connect_options("postgres"), options).await.unwrap();
    let outcome = workload.run(4, 200).await.unwrap();
    assert_eq!(outcome.committed + outcome.rolled_back + outcome.failed, 800, "{outcome:?}");
    assert!(outcome.committed > 500, "{outcome:?}: {}", server.log());
    let instant = Instant::read(&server.connect_options("postgres"), &TABLES).await.unwrap();
    let empty: Vec<_> = instant.state.tables.iter().filter(|(_, rows)| rows.is_empty()).map(|(name, _)| name).collect();
    assert!(empty.is_empty(), "{empty:?}");
    assert!(instant.includes(3) && !instant.includes(u64::MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_equals_the_table_only_if_nothing_is_wrong() {
    let server = PostgresServer::start(&PostgresOptions::default()).unwrap();
    let rows = r#"CREATE TABLE t (a int, b bool, c text, d jsonb, e numeric, gone text);
        INSERT INTO t VALUES (1, true, 'x', '{"k": [1.0, "é"]}', 'NaN', '-'), (1, true, 'x', '{"k": [1.0, "é"]}', 'NaN', '-'), (2, null, '', 'null', 1.50, null);
        ALTER TABLE t DROP COLUMN gone"#;
    server.execute("postgres", rows).await.unwrap();
    let instant = Instant::read(&server.connect_options("postgres"), &["public.t"]).await.unwrap();
    let record = |operation: &str, old: Option<&str>, new: Option<&str>| LogRecord {
        table: "public.t".into(),
        operation: operation.into(),
        old: old.map(str::to_owned),
        new: new.map(str::to_owned),
        ..LogRecord::default()
    };
    let first = r#"{"a":1,"b":true,"c":"x","d":{"k": [1.0, "é"]},"e":"NaN","gone":"-"}"#;
    let second = r#"{"a":2,"b":null,"c":"","d":{"$json":"null"},"e":1.50}"#;
    let log = [
        record("INSERT", None, Some(r#"{"a":9}"#)),
        record("TRUNCATE", None, None),
        record("SNAPSHOT", None, Some(first)),
        record("INSERT", None, Some(first)),
        record("INSERT", None, Some(r#"{"a":2,"e":1.5}"#)),
        record("UPDATE", Some(r#"{"a":2,"e":1.5,"gone":null}"#), Some(second)),
    ];
    let replay = |log: &[LogRecord]| {
        let mut replay = Replay::default();
        log.iter().try_for_each(|record| replay.apply(record)).map(|()| replay.state(&instant).differences(&instant.state, 10))
    };
    assert_eq!(replay(&log), Ok(vec![]));
    assert!(!replay(&log[..4]).unwrap().is_empty());
    assert!(!replay(&[log[0].clone()]).unwrap().is_empty());
    assert!(replay(&[log[5].clone()]).is_err());
    let mut twice = log.to_vec();
    twice.push(log[3].clone());
    assert!(!replay(&twice).unwrap().is_empty());
    let mut digits = log.to_vec();
    digits[5].new = Some(second.replace("1.50", "1.5"));
    assert!(!replay(&digits).unwrap().is_empty());
    digits[5].new = Some(second.replace(r#"{"$json":"null"}"#, "null"));
    assert!(!replay(&digits).unwrap().is_empty());
}
