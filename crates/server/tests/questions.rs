//! Questions over HTTP: SQL in four forms, its limits and refusals, and the history of entities.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{LOG, Service, event};
use serde_json::{Value, json};

const SQL: &str = "/api/v1/sql";
const TWO: &str = "SELECT id, primary_key, session_id FROM sys_audit_log ORDER BY id";

async fn with_records(count: usize) -> Service {
    let service = Service::start().await;
    let body: String = (1..=count).map(|key| event(key) + "\n").collect();
    assert_eq!(service.post(LOG, &[], body).await.status, 201);
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_four_forms() {
    let service = with_records(2).await;
    let json = json!([{ "id": 1, "primary_key": "1", "session_id": null }, { "id": 2, "primary_key": "2", "session_id": null }]);
    let lines = "{\"id\":1,\"primary_key\":\"1\",\"session_id\":null}\n{\"id\":2,\"primary_key\":\"2\",\"session_id\":null}\n";
    let body = json!({ "query": TWO }).to_string();
    for accept in
        ["application/json", "*/*", "application/*;q=0.5", "image/png, application/json;q=0.1", "text/csv;q=0.1, application/json"]
    {
        let answer = service.post(SQL, &[("accept", accept)], &body).await;
        assert_eq!(answer.header("content-type"), Some("application/json"), "{accept}");
        assert_eq!(answer.json(), json);
    }
    assert_eq!(service.post(SQL, &[], &body).await.json(), json, "JSON if nothing is asked for");

    let answer = service.post(SQL, &[("accept", "application/x-ndjson")], &body).await;
    assert_eq!((answer.header("content-type"), answer.text().as_str()), (Some("application/x-ndjson"), lines));

    let answer = service.post(SQL, &[("accept", "text/csv")], &body).await;
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(answer.text(), "id,primary_key,session_id\n1,1,\n2,2,\n");

    let answer = service.post(SQL, &[("accept", "application/vnd.apache.arrow.stream")], &body).await;
    assert_eq!(answer.header("content-type"), Some("application/vnd.apache.arrow.stream"));
    let reader = arrow_ipc::reader::StreamReader::try_new(answer.body.as_slice(), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);

    let answer = service.post(SQL, &[("accept", "image/png")], &body).await;
    assert_eq!(answer.refusal(), (406, "not_acceptable".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_nothing_in_four_forms() {
    let service = with_records(1).await;
    let body = json!({ "query": "SELECT id FROM sys_audit_log WHERE id > 5" }).to_string();
    for (accept, expected) in [("application/json", "[]"), ("application/x-ndjson", ""), ("text/csv", "id\n")] {
        assert_eq!(service.post(SQL, &[("accept", accept)], &body).await.text(), expected, "{accept}");
    }
    let answer = service.post(SQL, &[("accept", "application/vnd.apache.arrow.stream")], &body).await;
    let reader = arrow_ipc::reader::StreamReader::try_new(answer.body.as_slice(), None).unwrap();
    assert_eq!(reader.schema().field(0).name(), "id");
}

#[tokio::test(flavor = "multi_thread")]
async fn binds_parameters() {
    let service = with_records(3).await;
    let query = "SELECT id FROM sys_audit_log WHERE primary_key = $1 OR id = $2 ORDER BY id";
    let expected = json!([{ "id": 2 }, { "id": 3 }]);
    let body = json!({ "query": query, "parameters": ["2", 3] }).to_string();
    assert_eq!(service.post(SQL, &[], body).await.json(), expected);
    let escaped = query.replace(' ', "+").replace('=', "%3D").replace('$', "%24");
    let answer = service.get(&format!("{SQL}?q={escaped}&parameters=%5B%222%22,3%5D")).await;
    assert_eq!(answer.json(), expected);
    let injected = json!({ "query": query, "parameters": ["2' OR '1'='1", 0] }).to_string();
    assert_eq!(service.post(SQL, &[], injected).await.json(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_what_it_can_not_answer() {
    let service = with_records(1).await;
    for (query, code) in [
        ("SELECT nothing FROM sys_audit_log", "invalid_query"),
        ("SELECT * FROM nowhere", "invalid_query"),
        ("SELECT 1/0 FROM sys_audit_log", "invalid_query"),
        ("SELECT CAST(primary_key || 'x' AS bigint) FROM sys_audit_log", "invalid_query"),
    ] {
        let answer = service.post(SQL, &[], json!({ "query": query }).to_string()).await;
        assert_eq!(answer.refusal(), (400, code.to_owned()), "{query}: {}", answer.text());
    }
    for query in ["SELEC 1", "", "DELETE FROM sys_audit_log", "SELECT 1; SELECT 2", "CREATE TABLE t (a int)", "SET a = 1"] {
        let answer = service.post(SQL, &[], json!({ "query": query }).to_string()).await;
        assert_eq!(answer.refusal().0, 400, "{query}: {}", answer.text());
    }
    for body in ["", "[]", "{}", "{\"query\":1}", "{\"query\":\"SELECT 1\",\"more\":1}", "{\"query\":\"SELECT $1\",\"parameters\":[[]]}"] {
        assert_eq!(service.post(SQL, &[], body).await.refusal(), (400, "invalid_parameter".to_owned()), "{body}");
    }
    for path in ["/api/v1/sql", "/api/v1/sql?q=SELECT+1&parameters=no", "/api/v1/sql?query=SELECT+1"] {
        assert_eq!(service.get(path).await.refusal(), (400, "invalid_parameter".to_owned()), "{path}");
    }
    let long = json!({ "query": "x".repeat(1 << 20) }).to_string();
    assert_eq!(service.post(SQL, &[], long).await.refusal(), (413, "too_large".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_stops_queries_at_their_limits() {
    let service = Service::with(|_, server| {
        server.query.rows = 100;
        server.query.time = std::time::Duration::from_secs(3);
    })
    .await;
    let body: String = (0..1000).map(|key| event(key) + "\n").collect();
    assert_eq!(service.post(LOG, &[], body).await.status, 201);
    let cross = "SELECT count(*) FROM sys_audit_log a, sys_audit_log b, sys_audit_log c, sys_audit_log d WHERE a.primary_key < b.new_values || c.new_values";
    for query in ["SELECT id FROM sys_audit_log", cross] {
        let answer = service.post(SQL, &[], json!({ "query": query }).to_string()).await;
        assert_eq!(answer.refusal(), (400, "query_limit".to_owned()), "{query}: {}", answer.text());
    }
    assert_eq!(service.count().await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn breaks_off_a_result_that_fails_on_its_way() {
    let service = Service::with(|_, server| server.query.rows = 200_000).await;
    let body: String = (0..600).map(|key| event(key) + "\n").collect();
    assert_eq!(service.post(LOG, &[], body).await.status, 201);
    let body = json!({ "query": "SELECT a.id, a.table_name FROM sys_audit_log a CROSS JOIN sys_audit_log b" }).to_string();
    for accept in ["application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream"] {
        let answer = service.post(SQL, &[("accept", accept)], &body).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.body.is_empty() && !answer.complete, "{accept}: a part must not be taken for the whole");
    }
}

fn change(key: &str, operation: &str, at: &str, old: Value, new: Value) -> String {
    let user = json!({ "id": 7, "name": "lan" });
    json!({
        "table_name": "case.hoso", "primary_key": key, "operation": operation, "changed_at": at, "old_values": old, "new_values": new,
        "changed_by": user["id"], "changed_by_username": user["name"],
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn tells_the_history_of_an_entity() {
    let service = Service::start().await;
    let events = [
        change("1/a b", "INSERT", "2026-01-01T08:00:00Z", Value::Null, json!({ "state": "new", "fee": 10 })),
        change("1/a b", "UPDATE", "2026-01-02T08:00:00Z", json!({ "state": "new" }), json!({ "state": "open" })),
        change("2", "INSERT", "2026-01-03T08:00:00Z", Value::Null, json!({ "state": "new" })),
        change("1/a b", "DELETE", "2026-01-04T08:00:00Z", json!({ "state": "open" }), Value::Null),
    ];
    let answer = service.post(LOG, &[], events.join("\n")).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let entity = "/api/v1/entities/case.hoso/1%2Fa%20b";

    let history = service.get(&format!("{entity}/history")).await.json();
    assert_eq!((&history["table"], &history["key"], &history["truncated"]), (&json!("case.hoso"), &json!("1/a b"), &json!(false)));
    let operations = |history: &Value| history["changes"].as_array().unwrap().iter().map(|c| c["operation"].clone()).collect::<Vec<_>>();
    assert_eq!(operations(&history), ["INSERT", "UPDATE", "DELETE"]);
    assert_eq!(history["changes"][1]["fields"], json!([{ "field": "state", "old": "new", "new": "open" }]));
    assert_eq!(history["changes"][1]["changed_by_username"], "lan");
    assert_eq!(history["changes"][0]["changed_at"], "2026-01-01T08:00:00Z");

    let newest = service.get(&format!("{entity}/history?order=desc&limit=1")).await.json();
    assert_eq!((operations(&newest), &newest["truncated"]), (vec![json!("DELETE")], &json!(true)));
    let part = service.get(&format!("{entity}/history?from=2026-01-02&to=2026-01-03T00:00:00+07:00")).await.json();
    assert_eq!(operations(&part), ["UPDATE"]);

    let row = service.get(&format!("{entity}/at?time=2026-01-02T08:00:00Z")).await.json();
    assert_eq!(row["document"], json!({ "state": "open", "fee": 10 }));
    let micros = service.get(&format!("{entity}/at?time=1767254400000000")).await.json();
    assert_eq!(micros["document"]["state"], "new");
    for gone in ["2025-12-31", "2026-01-05"] {
        assert_eq!(service.get(&format!("{entity}/at?time={gone}")).await.refusal(), (404, "not_found".to_owned()));
    }

    let table = "/api/v1/entities/case.hoso/at?time=2026-01-03T09:00:00Z";
    let page = service.get(&format!("{table}&limit=1")).await.json();
    assert_eq!((page["rows"].as_array().unwrap().len(), &page["next"]), (1, &json!("1/a b")));
    let page = service.get(&format!("{table}&limit=5&after=1%2Fa+b")).await.json();
    assert_eq!((&page["rows"][0]["primary_key"], &page["next"]), (&json!("2"), &Value::Null));

    let bad =
        ["/at", "/at?time=yesterday", "/at?time=", "/history?limit=0", "/history?limit=100000", "/history?order=up", "/history?when=1"];
    for wrong in bad {
        assert_eq!(service.get(&format!("{entity}{wrong}")).await.refusal(), (400, "invalid_parameter".to_owned()), "{wrong}");
    }
}
