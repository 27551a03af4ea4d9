//! The ways in which capture by replication can go wrong, one test each, numbered as in `docs/capture.md`.

use crate::support::*;
use serde_json::{Value, json};
use std::collections::HashSet;

#[tokio::test]
async fn trap_1_values_are_those_of_their_time() {
    let server =
        server("CREATE TABLE t (id int PRIMARY KEY, n int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 0)").await;
    let mut store = Store::open(config(&server)).await;
    for n in [10, 20, 30] {
        server.execute(DATABASE, &format!("UPDATE t SET n = {n}")).await.unwrap();
    }
    server.execute(DATABASE, "DELETE FROM t").await.unwrap();
    store.catch_up(&server).await;
    let values: Vec<(&Value, &Value)> =
        store.changes.iter().map(|change| (&change["old_values"]["n"], &change["new_values"]["n"])).collect();
    assert_eq!(values, [(&json!(0), &json!(10)), (&json!(10), &json!(20)), (&json!(20), &json!(30)), (&json!(30), &Value::Null)]);
}

#[tokio::test]
async fn trap_2_transactions_come_in_commit_order() {
    let server = server("CREATE TABLE t (id serial PRIMARY KEY, who text)").await;
    let mut store = Store::open(config(&server)).await;
    let (mut early, mut late) = (client(&server, "a").await, client(&server, "b").await);
    run(&mut early, "BEGIN; INSERT INTO t (who) VALUES ('takes id 1, commits last')").await;
    run(&mut late, "INSERT INTO t (who) VALUES ('takes id 2, commits first')").await;
    store.catch_up(&server).await;
    run(&mut early, "COMMIT").await;
    store.catch_up(&server).await;
    let keys: Vec<&Value> = store.changes.iter().map(|change| &change["primary_key"]).collect();
    assert_eq!(keys, ["2", "1"]);
}

#[tokio::test]
async fn trap_3_an_unchanged_large_value_is_taken_from_the_old_row() {
    let server = server(
        "CREATE TABLE t (id int PRIMARY KEY, n int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
         CREATE TABLE k (id int PRIMARY KEY, n int, big text); ALTER TABLE k ALTER big SET STORAGE EXTERNAL;
         INSERT INTO t VALUES (1, 1, repeat('y', 9000)); INSERT INTO k SELECT * FROM t",
    )
    .await;
    let mut store = Store::open(config(&server)).await;
    server.execute(DATABASE, "UPDATE t SET n = 2; UPDATE t SET id = 5; UPDATE k SET n = 2; UPDATE k SET id = 5").await.unwrap();
    store.catch_up(&server).await;
    let [update, gone, came, unknown, key_gone, key_came] = &store.changes[..] else { panic!("{:?}", store.summaries()) };
    let big = json!("y".repeat(9000));
    assert_eq!((&update["old_values"]["big"], &update["new_values"]["big"]), (&big, &big));
    assert_eq!(update["change_details"], "changed: n");
    assert_eq!((&gone["old_values"]["big"], &came["new_values"]["big"]), (&big, &big));
    // With the key as replica identity nobody sends it: the log itself has it.
    assert_eq!(unknown["new_values"], json!({"id": 1, "n": 2, "big": {"$unchanged": true}}));
    assert_eq!((&key_gone["operation"], &key_gone["old_values"]), (&json!("DELETE"), &json!({"id": 1})));
    assert_eq!((&key_came["operation"], &key_came["new_values"]["big"]), (&json!("INSERT"), &json!({"$unchanged": true})));
}

#[tokio::test]
async fn trap_4_only_messages_of_the_transaction_count() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut store = Store::open(config(&server)).await;
    let message = |transactional: bool, user: u32| {
        format!("SELECT pg_logical_emit_message({transactional}, 'muniment.context', '{{\"user_id\":{user}}}')")
    };
    let mut client = client(&server, "a").await;
    run(&mut client, &format!("BEGIN; {}; INSERT INTO t VALUES (1); ROLLBACK", message(true, 1))).await;
    run(&mut client, &format!("BEGIN; {}; INSERT INTO t VALUES (2); ROLLBACK", message(false, 2))).await;
    run(&mut client, "INSERT INTO t VALUES (3)").await;
    run(
        &mut client,
        &format!("BEGIN; SAVEPOINT s; {}; INSERT INTO t VALUES (4); ROLLBACK TO s; INSERT INTO t VALUES (5); COMMIT", message(true, 4)),
    )
    .await;
    run(&mut client, &format!("BEGIN; {}; INSERT INTO t VALUES (6); COMMIT", message(true, 6))).await;
    run(&mut client, "BEGIN; SELECT pg_logical_emit_message(true, 'muniment.context', ''); INSERT INTO t VALUES (7); COMMIT").await;
    store.catch_up(&server).await;
    let named: Vec<(&Value, &Value)> = store.changes.iter().map(|change| (&change["primary_key"], &change["changed_by"])).collect();
    let nobody = &Value::Null;
    assert_eq!(named, [(&json!("3"), nobody), (&json!("5"), nobody), (&json!("6"), &json!(6)), (&json!("7"), nobody)]);
    assert!(store.changes.iter().all(|change| (change["attribution"] == "APPLICATION") == (change["primary_key"] == "6")));
}

