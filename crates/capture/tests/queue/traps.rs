//! One test for each numbered trap of capturing by triggers.

use crate::support::*;
use serde_json::json;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int)";

#[tokio::test]
async fn trap_1_values_are_those_of_the_change() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    for sql in ["INSERT INTO t VALUES (1, 0)", "UPDATE t SET v = 10", "UPDATE t SET v = 20", "UPDATE t SET v = 30", "DELETE FROM t"] {
        server.execute(DATABASE, sql).await.unwrap();
    }
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    assert_eq!(store.brief("v"), ["INSERT 1 0", "UPDATE 1 10", "UPDATE 1 20", "UPDATE 1 30", "DELETE 1 null"]);
    let old: Vec<_> = store.changes.iter().map(|change| change["old_values"]["v"].clone()).collect();
    assert_eq!(old, [json!(null), json!(0), json!(10), json!(20), json!(30)]);
}

#[tokio::test]
async fn trap_2_queue_numbers_are_not_commit_order() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    let (mut early, mut late) = (client(&server).await, client(&server).await);
    run(&mut early, "BEGIN; INSERT INTO t VALUES (1, 0)").await;
    run(&mut late, "INSERT INTO t VALUES (2, 0)").await;
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    // What is committed doesn't wait for what is running, and what commits late is not lost.
    assert_eq!(store.brief("v"), ["INSERT 2 0"]);
    run(&mut late, "INSERT INTO t VALUES (3, 0)").await;
    run(&mut early, "COMMIT").await;
    store.go_on(&mut source).await;
    let mut all = store.brief("v");
    all.sort();
    assert_eq!(all, ["INSERT 1 0", "INSERT 2 0", "INSERT 3 0"]);
}

#[tokio::test]
async fn trap_2_transaction_numbers_are_not_commit_order_either() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    run(&mut client(&server).await, "INSERT INTO t VALUES (1, 0)").await;
    let (mut low, mut high) = (client(&server).await, client(&server).await);
    run(&mut low, "BEGIN; INSERT INTO t VALUES (2, 0)").await;
    run(&mut high, "UPDATE t SET v = 1 WHERE id = 1").await;
    run(&mut low, "UPDATE t SET v = 2 WHERE id = 1; COMMIT").await;
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    assert_eq!(store.brief("v"), ["INSERT 1 0", "UPDATE 1 1", "INSERT 2 0", "UPDATE 1 2"]);
}

#[tokio::test]
async fn trap_4_context_ends_with_its_transaction() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    let mut one = client(&server).await;
    run(&mut one, r#"BEGIN; SELECT muniment.context('{"user_id": 7, "change_reason": "ticket"}'); INSERT INTO t VALUES (1, 0); COMMIT"#)
        .await;
    // On the same connection the setting is an empty text now, not absent.
    run(&mut one, "INSERT INTO t VALUES (2, 0)").await;
    run(&mut one, r#"BEGIN; SAVEPOINT s; SELECT muniment.set_context(user_id => 8); ROLLBACK TO s; INSERT INTO t VALUES (3, 0); COMMIT"#)
        .await;
    run(&mut one, r#"BEGIN; SELECT muniment.context('{"user_id": 9}'); INSERT INTO t VALUES (4, 0); ROLLBACK"#).await;
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    let who: Vec<_> = store.changes.iter().map(|change| (change["changed_by"].clone(), change["attribution"].clone())).collect();
    assert_eq!(who, [(json!(7), json!("APPLICATION")), (json!(null), json!("DATABASE")), (json!(null), json!("DATABASE"))]);
    assert_eq!(store.changes[0]["change_reason"], "ticket");
    assert_eq!((&store.changes[1]["changed_by_username"], &store.changes[1]["user_agent"]), (&json!("postgres"), &json!("client")));
    let kinds: Vec<_> = store.findings.iter().map(|finding| finding["event_type"].clone()).collect();
    assert_eq!(kinds, ["UNATTRIBUTED_WRITE", "UNATTRIBUTED_WRITE"]);
}

#[tokio::test]
async fn trap_6_truncate_cascade_names_every_table() {
    let schema = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a)";
    let (server, mut source) = attached(schema, &["a", "b"]).await;
    run(&mut client(&server).await, "INSERT INTO a VALUES (1); TRUNCATE a CASCADE").await;
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    let mut tables: Vec<_> =
        store.records[1..].iter().map(|record| format!("{} {} {}", record.operation, record.table, record.key)).collect();
    tables.sort();
    assert_eq!(tables, ["TRUNCATE public.a *", "TRUNCATE public.b *"]);
}

#[tokio::test]
async fn trap_7_partitions_are_their_root() {
    let schema = "CREATE TABLE p (id int, v int, PRIMARY KEY (id, v)) PARTITION BY RANGE (v); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)";
    let (server, mut source) = attached(schema, &["p"]).await;
    let mut one = client(&server).await;
    run(&mut one, "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)").await;
    run(&mut one, "INSERT INTO p VALUES (1, 5); UPDATE p SET v = 15; INSERT INTO p2 VALUES (2, 11)").await;
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    let rows: Vec<_> =
        store.records.iter().filter(|record| record.operation != "DDL").map(|r| format!("{} {} {}", r.table, r.operation, r.key)).collect();
    let expected =
        [r#"public.p INSERT ["1","5"]"#, r#"public.p DELETE ["1","5"]"#, r#"public.p INSERT ["1","15"]"#, r#"public.p INSERT ["2","11"]"#];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn trap_9_bypassed_triggers_are_found() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    let mut one = client(&server).await;
    // The triggers fire in this role, too.
    run(&mut one, "SET session_replication_role = replica; INSERT INTO t VALUES (1, 0); SET session_replication_role = origin").await;
    run(&mut one, "ALTER TABLE t ALTER v TYPE bigint").await;
    run(&mut one, "ALTER TABLE t DISABLE TRIGGER USER").await;
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    assert_eq!(store.brief("v")[0], "INSERT 1 0");
    let found: Vec<_> = store
        .findings
        .iter()
        .filter(|finding| finding["event_type"] == "CAPTURE_BYPASSED")
        .map(|finding| finding["failure_reason"].as_str().unwrap())
        .collect();
    assert!(found.iter().any(|reason| reason.contains("disabled")), "{found:?}");
    assert!(found.iter().any(|reason| reason.contains("rewrote")), "{found:?}");
    assert_eq!(store.changes.iter().filter(|change| change["operation"] == "DDL").count(), 2);
}

#[tokio::test]
async fn trap_11_changed_keys_are_paired() {
    let (server, mut source) = attached(TABLE, &["t"]).await;
    run(&mut client(&server).await, "INSERT INTO t VALUES (1, 10), (2, 20); UPDATE t SET id = id + 100").await;
    let mut store = Store::default();
    store.catch_up(&mut source).await;
    let expected = ["INSERT 1 10", "INSERT 2 20", "DELETE 1 null", "DELETE 2 null", "INSERT 101 10", "INSERT 102 20"];
    assert_eq!(store.brief("v"), expected);
    assert_eq!(store.changes[4]["change_details"], "key changed from 1; changed: id");
}
