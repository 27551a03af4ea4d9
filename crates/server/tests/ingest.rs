//! Records in over HTTP: forms, compression, idempotency, and what is said of records that are not valid.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{LOG, Service, event};
use serde_json::json;
use std::io::Write;

const JSON: (&str, &str) = ("content-type", "application/json");
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson; charset=utf-8");

type Headers<'a> = &'a [(&'a str, &'a str)];

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn lines(count: usize) -> String {
    (0..count).map(|key| event(key) + "\n").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_one_an_array_and_ndjson() {
    let service = Service::start().await;
    let array = format!("[{},{}]", event(2), event(3));
    for (headers, body, records, first) in [
        (vec![JSON], event(1), 1, 1),
        (vec![JSON], array.clone(), 2, 2),
        (vec![NDJSON], lines(3), 3, 4),
        (vec![], event(7), 1, 7),
        (vec![], array, 2, 8),
        (vec![], lines(2), 2, 10),
    ] {
        let answer = service.post(LOG, &headers, &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let receipt = answer.json();
        assert_eq!(receipt["log"], "sys_audit_log");
        assert_eq!(receipt["records"], records);
        assert_eq!(receipt["ids"], json!({ "first": first, "last": first + records - 1 }));
        assert!(receipt["commit"].as_u64().unwrap() > 0);
        assert!(receipt["checkpoint"].as_str().unwrap().starts_with(service.engine.origin()));
        assert_eq!(service.count().await, first + records - 1, "found by SQL at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unpacks_gzip_and_zstd() {
    let service = Service::start().await;
    let plain = lines(2000);
    let mut members = gzip(&plain.as_bytes()[..50_000]);
    members.extend(gzip(&plain.as_bytes()[50_000..]));
    let mut frames = zstd::bulk::compress(&plain.as_bytes()[..50_000], 3).unwrap();
    frames.extend(zstd::bulk::compress(&plain.as_bytes()[50_000..], 19).unwrap());
    for (name, body) in [
        ("gzip", gzip(plain.as_bytes())),
        ("gzip", members),
        ("GZIP", gzip(plain.as_bytes())),
        ("zstd", zstd::bulk::compress(plain.as_bytes(), 3).unwrap()),
        ("zstd", zstd::stream::encode_all(plain.as_bytes(), 9).unwrap()),
        ("zstd", frames),
        ("identity", plain.clone().into_bytes()),
    ] {
        let answer = service.post(LOG, &[NDJSON, ("content-encoding", name)], &body).await;
        assert_eq!(answer.status, 201, "{name}: {}", answer.text());
        assert_eq!(answer.json()["records"], 2000);
    }
    assert_eq!(service.memory().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_a_chunked_body() {
    let service = Service::start().await;
    let mut connection = service.connect().await;
    connection.raw(format!("POST {LOG} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")).await;
    for line in lines(100).lines() {
        connection.raw(format!("{:x}\r\n{line}\n\r\n", line.len() + 1)).await;
    }
    connection.raw("0\r\n\r\n").await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.json()["records"].as_i64()), (201, Some(100)));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_a_retry_with_the_first_receipt() {
    let service = Service::start().await;
    let headers = [JSON, ("idempotency-key", "order-17")];
    let first = service.post(LOG, &headers, event(1)).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
    let second = service.post(LOG, &headers, event(1)).await;
    assert_eq!((second.status, second.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(first.body, second.body);
    assert_eq!(service.count().await, 1);

    let other = service.post(LOG, &headers, event(2)).await;
    assert_eq!(other.refusal(), (422, "key_reused".to_owned()));
    let elsewhere = r#"{"user_id":1,"login_status":"SUCCESS"}"#;
    let elsewhere = service.post("/api/v1/logs/login_audit_log", &headers, elsewhere).await;
    assert_ne!(elsewhere.refusal_code().as_deref(), Some("key_reused"), "keys are per log");
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_headers() {
    let service = Service::start().await;
    let long = "k".repeat(256);
    let cases: [(Headers<'_>, u16, &str); 11] = [
        (&[("idempotency-key", "")], 400, "invalid_header"),
        (&[("idempotency-key", &long)], 400, "invalid_header"),
        (&[("idempotency-key", "with blank")], 400, "invalid_header"),
        (&[("idempotency-key", "ключ")], 400, "invalid_header"),
        (&[("idempotency-key", "a"), ("idempotency-key", "b")], 400, "invalid_header"),
        (&[("muniment-source", "file")], 400, "invalid_header"),
        (&[("muniment-position", "17")], 400, "invalid_header"),
        (&[("content-type", "text/plain")], 415, "unsupported_media_type"),
        (&[("content-type", "application/x-www-form-urlencoded")], 415, "unsupported_media_type"),
        (&[("content-encoding", "br")], 415, "unsupported_encoding"),
        (&[("content-encoding", "gzip, zstd")], 415, "unsupported_encoding"),
    ];
    for (headers, status, code) in cases {
        let answer = service.post(LOG, headers, event(1)).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{headers:?}");
    }
    let encoding = service.post(LOG, &[("content-encoding", "br")], event(1)).await;
    assert_eq!(encoding.header("accept-encoding"), Some("gzip, zstd"));
    assert_eq!(service.count().await, 0);

    let position = [JSON, ("muniment-source", "cases.ndjson"), ("muniment-position", "120 3 00ff")];
    assert_eq!(service.post(LOG, &position, event(1)).await.status, 201);
    assert_eq!(service.post(LOG, &[("idempotency-key", &long[1..])], event(2)).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn knows_its_logs() {
    let service = Service::start().await;
    for log in ["nothing", "users", "SYS_AUDIT_LOG", "sys_audit_log%2F.."] {
        let answer = service.post(&format!("/api/v1/logs/{log}"), &[JSON], "{}").await;
        assert_eq!(answer.refusal(), (404, "unknown_log".to_owned()), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_what_is_wrong_with_records() {
    let service = Service::start().await;
    let body = format!("{}\n{{\"table_name\":7,\"primary_key\":\"1\"}}\n{}\nnot json\n", event(1), event(2));
    let answer = service.post(LOG, &[NDJSON], body).await;
    assert_eq!(answer.refusal(), (422, "invalid_records".to_owned()));
    let refusal = answer.json();
    let errors = refusal["errors"].as_array().unwrap();
    assert!(errors.iter().any(|error| error["line"] == 2 && error["field"] == "table_name"), "{refusal}");
    assert!(errors.iter().any(|error| error["line"] == 4 && error["field"].is_null()), "{refusal}");
    assert_eq!(service.count().await, 0, "all or nothing");

    let answer = service.post(LOG, &[NDJSON], "{}\n".repeat(500)).await.json();
    assert!(answer["total"].as_u64().unwrap() >= 500);
    assert_eq!(answer["errors"].as_array().unwrap().len(), 100);
    assert_eq!(service.memory().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_a_connection_for_many_requests() {
    let service = Service::start().await;
    let mut connection = service.connect().await;
    for number in 1..=20 {
        connection.send("POST", LOG, &[JSON], event(number).as_bytes()).await;
        assert_eq!(connection.answer().await.json()["ids"]["first"], number);
        connection.send("POST", LOG, &[JSON], b"{}").await;
        assert_eq!(connection.answer().await.status, 422, "a refusal leaves the connection in order");
    }
}
