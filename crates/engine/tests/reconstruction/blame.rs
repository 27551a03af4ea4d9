//! Who gave each field its value, and what a transaction did.

use crate::{Log, record};
use muniment_engine::history::{blame, parse_time, transaction};
use serde_json::{Value, json};

fn by(user: &str, minute: u32) -> Value {
    json!({
        "changed_by_username": user, "changed_at": format!("2026-01-01T00:{minute:02}:00Z"), "change_reason": format!("reason {minute}"),
        "session_id": "s", "workflow_instance_id": "w", "transaction_id": format!("pg:{minute}@0/1"), "attribution": "APPLICATION",
    })
}

async fn authors(log: &Log, key: &str, minute: u32) -> Vec<(String, String, Option<String>)> {
    let time = parse_time(&format!("2026-01-01T00:{minute:02}:30Z")).unwrap();
    let found = blame(&log.query, "case.hoso", key, time).await.unwrap().unwrap();
    let author = |field: muniment_engine::history::FieldBlame| {
        (field.field, field.value.get().to_owned(), field.since.map(|author| author.changed_by_username.unwrap_or_default()))
    };
    found.fields.into_iter().map(author).collect()
}

fn field(name: &str, value: &str, user: Option<&str>) -> (String, String, Option<String>) {
    (name.to_owned(), value.to_owned(), user.map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_has_the_change_that_gave_it_its_value() {
    let log = Log::new().await;
    log.send(&[
        record("INSERT", "1", Value::Null, json!({"a": 1, "b": 1, "c": "x"}), by("an", 0)),
        record("UPDATE", "1", json!({"a": 1, "b": 1, "c": "x"}), json!({"a": 1, "b": 2, "c": "x"}), by("binh", 1)),
        record("UPDATE", "1", json!({"c": "x"}), json!({"c": "y"}), by("chi", 2)),
        record("UPDATE", "1", json!({"b": 2}), json!({"b": 3, "a": {"$unchanged": true}}), by("dung", 3)),
    ])
    .await;
    log.send(&[record("SNAPSHOT", "1", Value::Null, json!({"a": 1, "b": 3, "c": "z"}), by("", 4))]).await;
    assert_eq!(authors(&log, "1", 1).await, [field("a", "1", Some("an")), field("b", "2", Some("binh")), field("c", "\"x\"", Some("an"))]);
    let last = [field("a", "1", Some("an")), field("b", "3", Some("dung")), field("c", "\"y\"", Some("chi"))];
    assert_eq!(authors(&log, "1", 3).await.iter().collect::<std::collections::BTreeSet<_>>(), last.iter().collect());
    let found = blame(&log.query, "case.hoso", "1", i64::MAX).await.unwrap().unwrap();
    let c = found.fields.iter().find(|field| field.field == "c").unwrap().since.as_ref().unwrap();
    assert_eq!(c.operation, "SNAPSHOT", "nobody is blamed for what a baseline found");
    let b = found.fields.iter().find(|field| field.field == "b").unwrap().since.as_ref().unwrap();
    assert_eq!(
        (b.id, b.change_reason.as_deref(), b.session_id.as_deref(), b.workflow_instance_id.as_deref(), b.transaction_id.as_deref()),
        (4, Some("reason 3"), Some("s"), Some("w"), Some("pg:3@0/1"))
    );
    log.flush().await;
    log.send(&[record("DELETE", "1", json!({"a": 1}), Value::Null, by("em", 5))]).await;
    let gone = blame(&log.query, "case.hoso", "1", i64::MAX).await.unwrap().unwrap();
    assert!(!gone.exists && gone.fields.is_empty() && gone.last.changed_by_username.as_deref() == Some("em"));
    assert!(blame(&log.query, "case.hoso", "2", i64::MAX).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_older_than_the_log_has_no_author() {
    let log = Log::new().await;
    log.send(&[record("UPDATE", "1", json!({"a": 1, "b": 1}), json!({"a": 2, "b": 1}), by("an", 0))]).await;
    assert_eq!(authors(&log, "1", 1).await, [field("a", "2", Some("an")), field("b", "1", None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_whole_and_in_order_over_all_retention_classes() {
    let log = Log::new().await;
    let of = |years: u32| json!({"transaction_id": "pg:7@0/9", "retention_years": years});
    let changes: Vec<String> =
        (0..50).map(|key| record("INSERT", &key.to_string(), Value::Null, json!({"id": key}), of([3, 7, 10][key % 3]))).collect();
    log.send(&changes[..20]).await;
    log.flush().await;
    log.send(&[record("INSERT", "x", Value::Null, json!({}), json!({"transaction_id": "pg:8@0/9"}))]).await;
    log.send(&changes[20..]).await;
    let found = transaction(&log.query, "pg:7@0/9", 100).await.unwrap().unwrap();
    let keys: Vec<usize> = found.changes.iter().map(|change| change.primary_key.parse().unwrap()).collect();
    assert_eq!(keys, (0..50).collect::<Vec<_>>());
    assert!(!found.truncated && found.changes[0].table == "case.hoso");
    let found = transaction(&log.query, "pg:7@0/9", 10).await.unwrap().unwrap();
    assert!(found.truncated && found.changes.len() == 10);
    assert!(transaction(&log.query, "pg:9@0/9", 10).await.unwrap().is_none());
}
