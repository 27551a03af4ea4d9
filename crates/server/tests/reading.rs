//! P9: whoever reads is on the record before they have the answer. Masked contents in clear for a reason.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use arrow_array::cast::AsArray;
use common::{Answer, Service};
use muniment_access::Role;
use muniment_engine::identity::{ChangedBy, NewKey};
use muniment_engine::query::{QueryEngine, QueryLimits};
use muniment_server::AccessMode;
use serde_json::{Value, json};
use std::collections::BTreeSet;

struct Watched {
    service: Service,
    query: QueryEngine,
}

impl Watched {
    async fn start(approval: bool) -> Self {
        let service = Service::with(|engine, server| {
            engine.unmasking.approval = approval;
            server.access = AccessMode::Keys;
        })
        .await;
        let query = QueryEngine::new(service.engine.store().clone(), QueryLimits::default()).unwrap();
        Self { service, query }
    }

    async fn key(&self, name: &str, role: Role) -> String {
        let wish = NewKey { name: name.to_owned(), roles: BTreeSet::from([role]), ..NewKey::default() };
        let key = self.service.engine.identities().create_key(&wish, muniment_engine::now(), &ChangedBy::default()).await.unwrap();
        format!("Bearer {}", key.key)
    }

    async fn ask(&self, key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("authorization", key), ("user-agent", "test/1")];
        all.extend(headers);
        self.service.send(method, path, &all, body.as_bytes()).await
    }

    async fn store(&self, records: usize) {
        let key = self.key("loader", Role::Ingest).await;
        let line = |n: usize| {
            let filling = "x".repeat(200);
            json!({"table_name": "case.hoso", "primary_key": n.to_string(), "operation": "INSERT", "transaction_id": "t1",
                "new_values": {"id": n, "name": format!("secret {filling}")}, "ip_address": "203.0.113.7", "compliance_level": if n == 2 { 3 } else { 1 }})
        };
        let body: String = (1..=records).map(|n| format!("{}\n", line(n))).collect();
        assert_eq!(self.ask(&key, "POST", "/api/v1/logs/sys_audit_log", &[], &body).await.status, 201);
    }

    /// What is on record of this name's readings, oldest first.
    async fn readings(&self, name: &str) -> Vec<Value> {
        let sql = "SELECT event_type, resource_accessed, permission_checked, access_granted, failure_reason, request_path, http_method, ip_address, \
            user_agent, details FROM security_audit_log WHERE username = $1 AND event_category = 'DATA_ACCESS' ORDER BY id";
        let batches = self.query.collect(sql, vec![datafusion::common::ScalarValue::from(name)]).await.unwrap();
        let mut found = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let text = |name: &str| {
                    let column = batch.column_by_name(name).unwrap();
                    column.is_valid(row).then(|| column.as_string_view().value(row).to_owned())
                };
                let granted = batch.column_by_name("access_granted").unwrap().as_boolean().value(row);
                let details: Value = serde_json::from_str(&text("details").unwrap()).unwrap();
                found.push(
                    json!({"event": text("event_type"), "resource": text("resource_accessed"), "permission": text("permission_checked"),
                    "granted": granted, "failure": text("failure_reason"), "path": text("request_path"), "method": text("http_method"),
                    "ip": text("ip_address"), "agent": text("user_agent"), "details": details}),
                );
            }
        }
        found
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_every_door_leaves_a_record_of_what_it_gave() {
    let watched = Watched::start(true).await;
    watched.store(3).await;
    let key = watched.key("inspector", Role::Auditor).await;
    let doors = [
        ("POST", "/api/v1/sql", r#"{"query":"SELECT id FROM sys_audit_log WHERE id < $1","parameters":[3]}"#, "sql", "DATA_READ", 2),
        ("GET", "/api/v1/sql?q=SELECT%20count(*)%20FROM%20users", "", "sql", "DATA_READ", 1),
        ("GET", "/api/v1/entities/case.hoso/1/history", "", "history of case.hoso 1", "DATA_READ", 1),
        ("GET", "/api/v1/entities/case.hoso/1/at?time=2040-01-01", "", "state of case.hoso 1", "DATA_READ", 1),
        ("GET", "/api/v1/entities/case.hoso/at?time=2040-01-01", "", "state of case.hoso", "DATA_READ", 3),
        ("GET", "/api/v1/entities/case.hoso/1/blame", "", "blame of case.hoso 1", "DATA_READ", 1),
        ("GET", "/api/v1/transactions/t1", "", "transaction t1", "DATA_READ", 3),
        ("POST", "/api/v1/undo", r#"{"record":1,"key":"id"}"#, "undo", "DATA_READ", 1),
        ("GET", "/api/v1/proofs/sys_audit_log/1", "", "proof of sys_audit_log 1", "DATA_EXPORT", 1),
        ("GET", "/api/v1/unmasking", "", "unmasking_grants", "DATA_READ", 0),
    ];
    for (at, (method, path, body, resource, event, rows)) in doors.into_iter().enumerate() {
        let answer = watched.ask(&key, method, path, &[("muniment-reason", "yearly audit")], body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let readings = watched.readings("inspector").await;
        assert_eq!(readings.len(), at + 1, "{path}");
        let reading = &readings[at];
        let told = (reading["event"].as_str(), reading["resource"].as_str(), reading["granted"].as_bool());
        assert_eq!(told, (Some(event), Some(resource), Some(true)), "{path}: {reading}");
        assert_eq!(reading["details"]["rows"], rows, "{path}: {reading}");
        assert_eq!(reading["details"]["bytes"], answer.body.len(), "{path}: {reading}");
        assert_eq!(reading["details"]["reason"], "yearly audit", "{path}");
        let from = (reading["ip"].as_str(), reading["agent"].as_str(), reading["path"].as_str(), reading["method"].as_str());
        assert_eq!(from, (Some("127.0.0.1"), Some("test/1"), path.split('?').next(), Some(method)), "{path}");
    }
    let readings = watched.readings("inspector").await;
    let asked = json!({"query": "SELECT id FROM sys_audit_log WHERE id < $1", "parameters": [3]});
    assert_eq!(readings[0]["details"]["asked"], asked);
    assert!(readings.iter().all(|reading| reading["details"]["api_key_id"].is_i64()));
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_what_fails_or_is_refused_is_on_the_record_too() {
    let watched = Watched::start(true).await;
    let viewer = watched.key("curious", Role::Viewer).await;
    assert_eq!(watched.ask(&viewer, "POST", "/api/v1/sql", &[], r#"{"query":"SELECT nothing FROM users"}"#).await.status, 400);
    assert_eq!(watched.ask(&viewer, "GET", "/api/v1/proofs/sys_audit_log/1", &[], "").await.status, 403);
    assert_eq!(watched.ask(&viewer, "GET", "/api/v1/access/keys", &[], "").await.status, 403);
    let readings = watched.readings("curious").await;
    assert_eq!(readings.len(), 3, "{readings:?}");
    assert!(readings[0]["granted"] == true && readings[0]["failure"].as_str().unwrap().contains("nothing"), "{readings:?}");
    for refused in &readings[1..] {
        assert!(refused["event"] == "ACCESS_DENIED" && refused["granted"] == false, "{refused}");
        assert!(refused["failure"].as_str().unwrap().contains("curious may not do this"), "{refused}");
    }
    let administrator = watched.key("chief", Role::Administrator).await;
    assert_eq!(watched.ask(&administrator, "GET", "/api/v1/access/keys", &[], "").await.status, 200);
    assert_eq!(watched.readings("chief").await[0]["resource"], "/api/v1/access/keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_a_long_answer_is_on_the_record_before_its_first_byte_and_before_its_last() {
    let watched = Watched::start(true).await;
    watched.store(3000).await;
    let key = watched.key("inspector", Role::Auditor).await;
    let body = r#"{"query":"SELECT id, new_values FROM sys_audit_log WHERE table_name = 'case.hoso'"}"#;
    let answer = watched.ask(&key, "POST", "/api/v1/sql", &[], body).await;
    assert!(answer.complete && answer.body.len() > 256 << 10);
    let readings = watched.readings("inspector").await;
    assert_eq!(readings.len(), 2);
    assert_eq!(readings[0]["details"]["answer"], "begun");
    assert_eq!((readings[1]["details"]["rows"].as_u64(), readings[1]["details"]["answer"].as_str()), (Some(3000), None));
    assert_eq!(readings[1]["details"]["bytes"], answer.body.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_without_a_record_there_is_no_answer() {
    let watched = Watched::start(true).await;
    watched.store(3).await;
    let key = watched.key("inspector", Role::Auditor).await;
    watched.service.engine.shutdown().await.unwrap();
    for path in
        ["/api/v1/sql?q=SELECT%20*%20FROM%20sys_audit_log", "/api/v1/entities/case.hoso/1/history", "/api/v1/proofs/sys_audit_log/1"]
    {
        let answer = watched.ask(&key, "GET", path, &[], "").await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        assert!(!answer.text().contains("secret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_contents_are_shown_for_a_reason_once_a_second_person_approves() {
    let watched = Watched::start(true).await;
    watched.store(3).await;
    let (viewer, officer, other) = (
        watched.key("clerk", Role::Viewer).await,
        watched.key("officer", Role::ComplianceOfficer).await,
        watched.key("other", Role::Viewer).await,
    );
    let query = r#"{"query":"SELECT id, new_values FROM sys_audit_log WHERE table_name = 'case.hoso' ORDER BY id"}"#;
    let request =
        json!({"table": "sys_audit_log", "reason": "complaint 2026/117", "entity": {"table": "case.hoso", "key": "2"}, "minutes": 30});
    let asked = watched.ask(&viewer, "POST", "/api/v1/unmasking", &[], &request.to_string()).await;
    assert_eq!((asked.status, asked.json()["status"].as_str()), (201, Some("PENDING")), "{}", asked.text());
    let id = asked.json()["id"].to_string();
    let with = [("muniment-unmasking", id.as_str())];
    assert_eq!(watched.ask(&viewer, "POST", "/api/v1/sql", &with, query).await.refusal(), (409, "refused".to_owned()));
    let approve = format!("/api/v1/unmasking/{id}/approve");
    assert_eq!(watched.ask(&viewer, "POST", &approve, &[], "").await.status, 403);
    assert_eq!(watched.ask(&other, "GET", &format!("/api/v1/unmasking/{id}"), &[], "").await.status, 404);
    let approved = watched.ask(&officer, "POST", &approve, &[], r#"{"note":"seen the complaint"}"#).await;
    assert_eq!((approved.status, approved.json()["decided_by"].as_str()), (200, Some("officer")), "{}", approved.text());
    assert_eq!(watched.ask(&officer, "POST", &approve, &[], "").await.status, 409);

    let rows = watched.ask(&viewer, "POST", "/api/v1/sql", &with, query).await.json();
    let clear: Vec<bool> = rows.as_array().unwrap().iter().map(|row| row["new_values"].as_str().unwrap().contains("secret")).collect();
    assert_eq!(clear, [false, true, false]);
    assert!(!watched.ask(&viewer, "POST", "/api/v1/sql", &[], query).await.text().contains("secret"), "only what names the grant is clear");
    assert!(watched.ask(&viewer, "GET", "/api/v1/entities/case.hoso/2/history", &with, "").await.text().contains("secret"));
    assert_eq!(watched.ask(&other, "POST", "/api/v1/sql", &with, query).await.status, 404);

    assert_eq!(watched.ask(&viewer, "POST", &format!("/api/v1/unmasking/{id}/end"), &[], "").await.status, 200);
    assert_eq!(watched.ask(&viewer, "POST", "/api/v1/sql", &with, query).await.status, 409);

    let readings = watched.readings("clerk").await;
    let named: Vec<_> = readings.iter().filter(|reading| reading["details"]["unmasking"] == id.parse::<i64>().unwrap()).collect();
    assert_eq!(named.len(), 2, "{readings:?}");
    assert_eq!(readings[0]["event"], "UNMASKING_REQUEST");
    assert_eq!(readings[0]["details"]["reason"], "complaint 2026/117");
    assert_eq!(watched.readings("officer").await[0]["event"], "UNMASKING_DECISION");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_their_own_request_and_requests_are_checked() {
    let watched = Watched::start(true).await;
    let wish = NewKey { name: "both".to_owned(), roles: BTreeSet::from([Role::Viewer, Role::ComplianceOfficer]), ..NewKey::default() };
    let created = watched.service.engine.identities().create_key(&wish, muniment_engine::now(), &ChangedBy::default()).await.unwrap();
    let both = format!("Bearer {}", created.key);
    let asked = watched.ask(&both, "POST", "/api/v1/unmasking", &[], r#"{"table":"sys_audit_log","reason":"mine"}"#).await;
    let approve = format!("/api/v1/unmasking/{}/approve", asked.json()["id"]);
    let refused = watched.ask(&both, "POST", &approve, &[], "").await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("second person"));
    for (body, field) in [
        (json!({"table": "sys_audit_log", "reason": "  "}), "reason"),
        (json!({"table": "sys_audit_log", "reason": "x", "minutes": 0}), "minutes"),
        (json!({"table": "sys_audit_log", "reason": "x", "minutes": 100_000}), "minutes"),
        (json!({"table": "sys_audit_log", "reason": "x", "ids": []}), "ids"),
        (json!({"table": "auth_audit_log", "reason": "x", "entity": {"table": "a", "key": "b"}}), "entity"),
        (json!({"table": "sys_audit_log", "reason": "x", "ids": [1], "entity": {"table": "a", "key": "b"}}), "entity"),
        (json!({"table": "sys_audit_log", "reason": "x", "until": 1}), "until"),
    ] {
        let answer = watched.ask(&both, "POST", "/api/v1/unmasking", &[], &body.to_string()).await;
        assert_eq!(answer.refusal(), (400, "invalid_parameter".to_owned()), "{body}");
        assert!(answer.text().contains(field), "{body}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_approval_is_asked_for_a_reason_is_enough() {
    let watched = Watched::start(false).await;
    watched.store(3).await;
    let viewer = watched.key("clerk", Role::Viewer).await;
    let asked = watched.ask(&viewer, "POST", "/api/v1/unmasking", &[], r#"{"table":"sys_audit_log","reason":"complaint","ids":[3]}"#).await;
    assert_eq!(asked.json()["status"], "APPROVED");
    let id = asked.json()["id"].to_string();
    let query = r#"{"query":"SELECT id FROM sys_audit_log WHERE new_values LIKE '%secret%'"}"#;
    let rows = watched.ask(&viewer, "POST", "/api/v1/sql", &[("muniment-unmasking", &id)], query).await.json();
    assert_eq!(rows, json!([{ "id": 3 }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_lists_say_how_many_rows_they_gave() {
    let watched = Watched::start(true).await;
    let (auditor, administrator) = (watched.key("inspector", Role::Auditor).await, watched.key("chief", Role::Administrator).await);
    for name in ["lan", "minh", "hoa"] {
        let body = json!({ "username": name }).to_string();
        assert_eq!(watched.ask(&administrator, "POST", "/api/v1/users", &[], &body).await.status, 201);
    }
    let session = watched.ask(&administrator, "POST", "/api/v1/sessions", &[], r#"{"session_id":"s-1","user_id":1}"#).await;
    assert_eq!(session.status, 201, "{}", session.text());
    let limit = r#"{"name":"api","endpoint":"/api/*","counted_by":"USER","limit_threshold":5,"time_window_seconds":60}"#;
    let limit = watched.ask(&administrator, "POST", "/api/v1/limits", &[], limit).await;
    let put = watched
        .ask(
            &administrator,
            "PUT",
            "/api/v1/limits/api",
            &[],
            r#"{"endpoint":"/api/*","counted_by":"USER","limit_threshold":5,"time_window_seconds":60}"#,
        )
        .await;
    let limits = u64::from(limit.status < 300 || put.status < 300);
    let doors = [
        ("/api/v1/users", 3),
        ("/api/v1/users?limit=2", 2),
        ("/api/v1/users/minh", 1),
        ("/api/v1/sessions", 1),
        ("/api/v1/sessions/open?by=user", 1),
        ("/api/v1/sessions/s-1", 1),
        ("/api/v1/investigations", 0),
        ("/api/v1/findings", 0),
        ("/api/v1/limits", limits),
        ("/api/v1/limits/violations", 0),
        ("/api/v1/metrics/thresholds", 0),
        ("/api/v1/metrics/aggregate?metric=latency", 0),
    ];
    for (path, rows) in doors {
        let answer = watched.ask(&auditor, "GET", path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let reading = watched.readings("inspector").await.pop().unwrap();
        assert_eq!((&reading["details"]["rows"], &reading["granted"]), (&json!(rows), &json!(true)), "{path}: {reading}");
        assert_eq!(reading["details"]["bytes"], answer.body.len(), "{path}: {reading}");
    }
    assert_eq!(limits, 1, "{} {}", limit.text(), put.text());
    for (path, rows) in [("/api/v1/access/keys", 2), ("/api/v1/access/roles", 0), ("/api/v1/sources", 1), ("/api/v1/sources/muniment", 1)] {
        let answer = watched.ask(&administrator, "GET", path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let reading = watched.readings("chief").await.pop().unwrap();
        assert_eq!(reading["details"]["rows"], rows, "{path}: {reading} {}", answer.text());
    }
}