#[tokio::test]
async fn trap_5_rows_of_one_copy_have_positions_of_their_own() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut store = Store::open(config(&server)).await;
    let mut client = client(&server, "a").await;
    let mut copy = client.copy_in_raw("COPY t FROM STDIN").await.unwrap();
    let rows: String = (0..5000).map(|n| format!("{n}\n")).collect();
    copy.send(rows.into_bytes()).await.unwrap();
    copy.finish().await.unwrap();
    store.catch_up(&server).await;
    let positions: HashSet<String> = store.changes.iter().map(|change| change["source_position"].to_string()).collect();
    assert_eq!((store.changes.len(), positions.len()), (5000, 5000));
}

#[tokio::test]
async fn trap_6_truncate_of_several_tables() {
    let server =
        server("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY REFERENCES a); INSERT INTO a VALUES (1)").await;
    let mut store = Store::open(config(&server)).await;
    server.execute(DATABASE, "TRUNCATE a CASCADE").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(store.summaries(), ["TRUNCATE public.a * - - CASCADE", "TRUNCATE public.b * - - CASCADE"]);
    assert_ne!(store.changes[0]["source_position"], store.changes[1]["source_position"]);
}

#[tokio::test]
async fn trap_7_partitions_are_their_root() {
    let server = server(
        "CREATE TABLE p (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
         ALTER TABLE p REPLICA IDENTITY FULL; ALTER TABLE p1 REPLICA IDENTITY FULL; ALTER TABLE p2 REPLICA IDENTITY FULL",
    )
    .await;
    let mut store = Store::open(config(&server)).await;
    server
        .execute(DATABASE, "INSERT INTO p1 VALUES (1, 1, 'a'); UPDATE p SET v = 'b'; UPDATE p SET part = 2; DELETE FROM p2")
        .await
        .unwrap();
    store.catch_up(&server).await;
    assert_eq!(
        store.summaries(),
        [
            r#"INSERT public.p ["1","1"] - {"id":1,"part":1,"v":"a"} -"#,
            r#"UPDATE public.p ["1","1"] {"id":1,"part":1,"v":"a"} {"id":1,"part":1,"v":"b"} changed: v"#,
            r#"DELETE public.p ["1","1"] {"id":1,"part":1,"v":"b"} - -"#,
            r#"INSERT public.p ["1","2"] - {"id":1,"part":2,"v":"b"} -"#,
            r#"DELETE public.p ["1","2"] {"id":1,"part":2,"v":"b"} - -"#,
        ]
    );
}

#[tokio::test]
async fn trap_8_generated_columns_are_not_in_the_stream() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)").await;
    let mut store = Store::open(config(&server)).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (1)").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(store.changes[0]["new_values"], json!({"id": 1}));
}

#[tokio::test]
async fn trap_9_triggers_do_not_matter() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut store = Store::open(config(&server)).await;
    server
        .execute(DATABASE, "SET session_replication_role = replica; ALTER TABLE t DISABLE TRIGGER ALL; INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    store.catch_up(&server).await;
    assert_eq!(store.changes.len(), 1);
}

#[tokio::test]
async fn trap_11_a_changed_key_can_be_followed_both_ways() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY, v int); ALTER TABLE t REPLICA IDENTITY FULL").await;
    let mut store = Store::open(config(&server)).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (1, 1), (2, 2); UPDATE t SET id = id + 10, v = v + 1 WHERE id = 2").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(
        store.summaries()[2..],
        [
            r#"DELETE public.t 2 {"id":2,"v":2} - key changed to 12"#,
            r#"INSERT public.t 12 - {"id":12,"v":3} key changed from 2; changed: id, v"#,
        ]
    );
    assert_eq!(store.changes[2]["transaction_id"], store.changes[3]["transaction_id"]);
}

