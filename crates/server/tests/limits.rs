//! Rate limits over HTTP: making them, asking them, blocks, violations, and the service's own API under them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Service;
use serde_json::{Value, json};

async fn put(service: &Service, name: &str, limit: Value) -> u16 {
    let answer = service.send("PUT", &format!("/api/v1/limits/{name}"), &[], limit.to_string().as_bytes()).await;
    assert!(answer.status < 300, "{}", answer.text());
    answer.status
}

async fn check(service: &Service, call: Value) -> (Value, Option<u64>) {
    let answer = service.post("/api/v1/limits/check", &[], call.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let retry = answer.header("retry-after").map(|seconds| seconds.parse().unwrap());
    (answer.json(), retry)
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if condition().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_asks_before_it_acts() {
    let service = Service::start().await;
    let login = json!({ "endpoint": "/login", "counted_by": "ADDRESS", "limit_threshold": 3, "time_window_seconds": 3600 });
    assert_eq!([put(&service, "login", login.clone()).await, put(&service, "login", login).await], [201, 200]);
    let call = json!({ "endpoint": "/login", "method": "POST", "ip_address": "192.0.2.7", "user_agent": "curl/8" });
    for left in [2, 1, 0] {
        let (answer, retry) = check(&service, call.clone()).await;
        assert_eq!((&answer["allowed"], &answer["remaining"], retry), (&json!(true), &json!(left), None));
    }
    let (answer, retry) = check(&service, call.clone()).await;
    assert_eq!(answer["allowed"], false);
    assert!((1..=1200).contains(&retry.unwrap()), "{retry:?}");
    let (other, _) = check(&service, json!({ "endpoint": "/login", "ip_address": "192.0.2.8" })).await;
    assert_eq!(other["remaining"], 2);
    let (free, _) = check(&service, json!({ "endpoint": "/about", "ip_address": "192.0.2.7" })).await;
    assert_eq!(free, json!({ "allowed": true, "remaining": null, "reset_seconds": null, "retry_after_seconds": null, "limits": [] }));
    // One row for the window, with the columns of the seed.
    check(&service, call).await;
    let violations = service.get("/api/v1/limits/violations").await.json();
    assert_eq!(violations.as_array().unwrap().len(), 1, "{violations}");
    let row = &service.sql("SELECT ip_address, endpoint, request_count, limit_threshold, time_window_minutes, violation_type, user_agent, blocked_duration_minutes, unblocked_at FROM rate_limit_violations").await[0];
    let expected = json!({
        "ip_address": "192.0.2.7", "endpoint": "/login", "request_count": 5, "limit_threshold": 3, "time_window_minutes": 60, "violation_type": "ADDRESS",
        "user_agent": "curl/8", "blocked_duration_minutes": 0,
    });
    let same = expected.as_object().unwrap().iter().all(|(key, value)| &row[key] == value);
    assert!(same && row["unblocked_at"].is_null(), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_exceeds_a_limit_with_a_block_stays_out_until_it_is_lifted() {
    let service = Service::start().await;
    put(&service, "transfer", json!({ "counted_by": "USER", "limit_threshold": 2, "block_minutes": 15 })).await;
    let call = json!({ "endpoint": "/transfer", "user_id": 7 });
    for _ in 0..2 {
        assert_eq!(check(&service, call.clone()).await.0["allowed"], true);
    }
    let (answer, retry) = check(&service, call.clone()).await;
    assert_eq!((&answer["allowed"], &answer["limits"][0]["blocked"]), (&json!(false), &json!(true)));
    assert!((880..=900).contains(&retry.unwrap()));
    let blocked = service.get("/api/v1/limits/violations?blocked=true").await.json();
    let id = blocked[0]["id"].as_i64().unwrap();
    assert_eq!((&blocked[0]["subject"], &blocked[0]["limit_name"]), (&json!("7"), &json!("transfer")));
    assert!(blocked[0]["user_id"].is_null(), "nobody knows user 7");
    let path = format!("/api/v1/limits/violations/{id}/unblock");
    assert_eq!(service.post(&path, &[], "{}").await.refusal(), (400, "invalid_parameter".to_owned()));
    assert_eq!(service.post(&path, &[], r#"{"reason":"called us"}"#).await.status, 200);
    assert_eq!(service.post(&path, &[], r#"{"reason":"again"}"#).await.refusal(), (409, "refused".to_owned()));
    assert_eq!(check(&service, call).await.0["remaining"], 1);
    assert_eq!(service.get("/api/v1/limits/violations?blocked=true").await.json(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_api_access_log_are_held_against_limits_in_event_time() {
    let service = Service::start().await;
    put(&service, "reports", json!({ "endpoint": "/reports*", "counted_by": "USER", "limit_threshold": 3 })).await;
    service.engine.start_following().unwrap();
    // Five calls of user 4 in one minute, out of order, three in the next; and one of somebody else.
    let calls = [(4, "09:00:50"), (4, "09:01:10"), (4, "09:00:01"), (5, "09:00:02"), (4, "09:00:30"), (4, "09:01:59")];
    let more = [(4, "09:00:59"), (4, "09:00:07"), (4, "09:01:00")];
    let line = |(user, time): &(i64, &str)| {
        let line = json!({
            "user_id": user, "method": "GET", "endpoint": "/reports/17", "ip_address": "198.51.100.4", "created_at": format!("2025-03-14T{time}Z"),
        });
        format!("{line}\n")
    };
    for part in [&calls[..], &more[..]] {
        let body: String = part.iter().map(line).collect();
        assert_eq!(service.post("/api/v1/logs/api_access_log", &[], body).await.status, 201);
    }
    let query = "SELECT subject, request_count, CAST(window_start AS VARCHAR) AS start, ip_address FROM rate_limit_violations ORDER BY id";
    let expected = json!([{ "subject": "4", "request_count": 5, "start": "2025-03-14T09:00:00Z", "ip_address": "198.51.100.4" }]);
    until("the violation", async || service.sql(query).await == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_limit_is_named() {
    let service = Service::start().await;
    let wrong = async |path: &str, body: Value| service.send("PUT", path, &[], body.to_string().as_bytes()).await;
    let cases = [
        ("limit_threshold", json!({ "counted_by": "USER", "limit_threshold": 0 })),
        ("burst", json!({ "counted_by": "USER", "limit_threshold": 2, "burst": 3 })),
        ("counted_by", json!({ "limit_threshold": 2 })),
        ("windows", json!({ "counted_by": "USER", "limit_threshold": 2, "windows": 3 })),
        ("subject", json!({ "counted_by": "ADDRESS", "limit_threshold": 2, "subject": "nowhere" })),
    ];
    for (field, body) in cases {
        let answer = wrong("/api/v1/limits/x", body).await;
        assert_eq!(answer.refusal(), (400, "invalid_parameter".to_owned()));
        assert!(answer.text().contains(field), "{}", answer.text());
    }
    assert_eq!(service.send("DELETE", "/api/v1/limits/x", &[], b"").await.refusal(), (404, "not_found".to_owned()));
    let zero = service.post("/api/v1/limits/check", &[], r#"{"endpoint":"/","cost":0}"#).await;
    assert_eq!(zero.refusal(), (400, "invalid_parameter".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn muniment_protects_its_own_api_with_the_same_limits() {
    let service = Service::start().await;
    put(&service, "sql", json!({ "endpoint": "/api/v1/sql", "counted_by": "ENDPOINT", "limit_threshold": 2, "on_own_api": true })).await;
    let ask = async || service.get("/api/v1/sql?q=SELECT%201").await;
    let first = ask().await;
    assert_eq!((first.status, first.header("ratelimit-remaining")), (200, Some("1")));
    assert_eq!(ask().await.status, 200);
    let refused = ask().await;
    assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() <= 30);
    assert_eq!(service.get("/healthz").await.status, 200);
    let violations = service.get("/api/v1/limits/violations").await.json();
    assert_eq!((&violations[0]["limit_name"], &violations[0]["endpoint"]), (&json!("sql"), &json!("/api/v1/sql")));
}
