//! What can't be taken back, and why.

use crate::{Log, record};
use muniment_engine::history::{Dialect, Selection, parse_time};
use serde_json::{Value, json};

fn at(user: &str, minute: u32) -> Value {
    json!({"changed_by_username": user, "changed_at": format!("2026-01-01T00:{minute:02}:00Z")})
}

/// The reason why the record with this id is refused, alone; with the later record, if one is the reason.
async fn refused(log: &Log, id: i64) -> (String, Option<i64>) {
    let undo = log.undo(&Selection::Record(id), Dialect::Postgresql).await.unwrap();
    assert!(undo.script.is_none(), "{undo:?}");
    let [refusal] = undo.refusals.as_slice() else { panic!("{undo:?}") };
    assert_eq!(refusal.record, id);
    (refusal.reason.clone(), refusal.later)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_change_is_named() {
    let log = Log::new().await;
    let row = |n: i64| json!({"id": 1, "n": n});
    let first = log
        .send(&[
            record("INSERT", "1", Value::Null, row(1), at("an", 0)),
            record("UPDATE", "1", row(1), row(2), at("an", 1)),
            record("DELETE", "1", row(2), Value::Null, at("an", 2)),
            record("INSERT", "1", Value::Null, row(3), at("an", 3)),
            record("SNAPSHOT", "1", Value::Null, row(3), at("an", 4)),
        ])
        .await;
    assert_eq!(refused(&log, first).await, (format!("the row was changed again by the later record {}", first + 1), Some(first + 1)));
    assert_eq!(refused(&log, first + 1).await, (format!("the row was deleted by the later record {}", first + 2), Some(first + 2)));
    assert_eq!(refused(&log, first + 2).await, (format!("its key was used again by the later record {}", first + 3), Some(first + 3)));
    let undo = log.undo(&Selection::Record(first + 3), Dialect::Postgresql).await.unwrap();
    assert_eq!(undo.statements, 1, "a baseline that found the row as it was is no change");
    assert_eq!(refused(&log, first + 4).await.0, "it says that the row was there, and changed nothing");
    log.send(&[record("SNAPSHOT", "1", Value::Null, row(4), at("", 5))]).await;
    assert!(refused(&log, first + 3).await.0.starts_with("the row was found to be another"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_emptied_or_altered() {
    for (operation, reason) in [("TRUNCATE", "its table was emptied"), ("DDL", "its table was altered")] {
        let log = Log::new().await;
        let first = log
            .send(&[
                record("INSERT", "1", Value::Null, json!({"id": 1}), at("an", 0)),
                record(operation, "*", Value::Null, Value::Null, at("an", 1)),
                record("INSERT", "2", Value::Null, json!({"id": 2}), at("an", 2)),
            ])
            .await;
        assert_eq!(refused(&log, first).await, (format!("{reason} by the later record {}", first + 1), Some(first + 1)));
        assert!(refused(&log, first + 1).await.1.is_none());
        assert!(log.undo(&Selection::Record(first + 2), Dialect::Postgresql).await.unwrap().script.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_does_not_have() {
    let log = Log::new().await;
    let omitted = json!({"$omitted": {"bytes": 1, "sha256": "00"}});
    let cases = [
        ("UPDATE", json!({"id": 1, "pin": "***"}), json!({"id": 1, "pin": "***", "n": 1}), "the value of n before it is not known"),
        ("DELETE", json!({"id": 1, "pin": "***"}), Value::Null, "pin of the deleted row is masked, or was not kept or not sent"),
        ("DELETE", json!({"id": 1, "big": omitted}), Value::Null, "big of the deleted row is masked, or was not kept or not sent"),
        ("DELETE", json!({"id": 1}), Value::Null, "only the key of the row that it deleted is known"),
        ("UPDATE", Value::Null, json!({"id": 1}), "the row before it is not known"),
        ("UPDATE", json!({"n": 1}), json!({"n": 2}), "its key is not among the row's columns; say which columns make the key"),
        (
            "INSERT",
            Value::Null,
            json!({"a.b": {"$omitted": 1}, "n": 2}),
            "its key is not among the row's columns; say which columns make the key",
        ),
    ];
    for (number, (operation, old, new, reason)) in cases.into_iter().enumerate() {
        let key = if old.get("id").or(new.get("id")).is_some() { "1".to_owned() } else { format!("k{number}") };
        let log = if key == "1" { &Log::new().await } else { &log };
        let id = log.send(&[record(operation, &key, old, new, at("an", 0))]).await;
        assert_eq!(refused(log, id).await.0, reason);
    }
    let update = record("UPDATE", "7", json!({"id": 7, "pin": "***"}), json!({"id": 7, "pin": "***"}), at("an", 0));
    let id = log.send(&[update.replacen('{', r#"{"change_details":"changed: pin (masked)","#, 1)]).await;
    assert_eq!(refused(&log, id).await.0, "it changed a masked column, of which the log has no value");
    let id = log.send(&[record("UPDATE", "k9", json!({"n": 1}), json!({"n": 2}), at("an", 0))]).await;
    let undo = log.undo_with(&Selection::Record(id), Dialect::Sqlite, "case.hoso:id").await.unwrap();
    assert!(undo.script.unwrap().contains(r#"WHERE "id" IS 'k9' AND "n" IS 2"#), "the key's column was named");
    let id = log.send(&[record("INSERT", "5", Value::Null, json!({"id": 5}), at("an", 0)).replace("case.hoso", "a.b.c")]).await;
    assert_eq!(refused(&log, id).await.0, "`a.b.c` could be several tables");
}

/// Keys that stand for a whole table elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_empty_or_a_star() {
    for key in ["", "*"] {
        let log = Log::new().await;
        let row = |n: i64| json!({"id": key, "n": n});
        let first = log
            .send(&[
                record("INSERT", key, Value::Null, row(1), at("an", 0)),
                record("INSERT", "x", Value::Null, json!({"id": "x"}), at("an", 1)),
                record("UPDATE", key, row(1), row(2), at("an", 2)),
            ])
            .await;
        assert_eq!(refused(&log, first).await.1, Some(first + 2), "{key:?}");
        let undo = log.undo(&Selection::Record(first + 2), Dialect::Sqlite).await.unwrap();
        assert!(undo.script.unwrap().contains(r#"SET "n" = 1"#), "{key:?}");
        log.send(&[record("TRUNCATE", "", Value::Null, Value::Null, at("an", 3))]).await;
        assert_eq!(refused(&log, first + 2).await.0, format!("its table was emptied by the later record {}", first + 3));
        assert_eq!(refused(&log, first + 1).await.0, format!("its table was emptied by the later record {}", first + 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_by_a_user_in_a_window() {
    let log = Log::new().await;
    let row = |id: i64, n: i64| json!({"id": id, "n": n});
    log.send(&[
        record("INSERT", "1", Value::Null, row(1, 0), at("an", 0)),
        record("INSERT", "2", Value::Null, row(2, 0), at("an", 1)),
        record("UPDATE", "1", row(1, 0), row(1, 1), at("an", 2)),
        record("UPDATE", "2", row(2, 0), row(2, 1), at("binh", 3)),
        record("UPDATE", "1", row(1, 1), row(1, 1), at("an", 4)),
    ])
    .await;
    let window = |from: u32, to: u32| {
        let time = |minute: u32| parse_time(&format!("2026-01-01T00:{minute:02}:00Z")).unwrap();
        Selection::User { name: Some("an".to_owned()), id: None, from: time(from), to: time(to) }
    };
    let undo = log.undo(&window(2, 9), Dialect::Postgresql).await.unwrap();
    assert_eq!((undo.records, undo.statements, undo.refusals.len()), (2, 1, 0), "a change of nothing needs no statement");
    let undo = log.undo(&window(0, 9), Dialect::Postgresql).await.unwrap();
    assert_eq!((undo.records, undo.refusals[0].record, undo.refusals[0].later), (4, 2, Some(4)));
    assert!(undo.script.is_none());
    assert!(log.undo(&window(5, 9), Dialect::Postgresql).await.is_none());
    assert!(log.undo(&Selection::Record(99), Dialect::Postgresql).await.is_none());
}
