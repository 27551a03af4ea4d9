//! Users, sessions and cases over HTTP: what is answered, what is refused and how, and that each change is on the record with its maker and reason.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Answer, Service};
use serde_json::{Value, json};

async fn post(service: &Service, path: &str, body: Value) -> Answer {
    service.post(path, &[("muniment-reason", "ticket 4711")], body.to_string()).await
}

async fn done(service: &Service, path: &str, body: Value, status: u16) -> Value {
    let answer = post(service, path, body).await;
    assert_eq!(answer.status, status, "{path}: {}", answer.text());
    answer.json()
}

async fn refused(service: &Service, path: &str, body: Value, status: u16, code: &str) {
    let answer = post(service, path, body).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (status, &json!(code)), "{path}: {}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_added_imported_resolved_and_deactivated() {
    let service = Service::start().await;
    let user = done(&service, "/api/v1/users", json!({ "username": "lan", "external_id": "hr/1" }), 201).await;
    assert_eq!(user["id"], 1);
    refused(&service, "/api/v1/users", json!({ "username": "lan" }), 409, "refused").await;
    refused(&service, "/api/v1/users", json!({ "username": 7 }), 400, "invalid_parameter").await;
    let csv = "username,display_name\nminh,Minh\nan,\n";
    let imported = service.post("/api/v1/users/import", &[("content-type", "text/csv")], csv).await;
    assert_eq!(imported.json(), json!({ "added": 2, "updated": 0, "unchanged": 0 }));
    let again = service.post("/api/v1/users/import", &[("content-type", "text/csv")], csv).await;
    assert_eq!((again.status, &again.json()["total"], &again.json()["errors"][0]["line"]), (422, &json!(2), &json!(2)));
    assert_eq!(service.post("/api/v1/users/import", &[("content-type", "text/plain")], csv).await.status, 415);
    let resolved = done(&service, "/api/v1/users/resolve", json!({ "external_ids": ["hr/1", "hr/2"] }), 200).await;
    assert_eq!(resolved, json!({ "hr/1": 1, "hr/2": null }));
    assert_eq!(service.get("/api/v1/users/hr%2F1").await.json()["username"], "lan");
    assert_eq!(service.get("/api/v1/users/nobody").await.status, 404);
    let changed = service.send("PATCH", "/api/v1/users/minh", &[], br#"{"email":"minh@example.vn"}"#).await;
    assert_eq!(changed.json()["email"], "minh@example.vn");
    let user = done(&service, "/api/v1/users/minh/deactivate", json!({}), 200).await;
    assert_eq!(user["is_active"], false);
    assert_eq!(service.get("/api/v1/users?active=false").await.json().as_array().unwrap().len(), 1);
    let ids = done(&service, "/api/v1/users/2/external-ids", json!({ "external_id": "oidc-9", "system": "oidc" }), 201).await;
    assert_eq!(ids["external_ids"], json!([{ "external_id": "oidc-9", "system": "oidc" }]));
    let sql = "SELECT operation, change_reason FROM sys_audit_log WHERE table_name = 'muniment.users' AND primary_key = '1'";
    let mut rows = json!([]);
    for _ in 0..200 {
        rows = service.sql(sql).await;
        if rows != json!([]) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(rows, json!([{ "operation": "INSERT", "change_reason": "ticket 4711" }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_started_touched_and_ended() {
    let service = Service::start().await;
    done(&service, "/api/v1/users", json!({ "username": "lan" }), 201).await;
    let new = json!({ "session_id": "s/1", "user_id": 1, "ip_address": "10.0.0.1", "location": { "city": "Hanoi" } });
    let session = done(&service, "/api/v1/sessions", new.clone(), 201).await;
    assert_eq!((&session["location"]["city"], &session["open_sessions"]), (&json!("Hanoi"), &json!(1)));
    refused(&service, "/api/v1/sessions", new, 409, "refused").await;
    refused(&service, "/api/v1/sessions", json!({ "ip_address": "here" }), 400, "invalid_parameter").await;
    done(&service, "/api/v1/sessions/s%2F1/touch", json!({}), 200).await;
    assert_eq!(service.get("/api/v1/sessions/open?by=user").await.json()[0]["sessions"], 1);
    let ended = done(&service, "/api/v1/sessions/s%2F1/end", json!({ "reason": "LOGOUT" }), 200).await;
    assert_eq!((&ended["is_active"], &ended["logout_reason"]), (&json!(false), &json!("LOGOUT")));
    refused(&service, "/api/v1/sessions/s%2F1/end", json!({ "reason": "LOGOUT" }), 409, "refused").await;
    refused(&service, "/api/v1/sessions/nobody/end", json!({ "reason": "LOGOUT" }), 404, "not_found").await;
    assert_eq!(service.get("/api/v1/sessions?active=true").await.json(), json!([]));
    assert_eq!(service.get("/api/v1/sessions?user_id=1").await.json()[0]["session_id"], "s/1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_goes_its_way() {
    let service = Service::start().await;
    let event = json!({ "event_type": "ACCESS_DENIED", "event_category": "AUTHORIZATION", "severity": 3, "ip_address": "10.0.0.9" });
    done(&service, "/api/v1/logs/security_audit_log", event, 201).await;
    let case = done(&service, "/api/v1/investigations", json!({ "title": "Who?", "security_audit_id": 1 }), 201).await;
    assert_eq!(case["status"], "pending");
    refused(&service, "/api/v1/investigations", json!({ "title": "Who?", "security_audit_id": 1 }), 409, "refused").await;
    refused(&service, "/api/v1/investigations", json!({ "title": "Who?", "security_audit_id": 7 }), 404, "not_found").await;
    let status = "/api/v1/investigations/1/status";
    refused(&service, status, json!({ "status": "resolved", "outcome": "x" }), 409, "refused").await;
    refused(&service, status, json!({ "status": "none" }), 400, "invalid_parameter").await;
    done(&service, status, json!({ "status": "in_progress" }), 200).await;
    refused(&service, status, json!({ "status": "resolved" }), 400, "invalid_parameter").await;
    done(&service, "/api/v1/investigations/1/notes", json!({ "note": "asked the owner" }), 201).await;
    let evidence = done(&service, "/api/v1/investigations/1/evidence", json!({ "log": "security_audit_log", "id": 1 }), 201).await;
    assert_eq!(evidence["evidence"][0]["record_id"], 1);
    done(&service, status, json!({ "status": "resolved", "outcome": "harmless" }), 200).await;
    let rows = service.sql("SELECT investigation_status, investigation_notes FROM security_audit_log WHERE id = 1").await;
    assert_eq!(rows[0]["investigation_status"], 3);
    assert!(rows[0]["investigation_notes"].as_str().unwrap().ends_with(": asked the owner"));
    assert_eq!(service.get("/api/v1/investigations?status=resolved").await.json()[0]["outcome"], "harmless");
    done(&service, "/api/v1/findings", json!({ "event_category": "AUTHENTICATION", "severity_level": "HIGH" }), 201).await;
    let resolve = "/api/v1/findings/1/resolve";
    done(&service, resolve, json!({ "analyst_notes": "a drill", "false_positive": true }), 200).await;
    refused(&service, resolve, json!({ "analyst_notes": "a drill" }), 409, "refused").await;
    assert_eq!(service.get("/api/v1/findings?resolved=true").await.json()[0]["false_positive"], true);
}
