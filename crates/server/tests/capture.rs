//! Envelopes in over HTTP, and what can be asked about them afterwards: blame, transactions, undo scripts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Service;
use serde_json::json;

const DEBEZIUM: &str = "/api/v1/capture/debezium?source=shop&key=id";

fn event(op: &str, before: &str, after: &str, lsn: u32, transaction: u32) -> String {
    let source =
        format!(r#"{{"connector":"postgresql","schema":"case","table":"hoso","lsn":{lsn},"txId":{transaction},"ts_ms":1700000000000}}"#);
    format!(r#"{{"op":"{op}","before":{before},"after":{after},"source":{source}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_a_batch_and_what_comes_again() {
    let service = Service::start().await;
    let (first, second) = (event("c", "null", r#"{"id":1,"n":1.50}"#, 1, 7), event("c", "null", r#"{"id":2,"n":2}"#, 2, 7));
    let answer = service.post(DEBEZIUM, &[("content-type", "application/json")], &first).await;
    assert_eq!((answer.status, &answer.json()["records"]), (201, &json!(1)), "{}", answer.text());
    assert!(answer.json()["checkpoint"].as_str().unwrap().contains('\n'));
    let answer = service.post(DEBEZIUM, &[], format!("[{first},{second},null]")).await;
    assert_eq!(answer.status, 201);
    let receipt = answer.json();
    assert_eq!((&receipt["records"], &receipt["repeated"], &receipt["ignored"]), (&json!(1), &json!(1), &json!(1)));
    let answer = service.post(DEBEZIUM, &[], format!("{first}\n{second}\n")).await;
    assert_eq!((answer.status, &answer.json()["commit"]), (200, &json!(null)), "nothing was new");
    assert_eq!(service.count().await, 2);
    let findings = service.sql("SELECT count(*) AS n FROM security_audit_log WHERE event_type = 'UNATTRIBUTED_WRITE'").await;
    assert_eq!(findings[0]["n"], 1);

    let wal2json = r#"{"xid":9,"nextlsn":"0/9","timestamp":"2026-01-31 09:00:00+00","change":[{"kind":"insert","schema":"case","table":"hoso","columnnames":["id"],"columntypes":["integer"],"columnvalues":[3],"pk":{"pknames":["id"]}}]}"#;
    for status in [201, 200] {
        assert_eq!(service.post("/api/v1/capture/wal2json?source=shop", &[], wal2json).await.status, status);
    }
    assert_eq!(service.count().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_told_what_is_wrong() {
    let service = Service::start().await;
    let good = event("c", "null", r#"{"id":1}"#, 1, 7);
    let code = |answer: common::Answer| (answer.status, answer.json()["error"]["code"].as_str().unwrap().to_owned());
    let bad = service.post(DEBEZIUM, &[], format!("{good}\n{}", good.replace("\"after\"", "\"behind\""))).await;
    assert_eq!((bad.status, &bad.json()["errors"]), (422, &json!([{"line": 2, "field": "after", "reason": "it is missing"}])));
    assert_eq!(code(service.post("/api/v1/capture/debezium", &[], &good).await), (400, "invalid_parameter".to_owned()));
    assert_eq!(code(service.post("/api/v1/capture/debezium?source=A", &[], &good).await), (400, "invalid_parameter".to_owned()));
    assert_eq!(code(service.post("/api/v1/capture/debezium?source=a&key=:", &[], &good).await), (400, "invalid_parameter".to_owned()));
    let nameless = good.replace("\"lsn\":1,", "");
    assert_eq!(code(service.post(DEBEZIUM, &[], &nameless).await), (400, "invalid_parameter".to_owned()));
    for replayed in [None, Some("true")] {
        let answer = service.post(DEBEZIUM, &[("idempotency-key", "k")], &nameless).await;
        assert_eq!((answer.header("idempotent-replayed"), &answer.json()["records"]), (replayed, &json!(1)));
    }
    assert_eq!(code(service.post(DEBEZIUM, &[("idempotency-key", "k")], &good).await), (422, "key_reused".to_owned()));
    assert_eq!(service.count().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn blame_transaction_and_undo() {
    let service = Service::start().await;
    let batch = [
        event("c", "null", r#"{"id":1,"n":1.50,"note":"x"}"#, 1, 7),
        event("u", r#"{"id":1,"n":1.50,"note":"x"}"#, r#"{"id":1,"n":2.50,"note":"x"}"#, 2, 8),
    ];
    service.post(DEBEZIUM, &[], batch.join("\n")).await;
    let blame = service.get("/api/v1/entities/case.hoso/1/blame").await;
    assert_eq!(blame.status, 200, "{}", blame.text());
    let since = |field: usize| blame.json()["fields"][field]["since"]["id"].as_i64().unwrap();
    assert_eq!((since(0), since(1), since(2)), (1, 2, 1));
    assert!(blame.text().contains(r#""field":"n","value":2.50"#));
    assert_eq!(service.get("/api/v1/entities/case.hoso/2/blame").await.status, 404);

    let id = "shop%3A8%401700000000000000";
    let transaction = service.get(&format!("/api/v1/transactions/{id}")).await.json();
    assert_eq!((&transaction["changes"][0]["id"], &transaction["changes"][0]["table"]), (&json!(2), &json!("case.hoso")));
    assert_eq!(service.get("/api/v1/transactions/none").await.status, 404);

    let undo = service.post("/api/v1/undo", &[], r#"{"transaction":"shop:8@1700000000000000"}"#).await;
    assert_eq!(undo.status, 200, "{}", undo.text());
    assert!(undo.json()["script"].as_str().unwrap().contains(r#"UPDATE "case"."hoso" AS t SET "n" = o."n""#));
    let undo = service.post("/api/v1/undo", &[], r#"{"record":2,"dialect":"mysql"}"#).await;
    assert!(undo.json()["script"].as_str().unwrap().contains("SET `n` = 1.50"));
    let refused = service.post("/api/v1/undo", &[], r#"{"record":1}"#).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (409, &json!("undo_refused")));
    assert_eq!(refused.json()["refusals"][0]["later"], 2);
    for body in ["{}", r#"{"record":1,"transaction":"x"}"#, r#"{"user":"an"}"#, r#"{"record":1,"what":2}"#] {
        assert_eq!(service.post("/api/v1/undo", &[], body).await.status, 400, "{body}");
    }
    assert_eq!(service.post("/api/v1/undo", &[], r#"{"user":"an","from":"2026-01-01","to":"2026-02-01"}"#).await.status, 404);
}
