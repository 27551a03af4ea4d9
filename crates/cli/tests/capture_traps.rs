//! Traps of change capture that can only be seen with the whole product: those in which attaching, the running capture and the application meet. Traps of
//! the ways in by themselves are tested in `crates/capture`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod captured;
mod support;

use captured::{Audited, DATABASE, SOURCE};
use muniment_testkit::PostgresOptions;
use sqlx::{Connection, Executor, PgConnection};

/// The values of the moment are recorded, not those that are there when the queue is read; what was deleted meanwhile is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn trap_1_values_are_those_of_the_moment() {
    for mode in ["replication", "queue"] {
        let tables = "CREATE TABLE t (id int PRIMARY KEY, n int)";
        let mut audited = Audited::with(tables, &["--table", "public.t", "--mode", mode]).await;
        audited.muniment.kill();
        let script = ["INSERT INTO t VALUES (1, 0)", "UPDATE t SET n = 10", "UPDATE t SET n = 20", "UPDATE t SET n = 30", "DELETE FROM t"];
        for statement in script {
            audited.sql(statement).await;
        }
        audited.start_again();
        audited.caught_up().await;
        let expected = [
            r#"INSERT public.t 1 - → {"id":1,"n":0}"#,
            r#"UPDATE public.t 1 {"id":1,"n":0} → {"id":1,"n":10}"#,
            r#"UPDATE public.t 1 {"id":1,"n":10} → {"id":1,"n":20}"#,
            r#"UPDATE public.t 1 {"id":1,"n":20} → {"id":1,"n":30}"#,
            r#"DELETE public.t 1 {"id":1,"n":30} → -"#,
        ];
        assert_eq!(audited.story(), expected, "{mode}");
    }
}