/// The old keys go before the new ones come, and each row has the context in which it was changed.
#[tokio::test]
async fn trap_11_keys_that_are_passed_on_in_one_statement() {
    let server =
        server("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v text); ALTER TABLE t REPLICA IDENTITY FULL; CREATE TABLE u (id int)")
            .await;
    let mut store = Store::open(config(&server)).await;
    let context = |user: i32| format!("SELECT pg_logical_emit_message(true, 'muniment.context', '{{\"user_id\":{user}}}')");
    let sql = format!(
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'); {}; UPDATE t SET id = id + 1; {}; UPDATE t SET id = 5 - id; INSERT INTO u VALUES (1); UPDATE t SET id = 9 WHERE id = 2",
        context(1),
        context(2)
    );
    server.execute(DATABASE, &sql).await.unwrap();
    store.catch_up(&server).await;
    let told = |change: &serde_json::Value| {
        format!("{} {} {}", change["operation"].as_str().unwrap(), change["primary_key"].as_str().unwrap(), change["changed_by"])
    };
    let story: Vec<String> = store.changes.iter().map(told).collect();
    assert_eq!(
        story,
        [
            "INSERT 1 null",
            "INSERT 2 null",
            "DELETE 1 1",
            "DELETE 2 1",
            "INSERT 2 1",
            "INSERT 3 1",
            "DELETE 2 2",
            "DELETE 3 2",
            "INSERT 3 2",
            "INSERT 2 2",
            "INSERT 1 2",
            "DELETE 2 2",
            "INSERT 9 2"
        ]
    );
}

#[tokio::test]
async fn trap_12_a_slot_that_lost_its_wal_is_a_gap() {
    let options = muniment_testkit::PostgresOptions::default()
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("wal_keep_size", "0")
        .setting("max_wal_size", "32MB")
        .setting("min_wal_size", "32MB");
    let server = server_with(&options, "CREATE TABLE t (id serial PRIMARY KEY, v text)").await;
    let mut store = Store::open(config(&server)).await;
    server.execute(DATABASE, "INSERT INTO t (v) VALUES ('kept')").await.unwrap();
    store.catch_up(&server).await;
    let position = store.position.clone();
    drop(std::mem::replace(&mut store.source, Store::new(config(&server)).source));
    for _ in 0..20 {
        server.execute(DATABASE, "INSERT INTO t (v) SELECT repeat('x', 500) FROM generate_series(1, 10000)").await.unwrap();
        server.execute(DATABASE, "SELECT pg_switch_wal()").await.unwrap();
        server.execute(DATABASE, "CHECKPOINT").await.unwrap();
        if ask(&server, "SELECT wal_status FROM pg_replication_slots").await == "lost" {
            break;
        }
    }
    assert_eq!(ask(&server, "SELECT wal_status FROM pg_replication_slots").await, "lost");
    let mut strict = config(&server);
    strict.recreate_slot = false;
    store.source = muniment_capture::postgres::ReplicationSource::new(strict).unwrap();
    assert!(muniment_capture::Source::start(&mut store.source, position.as_deref()).await.is_err());
    store.reopen(config(&server)).await;
    server.execute(DATABASE, "INSERT INTO t (v) VALUES ('after')").await.unwrap();
    store.catch_up(&server).await;
    assert!(store.findings.iter().any(|finding| finding["event_type"] == "CAPTURE_GAP" && finding["severity"] == 4));
    assert_eq!(store.changes.last().unwrap()["new_values"]["v"], "after");
    assert!(store.source.baseline_need().gap.is_some());
}

#[tokio::test]
async fn trap_13_a_slot_created_anew_or_read_by_others_is_a_gap() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut store = Store::open(config(&server)).await;
    let gaps = |store: &Store| store.findings.iter().filter(|finding| finding["event_type"] == "CAPTURE_GAP").count();
    for (n, sql) in [
        (1, "SELECT pg_drop_replication_slot('s')"),
        (2, "SELECT pg_drop_replication_slot('s'); SELECT pg_create_logical_replication_slot('s', 'pgoutput')"),
        (3, "SELECT pg_replication_slot_advance('s', pg_current_wal_lsn())"),
    ] {
        store.catch_up(&server).await;
        assert_eq!(gaps(&store), n - 1);
        drop(std::mem::replace(&mut store.source, Store::new(config(&server)).source));
        while ask(&server, "SELECT active::text FROM pg_replication_slots").await == "true" {}
        server.execute(DATABASE, &format!("INSERT INTO t VALUES ({n})")).await.unwrap();
        for statement in sql.split(';') {
            server.execute(DATABASE, statement).await.unwrap();
        }
        store.reopen(config(&server)).await;
        assert!(store.source.baseline_need().gap.is_some());
    }
    store.catch_up(&server).await;
    assert_eq!(gaps(&store), 3);
    // Going on from there finds no further gap.
    store.reopen(config(&server)).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (7)").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!((gaps(&store), store.changes.len()), (3, 1));
    assert!(store.source.baseline_need().gap.is_none());

    let mut other = config(&server);
    other.system_id = Some("1".into());
    store.reopen(other).await;
    store.catch_up(&server).await;
    assert_eq!(gaps(&store), 4);
}
