//! Measurements over HTTP: thresholds decided on arrival, buckets with percentiles, findings, and how the service is doing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Service;
use serde_json::{Value, json};
use std::time::Duration;

const LOG: &str = "/api/v1/logs/system_performance_log";

async fn put(service: &Service, threshold: Value) -> Value {
    let answer = service.send("PUT", "/api/v1/metrics/thresholds", &[], threshold.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn store(service: &Service, measurements: &[Value]) {
    let answer = service.post(LOG, &[], json!(measurements).to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come");
}

fn measured(metric: &str, value: f64, unit: &str, more: Value) -> Value {
    let mut measurement = json!({ "metric_name": metric, "metric_category": "API", "metric_value": value, "metric_unit": unit });
    measurement.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    measurement
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_are_decided_on_arrival_and_written_into_the_record() {
    let service = Service::start().await;
    put(&service, json!({ "metric_name": "response_time", "metric_unit": "ms", "threshold_warning": 500, "threshold_critical": 2000 }))
        .await;
    put(&service, json!({ "metric_name": "response_time", "component_name": "batch", "threshold_warning": 60_000, "metric_unit": "ms" }))
        .await;
    put(&service, json!({ "metric_name": "disk_free*", "metric_unit": "percent", "threshold_warning": 20, "threshold_critical": 5 })).await;
    put(&service, json!({ "metric_category": "WORKFLOW", "threshold_critical": "10.5" })).await;
    let none = || json!({});
    let cases = [
        (measured("response_time", 499.0, "ms", none()), false, json!([500.0, 2000.0])),
        (measured("response_time", 500.0, "ms", none()), true, json!([500.0, 2000.0])),
        // In another unit of the same kind, and in one of another kind.
        (measured("response_time", 0.6, "s", none()), true, json!([0.5, 2.0])),
        (measured("response_time", 9000.0, "MB", none()), false, json!([null, null])),
        // The more particular one holds, and the record's own before all.
        (measured("response_time", 900.0, "ms", json!({ "component_name": "batch" })), false, json!([60000.0, null])),
        (measured("response_time", 900.0, "ms", json!({ "threshold_warning": 1000 })), false, json!([1000.0, null])),
        (measured("response_time", 100.0, "ms", json!({ "threshold_critical": 50 })), true, json!([null, 50.0])),
        // Small values are the bad ones.
        (measured("disk_free_data", 21.0, "percent", none()), false, json!([20.0, 5.0])),
        (measured("disk_free_data", 0.2, "ratio", none()), true, json!([0.2, 0.05])),
        (measured("steps", 10.5, "count", json!({ "metric_category": "WORKFLOW" })), true, json!([null, 10.5])),
        // What a sender has decided stays.
        (measured("unknown", 1.0, "ms", json!({ "is_threshold_exceeded": true })), true, json!([null, null])),
    ];
    store(&service, &cases.iter().map(|(measurement, ..)| measurement.clone()).collect::<Vec<_>>()).await;
    let query = "SELECT is_threshold_exceeded AS exceeded, CAST(threshold_warning AS DOUBLE) AS warning, CAST(threshold_critical AS DOUBLE) AS critical FROM system_performance_log ORDER BY id";
    let rows = service.sql(query).await;
    for (row, (measurement, exceeded, thresholds)) in rows.as_array().unwrap().iter().zip(&cases) {
        let found = json!([row.get("warning"), row.get("critical")]);
        assert_eq!((&row["exceeded"], &found), (&json!(exceeded), thresholds), "{measurement}");
    }
    let listed = service.get("/api/v1/metrics/thresholds").await.json();
    let id = listed.as_array().unwrap().iter().find(|one| one["metric_category"] == "WORKFLOW").unwrap()["id"].clone();
    assert_eq!(service.send("DELETE", &format!("/api/v1/metrics/thresholds/{id}"), &[], b"").await.status, 200);
    assert_eq!(
        service.send("DELETE", &format!("/api/v1/metrics/thresholds/{id}"), &[], b"").await.refusal(),
        (404, "not_found".to_owned())
    );
    for (field, wrong) in [
        ("metric_name", json!({ "threshold_warning": 1 })),
        ("threshold_warning", json!({ "metric_name": "x" })),
        ("metric_category", json!({ "metric_category": "SPACE", "threshold_warning": 1 })),
        ("decimal", json!({ "metric_name": "x", "threshold_warning": 0.0000001 })),
    ] {
        let answer = service.send("PUT", "/api/v1/metrics/thresholds", &[], wrong.to_string().as_bytes()).await;
        assert_eq!(answer.refusal(), (400, "invalid_parameter".to_owned()));
        assert!(answer.text().contains(field), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_have_percentiles_and_weigh_samples() {
    let service = Service::start().await;
    let at = |second: i64| json!({ "measured_at": 1_740_000_000_000_000 + second * 1_000_000 });
    // A hundred of one minute, and in the next two samples that stand for twenty happenings and one that stands for itself.
    let mut all: Vec<Value> = (1..=100).map(|n| measured("latency", f64::from(n), "ms", at(i64::from(n) % 60))).collect();
    for value in [10.0, 30.0] {
        let mut sample = measured("latency", value, "ms", at(60));
        sample["sampling_rate"] = json!(0.1);
        all.push(sample);
    }
    all.push(measured("latency", 1000.0, "ms", at(119)));
    all.push(measured("latency", 5.0, "s", at(61)));
    store(&service, &all).await;
    let answer = service.get("/api/v1/metrics/aggregate?metric=latency&bucket=1m&from=2025-02-19T21:20:00Z&to=2025-02-19T21:30:00Z").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let buckets = answer.json();
    let of = |unit: &str| buckets.as_array().unwrap().iter().filter(|bucket| bucket["unit"] == unit).cloned().collect::<Vec<_>>();
    let (ms, s) = (of("ms"), of("s"));
    assert_eq!((ms.len(), s.len()), (2, 1), "{buckets}");
    assert_eq!((&ms[0]["start"], &ms[0]["measurements"], &ms[0]["count"]), (&json!("2025-02-19T21:20:00Z"), &json!(100), &json!(100.0)));
    assert_eq!((&ms[0]["min"], &ms[0]["max"], &ms[0]["avg"]), (&json!(1.0), &json!(100.0), &json!(50.5)));
    let percentile = |bucket: &Value, name: &str| bucket[name].as_f64().unwrap();
    assert!((49.0..=52.0).contains(&percentile(&ms[0], "p50")), "{buckets}");
    assert!((98.0..=100.0).contains(&percentile(&ms[0], "p99")), "{buckets}");
    assert_eq!((&ms[1]["measurements"], &ms[1]["count"]), (&json!(3), &json!(21.0)));
    assert!((ms[1]["avg"].as_f64().unwrap() - 1400.0 / 21.0).abs() < 1e-9);
    assert!(percentile(&ms[1], "p50") < 100.0, "the one that stands for itself weighs little: {buckets}");
    for wrong in [
        "metric=latency&bucket=5",
        "metric=latency&bucket=1ms",
        "metric=&bucket=1m",
        "metric=x&from=soon",
        "bucket=1m",
        "metric=x&colour=1",
    ] {
        let answer = service.get(&format!("/api/v1/metrics/aggregate?{wrong}")).await;
        assert_eq!(answer.refusal(), (400, "invalid_parameter".to_owned()), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_critical_is_a_finding_once() {
    let service = Service::start().await;
    service.engine.start_following().unwrap();
    put(&service, json!({ "metric_name": "queue", "threshold_warning": 100, "threshold_critical": 500 })).await;
    for value in [400.0, 500.0, 700.0] {
        store(&service, &[measured("queue", value, "count", json!({ "component_name": "mail" }))]).await;
    }
    store(&service, &[measured("queue", 900.0, "count", json!({ "component_name": "print" }))]).await;
    let query = "SELECT event_type, severity, resource_accessed AS resource, failure_reason AS reason FROM security_audit_log ORDER BY id";
    let expected = json!([
        { "event_type": "METRIC_CRITICAL", "severity": 4, "resource": "queue mail", "reason": "queue is 500 count; it is critical from 500 count on" },
        { "event_type": "METRIC_CRITICAL", "severity": 4, "resource": "queue print", "reason": "queue is 900 count; it is critical from 500 count on" },
    ]);
    until("the findings", async || service.sql(query).await == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn muniment_measures_itself() {
    let service = Service::with(|engine, _| engine.monitoring.interval = Duration::from_millis(200)).await;
    service.engine.start_following().unwrap();
    store(&service, &[measured("x", 1.0, "ms", json!({}))]).await;
    let now = service.get("/api/v1/monitoring").await.json();
    assert_eq!((&now["queue_depth"], &now["error_rate_percent"]), (&json!(0), &json!(0.0)));
    let query = "SELECT DISTINCT metric_name AS name FROM system_performance_log WHERE component_name = 'muniment' AND metric_name <> 'muniment.source_lag' ORDER BY 1";
    let names = [
        "commit_latency_p50",
        "commit_latency_p99",
        "commits",
        "error_rate",
        "flush_lag",
        "follower_lag",
        "hot_bytes",
        "ingest_memory",
        "processing_lag",
        "queue_depth",
        "requests",
    ];
    let expected: Vec<Value> = names.iter().map(|name| json!({ "name": format!("muniment.{name}") })).collect();
    until("its measures", async || service.sql(query).await == json!(expected)).await;
    let monitoring = service.get("/api/v1/monitoring").await.json();
    let followers: Vec<&str> = monitoring["followers"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(followers.contains(&"rate_limits") && followers.contains(&"thresholds"), "{monitoring}");
    let own = service
        .sql("SELECT count(*) AS n FROM system_performance_log WHERE metric_name = 'muniment.queue_depth' AND threshold_critical = 3500")
        .await;
    assert!(own[0]["n"].as_i64().unwrap() > 0);
}