/// A transaction that began early and commits late is neither lost nor ahead of its time.
#[tokio::test(flavor = "multi_thread")]
async fn trap_2_commit_order_counts() {
    for mode in ["replication", "queue"] {
        let tables = "CREATE TABLE t (id int PRIMARY KEY)";
        let mut audited = Audited::with(tables, &["--table", "public.t", "--mode", mode]).await;
        let mut early = PgConnection::connect_with(&audited.server.connect_options(DATABASE)).await.unwrap();
        early.execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        audited.sql("INSERT INTO t VALUES (2)").await;
        audited.caught_up().await;
        assert_eq!(audited.story(), [r#"INSERT public.t 2 - → {"id":2}"#], "{mode}");
        early.execute("COMMIT").await.unwrap();
        audited.caught_up().await;
        assert_eq!(audited.story(), [r#"INSERT public.t 2 - → {"id":2}"#, r#"INSERT public.t 1 - → {"id":1}"#], "{mode}");
    }
}

/// A partition that comes later, its rows changed by an application that knows nothing of capture; a row that moves.
#[tokio::test(flavor = "multi_thread")]
async fn trap_7_new_partitions_and_moved_rows() {
    let tables =
        "CREATE TABLE t (id int, k text, PRIMARY KEY (id, k)) PARTITION BY LIST (k); CREATE TABLE t_a PARTITION OF t FOR VALUES IN ('a')";
    let mut audited = Audited::with(tables, &["--table", "public.t"]).await;
    audited.sql("CREATE TABLE t_b PARTITION OF t FOR VALUES IN ('b')").await;
    audited.sql("INSERT INTO t VALUES (1, 'a')").await;
    audited.sql("UPDATE t SET k = 'b'").await;
    audited.sql("UPDATE t_b SET id = 2").await;
    audited.caught_up().await;
    let story: Vec<_> = audited.story().into_iter().filter(|line| !line.starts_with("DDL")).collect();
    let expected = [
        r#"INSERT public.t ["1","a"] - → {"id":1,"k":"a"}"#,
        r#"DELETE public.t ["1","a"] {"id":1,"k":"a"} → -"#,
        r#"INSERT public.t ["1","b"] - → {"id":1,"k":"b"}"#,
        r#"DELETE public.t ["1","b"] {"id":1,"k":"b"} → -"#,
        r#"INSERT public.t ["2","b"] - → {"id":2,"k":"b"}"#,
    ];
    assert_eq!(story, expected);
    audited.succeed(&["reconcile", SOURCE]);
}

/// An unlogged table is not in the WAL: attaching says so. A rewritten table is reported, and recorded anew.
#[tokio::test(flavor = "multi_thread")]
async fn trap_9_what_is_not_in_the_wal_is_said() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE UNLOGGED TABLE fast (id int PRIMARY KEY)";
    let mut audited = Audited::with(tables, &["--table", "public.t", "--snapshot", "initial"]).await;
    let url = audited.server.url(DATABASE);
    let planned = audited.command(&["attach", &url, "--table", "public.fast", "--dry-run"]);
    let said = String::from_utf8(planned.stderr).unwrap();
    assert!(said.contains("unlogged") && said.contains("public.fast"), "{said}");
    audited.sql("INSERT INTO t VALUES (1, 1), (2, 2)").await;
    audited.sql("ALTER TABLE t ALTER n TYPE text USING 'n' || n").await;
    audited.finding("CAPTURE_BYPASSED public.t").await;
    audited.caught_up().await;
    assert!(audited.story().iter().any(|line| line.starts_with("DDL public.t")), "{:?}", audited.story());
    audited.succeed(&["reconcile", SOURCE]);
}

/// A table without a key in a publication makes the application's UPDATE fail; attaching it does not.
#[tokio::test(flavor = "multi_thread")]
async fn trap_10_updates_of_tables_without_a_key_go_on_working() {
    let mut audited = Audited::start(&PostgresOptions::default()).await;
    audited.sql("CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 1); CREATE PUBLICATION bare FOR TABLE t").await;
    let refused = audited.server.execute(DATABASE, "UPDATE t SET b = 2").await;
    assert!(refused.is_err(), "the trap is gone: PostgreSQL allows the update");
    audited.sql("DROP PUBLICATION bare").await;
    audited.attach(&["--table", "public.t"]);
    audited.sql("UPDATE t SET b = 2").await;
    audited.sql("DELETE FROM t").await;
    audited.caught_up().await;
    let last = audited.story().pop().unwrap();
    assert_eq!(last, r#"DELETE public.t ["1","2"] {"a":1,"b":2} → -"#);
}

/// A slot that nobody reads is given up before it fills the disk, if that was chosen; then the gap is on the record, and the log is completed.
#[tokio::test(flavor = "multi_thread")]
async fn trap_12_a_slot_that_is_not_read() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)";
    let attach = ["--table", "public.t", "--snapshot", "initial", "--max-slot-wal-keep", "32MiB", "--when-full", "lose-audit"];
    let mut audited = Audited::with(tables, &attach).await;
    audited.caught_up().await;
    audited.muniment.kill();
    for n in 1..=6 {
        audited.sql(&format!("UPDATE t SET n = {n}")).await;
        audited.sql("SELECT pg_switch_wal()").await;
    }
    audited.sql("CHECKPOINT").await;
    audited.sql("INSERT INTO t VALUES (2, 0)").await;
    audited.start_again();
    audited.finding(&format!("CAPTURE_GAP {SOURCE}")).await;
    audited.sql("INSERT INTO t VALUES (3, 0)").await;
    audited.caught_up().await;
    audited.succeed(&["reconcile", SOURCE]);
}

/// P8: what a database administrator changes by hand is a finding that names the user; what the application does with its context is none.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_context_is_a_finding() {
    for mode in ["replication", "queue"] {
        let tables =
            "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0); CREATE USER admin SUPERUSER PASSWORD 'secret'";
        let mut audited = Audited::with(tables, &["--table", "public.t", "--mode", mode]).await;
        let context = r#"SELECT muniment.context('{"user_id": 7, "user_name": "lan", "change_reason": "ticket 4711"}')"#;
        audited.sql(&format!("BEGIN; {context}; UPDATE t SET n = 1; COMMIT")).await;
        let by_hand = audited.server.connect_options(DATABASE).application_name("psql").username("admin").password("secret");
        let mut by_hand = PgConnection::connect_with(&by_hand).await.unwrap();
        by_hand.execute("UPDATE t SET n = 2").await.unwrap();
        audited.caught_up().await;
        let log = audited.log("true");
        let who: Vec<_> = log.iter().map(|record| (record.user.as_deref(), record.attribution.as_deref())).collect();
        assert_eq!(who, [(Some("lan"), Some("APPLICATION")), (Some("admin"), Some("DATABASE"))], "{mode}");
        let finding = audited.finding("UNATTRIBUTED_WRITE public.t").await;
        assert_eq!(finding, "UNATTRIBUTED_WRITE public.t admin", "{mode}");
        assert_eq!(audited.findings().iter().filter(|finding| finding.contains("public.t")).count(), 1, "{mode}");
    }
}

/// What is said before a change holds for it, whichever subtransactions both are in: the server sends them in another order.
#[tokio::test(flavor = "multi_thread")]
async fn contexts_of_subtransactions_come_before_their_changes() {
    let mut audited = Audited::with("CREATE TABLE t (id int PRIMARY KEY)", &["--table", "public.t"]).await;
    let said = |name: &str| format!("SELECT muniment.context('{{\"user_name\": \"{name}\"}}')");
    let (outer, inner, first, second) = (said("outer"), said("inner"), said("first"), said("second"));
    let script = [
        format!("BEGIN; {outer}; SAVEPOINT a; {inner}; RELEASE a; INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); COMMIT"),
        format!("BEGIN; SAVEPOINT a; {inner}; RELEASE a; INSERT INTO t VALUES (3); INSERT INTO t VALUES (4); COMMIT"),
        format!("BEGIN; {first}; SAVEPOINT a; INSERT INTO t VALUES (5); RELEASE a; {second}; SAVEPOINT b; INSERT INTO t VALUES (6); RELEASE b; COMMIT"),
        "DO $$ BEGIN BEGIN PERFORM muniment.context('{\"user_name\": \"fn\"}'); EXCEPTION WHEN OTHERS THEN NULL; END; INSERT INTO t VALUES (7); END $$".to_owned(),
        format!("BEGIN; {first}; SAVEPOINT a; {second}; ROLLBACK TO a; INSERT INTO t SELECT generate_series(8, 9); COMMIT"),
    ];
    for statement in script {
        audited.sql(&statement).await;
    }
    audited.caught_up().await;
    let names: Vec<String> = audited
        .log("table_name = 'public.t'")
        .iter()
        .map(|record| format!("{} {}", record.key, record.user.clone().unwrap_or_default()))
        .collect();
    assert_eq!(names, ["1 inner", "2 inner", "3 inner", "4 inner", "5 first", "6 second", "7 fn", "8 first", "9 first"]);
}
