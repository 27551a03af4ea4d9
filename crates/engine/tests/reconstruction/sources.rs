//! Two databases with a table of the same name.

use super::{Log, record};
use bytes::Bytes;
use muniment_engine::history::{
    Dialect, HistoryOptions, Selection, Table, TableAtOptions, UndoOptions, blame, entity_at, entity_history, table_at, undo,
};
use muniment_engine::{EngineError, IngestRequest, KeyHints, SourcePosition};
use muniment_model::Format;
use serde_json::json;

/// Stores records as a source does.
async fn send(log: &Log, source: &str, records: &[String]) -> i64 {
    let body = Bytes::from(records.join("\n"));
    let position = SourcePosition { source: format!("capture:{source}"), value: "1".into(), after: Some(String::new()) };
    let request = IngestRequest { log: "sys_audit_log", body, format: Format::Ndjson, idempotency_key: None, position: Some(position) };
    log.engine.ingest(request).await.unwrap().ids.unwrap().first
}

fn of(source: &'static str) -> Table<'static> {
    Table { name: "case.hoso", source: Some(source) }
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, EngineError>) -> String {
    match outcome {
        Err(EngineError::Parameter { name: "source", reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tables_of_one_name_are_told_apart() {
    let log = Log::new().await;
    let who = |source: &str, number: u32| {
        json!({ "source_position": format!("{source}:0/{number}"), "transaction_id": format!("{source}:{number}"), "changed_by_username": "lan",
            "changed_at": "2026-01-31T09:00:00Z" })
    };
    let first = [record("INSERT", "1", json!(null), json!({ "id": 1, "state": "open" }), who("pg:a", 1))];
    let inserted = send(&log, "pg:a", &first).await;
    let alone = entity_history(&log.query, "case.hoso", "1", HistoryOptions::default()).await.unwrap();
    assert_eq!(alone.len(), 1);
    // One name is the beginning of the other.
    let second = [
        record("INSERT", "1", json!(null), json!({ "id": 1, "state": "other" }), who("pg:a:b", 1)),
        record("INSERT", "2", json!(null), json!({ "id": 2, "state": "other" }), who("pg:a:b", 2)),
    ];
    send(&log, "pg:a:b", &second).await;
    log.flush().await;

    let all = HistoryOptions::default();
    let reason = refused(entity_history(&log.query, "case.hoso", "1", all).await);
    assert_eq!(reason, "case.hoso is of several sources; name one of pg:a, pg:a:b");
    assert_eq!(refused(entity_at(&log.query, "case.hoso", "1", i64::MAX).await), reason);
    assert_eq!(refused(blame(&log.query, "case.hoso", "1", i64::MAX).await.map(drop)), reason);
    assert_eq!(refused(table_at(&log.query, "case.hoso", i64::MAX, &TableAtOptions::default()).await), reason);

    assert_eq!(entity_history(&log.query, of("pg:a"), "1", all).await.unwrap().len(), 1);
    for (source, state) in [("pg:a", "open"), ("pg:a:b", "other")] {
        let row = entity_at(&log.query, of(source), "1", i64::MAX).await.unwrap().unwrap();
        assert!(row.document.get().contains(state), "{row:?}");
        let blamed = blame(&log.query, of(source), "1", i64::MAX).await.unwrap().unwrap();
        assert!(blamed.fields.iter().any(|field| field.value.get().contains(state)));
    }
    for (source, rows) in [("pg:a", 1), ("pg:a:b", 2)] {
        assert_eq!(table_at(&log.query, of(source), i64::MAX, &TableAtOptions::default()).await.unwrap().rows.len(), rows, "{source}");
    }

    // The later INSERT of the other database is no reason against taking back that of the first.
    let options = |source: Option<&str>| UndoOptions {
        dialect: Dialect::Postgresql,
        keys: KeyHints::parse("id").unwrap(),
        source: source.map(ToOwned::to_owned),
    };
    let script = undo(&log.query, &Selection::Record(inserted), &options(None)).await.unwrap().unwrap();
    assert_eq!((script.statements, script.refusals.len()), (1, 0), "{script:?}");
    let window = Selection::User { name: Some("lan".into()), id: None, from: 0, to: i64::MAX };
    assert_eq!(refused(undo(&log.query, &window, &options(None)).await), "the selection is of several sources; name one of pg:a, pg:a:b");
    let script = undo(&log.query, &window, &options(Some("pg:a:b"))).await.unwrap().unwrap();
    assert_eq!((script.statements, script.refusals.len()), (2, 0), "{script:?}");
}
