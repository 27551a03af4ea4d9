//! The service as a whole: health, description, ledger endpoints, refusals of paths and origins, and shutdown.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{LOG, Service, event};
use serde_json::Value;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn tells_its_health() {
    let service = Service::start().await;
    assert_eq!(service.post(LOG, &[], event(1)).await.status, 201);
    assert_eq!(service.get("/healthz").await.status, 200);
    let before = service.get("/api/v1/checkpoint").await.body;
    assert_eq!(service.get("/readyz").await.status, 200);
    assert_eq!(service.get("/api/v1/checkpoint").await.body, before, "asking whether it is ready signs nothing");
    let metrics = service.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(metrics.text().contains("muniment_records_total{log=\"sys_audit_log\"} 1\n"));
    assert!(metrics.text().ends_with("# EOF\n"));
    let index = service.get("/").await;
    assert!(index.text().contains("POST /api/v1/logs/{log}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn is_not_ready_when_the_engine_has_stopped() {
    let service = Service::start().await;
    service.engine.shutdown().await.unwrap();
    assert_eq!(service.get("/readyz").await.refusal(), (503, "stopping".to_owned()));
    let refused = service.post(LOG, &[], event(1)).await;
    assert_eq!(refused.refusal(), (503, "stopping".to_owned()));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(service.get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_the_checkpoint_and_rotates_the_key() {
    let service = Service::start().await;
    let note = service.get("/api/v1/checkpoint").await;
    assert_eq!(note.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(note.text(), service.engine.checkpoint());
    let rotated = service.post("/api/v1/keys/rotate", &[], "").await;
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    assert!(rotated.json()["key"].as_str().unwrap().starts_with(service.engine.origin()));
    let note = service.get("/api/v1/checkpoint").await.text();
    assert_eq!(note.lines().filter(|line| line.starts_with('\u{2014}')).count(), 2, "the old and the new key sign the change");
    for header in [("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "192.0.2.7")] {
        let refused = service.post("/api/v1/keys/rotate", &[header], "").await;
        assert_eq!(refused.refusal(), (403, "loopback_only".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proves_a_record() {
    let service = Service::start().await;
    let rotated = service.post("/api/v1/keys/rotate", &[], "").await;
    assert_eq!(service.post(LOG, &[], event("a") + "\n" + &event("b")).await.status, 201);
    let proof = service.get("/api/v1/proofs/sys_audit_log/2").await;
    assert_eq!((proof.status, proof.header("content-type")), (200, Some("application/json")));
    let key = rotated.json()["key"].as_str().unwrap().parse().unwrap();
    let record = muniment_engine::evidence::check(&proof.body, &key).unwrap();
    assert_eq!((record.log.as_str(), record.id), ("sys_audit_log", 2));
    let mut forged = proof.json();
    forged["id"] = 1.into();
    assert!(muniment_engine::evidence::check(forged.to_string().as_bytes(), &key).is_err());
    for (path, status, code) in [
        ("sys_audit_log/3", 404, "not_found"),
        ("sys_audit_log/-1", 404, "not_found"),
        ("users/1", 404, "unknown_log"),
        ("sys_audit_log/two", 400, "invalid_parameter"),
    ] {
        assert_eq!(service.get(&format!("/api/v1/proofs/{path}")).await.refusal(), (status, code.to_owned()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_pages_of_another_origin() {
    let service = Service::start().await;
    for origin in ["http://attacker.example", "null", "http://test:81"] {
        for path in ["/api/v1/keys/rotate", LOG, "/api/v1/sql"] {
            let answer = service.post(path, &[("origin", origin)], event(1)).await;
            assert_eq!(answer.refusal(), (403, "cross_origin".to_owned()), "{origin} {path}");
        }
    }
    assert_eq!(service.post(LOG, &[("origin", "http://test")], event(1)).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_unknown_paths_and_methods_as_json() {
    let service = Service::start().await;
    for path in ["/nothing", "/api/v1/logs", "/api/v1/entities/a", "/api/v1/logs/a/b"] {
        assert_eq!(service.get(path).await.refusal(), (404, "unknown_path".to_owned()), "{path}");
    }
    let answer = service.get(LOG).await;
    assert_eq!(answer.refusal(), (405, "method_not_allowed".to_owned()));
    assert_eq!(answer.header("allow"), Some("POST"));
    assert_eq!(service.get("/api/v1/entities/%ff/1/history").await.refusal(), (400, "invalid_parameter".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn describes_exactly_what_it_answers() {
    let service = Service::start().await;
    let answer = service.get("/api/v1/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, operations) in document["paths"].as_object().unwrap() {
        let concrete = path.replace("{log}", "sys_audit_log").replace("{table}", "t").replace("{key}", "1").replace("{id}", "1");
        for method in ["get", "post", "put", "delete", "patch"] {
            let answer = service.send(&method.to_uppercase(), &concrete, &[], b"").await;
            assert_eq!(operations.get(method).is_some(), answer.status != 405, "{method} {path}: {}", answer.status);
            if let Some(operation) = operations.get(method) {
                described(operation, &answer);
            }
        }
    }
}

/// The answer is one that the description lists, with a code that it names.
fn described(operation: &Value, answer: &common::Answer) {
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{} is not among the answers of {}", answer.status, operation["operationId"]);
    if let Some(code) = answer.refusal_code() {
        assert!(response["description"].as_str().unwrap().contains(&format!("`{code}`")), "{code} of {}", operation["operationId"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finishes_what_is_under_way_at_shutdown() {
    let mut service = Service::start().await;
    let mut idle = service.connect().await;
    idle.send("GET", "/healthz", &[], b"").await;
    assert_eq!(idle.answer().await.status, 200);
    let mut slow = service.connect().await;
    let body = event(1);
    let (begin, rest) = body.split_at(20);
    slow.raw(format!("POST {LOG} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{begin}", body.len())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let address = service.address;
    let serving = service.stop();
    assert!(idle.is_closed().await, "an idle connection is closed");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody is accepted any more");
    assert!(!serving.is_finished());
    slow.raw(rest).await;
    let answer = slow.answer().await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(slow.is_closed().await);
    serving.await.unwrap().unwrap();
    service.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_off_at_shutdown_what_does_not_finish() {
    let mut service = Service::with(|_, server| server.shutdown_timeout = Duration::from_millis(300)).await;
    let mut slow = service.connect().await;
    slow.raw(format!("POST {LOG} HTTP/1.1\r\nhost: test\r\ncontent-length: 500\r\n\r\n{{")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopped = tokio::time::timeout(Duration::from_secs(5), service.stop()).await;
    stopped.expect("the shutdown ends").unwrap().unwrap();
    assert!(slow.is_closed().await);
    service.engine.shutdown().await.unwrap();
}
