//! Investigations: one state after the other, notes and evidence; the seeds' columns show them on the record, which itself stays as it was.

use super::{Scene, by, object};
use muniment_engine::cases::{CaseFilter, EvidenceRequest, NewCase, Resolution, Status, Step};
use muniment_engine::evidence::{VerifyOptions, verify_store};
use muniment_engine::{ChangedBy, EngineError};
use serde_json::{Value, json};

fn investigator() -> ChangedBy {
    ChangedBy { user_id: Some(1), ..by("lan") }
}

fn to(status: Status, outcome: Option<&str>) -> Step {
    Step { status, outcome: outcome.map(str::to_owned), note: None }
}

fn refused(outcome: Result<Value, EngineError>, expected: &str) {
    let text = outcome.map_or_else(|error| error.to_string(), |value| value.to_string());
    assert!(text.contains(expected), "{text}");
}

async fn scene() -> Scene {
    let scene = Scene::new().await;
    scene.engine.add_user(&object(json!({ "username": "lan" })), &by("admin")).await.unwrap();
    let event = |n: i64| json!({ "event_type": "ACCESS_DENIED", "event_category": "AUTHORIZATION", "severity": 3, "ip_address": "10.0.0.9", "requires_investigation": true, "event_time": 1_772_438_400_000_000_i64 + n });
    scene.send("security_audit_log", &[event(1), event(2), event(3)]).await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn an_investigation_goes_from_state_to_state() {
    let scene = scene().await;
    let engine = &scene.engine;
    let new = NewCase {
        title: "Who was that?".to_owned(),
        security_audit_id: Some(2),
        note: Some("seen at night".to_owned()),
        ..NewCase::default()
    };
    let case = engine.open_case(&new, &investigator()).await.unwrap();
    assert_eq!((&case["id"], &case["status"], &case["opened_by"]), (&json!(1), &json!("pending"), &json!(1)));
    refused(engine.open_case(&new, &investigator()).await, "investigation 1 of it is open");
    refused(engine.open_case(&NewCase { security_audit_id: Some(99), ..new.clone() }, &investigator()).await, "was not found");
    refused(engine.open_case(&NewCase::default(), &investigator()).await, "title: must not be empty");
    refused(
        engine.step_case(1, &to(Status::Resolved, Some("x")), &investigator()).await,
        "is pending; what may follow is in_progress, not resolved",
    );
    refused(engine.step_case(1, &to(Status::Pending, None), &investigator()).await, "is pending; what may follow is in_progress");
    let case = engine.step_case(1, &to(Status::InProgress, None), &investigator()).await.unwrap();
    assert_eq!((&case["status"], &case["assigned_to"]), (&json!("in_progress"), &json!(1)));
    let evidence = EvidenceRequest { log: "security_audit_log".to_owned(), id: 2, note: Some("the event".to_owned()) };
    let case = engine.add_evidence(1, &evidence, &investigator()).await.unwrap();
    assert_eq!(case["evidence"][0]["blockchain_hash"].as_str().unwrap().len(), 64);
    refused(engine.add_evidence(1, &EvidenceRequest { id: 99, ..evidence.clone() }, &investigator()).await, "was not found");
    engine.note_case(1, "spoke to the owner", &investigator()).await.unwrap();
    refused(engine.note_case(1, " ", &investigator()).await, "note: must not be empty");
    refused(engine.step_case(1, &to(Status::Resolved, None), &investigator()).await, "outcome: is missing");
    let case = engine.step_case(1, &to(Status::Resolved, Some("a new colleague")), &investigator()).await.unwrap();
    assert_eq!(case["notes_added"].as_array().unwrap().len(), 2);
    assert!(case["resolved_at"].is_string() && case["resolved_by"] == 1, "{case}");
    refused(engine.step_case(1, &to(Status::InProgress, None), &investigator()).await, "what may follow is nothing");
    refused(engine.assign_case(1, Some(1), &investigator()).await, "is resolved");
    refused(engine.add_evidence(1, &evidence, &investigator()).await, "is resolved");
    let open = CaseFilter { status: Some(Status::Pending), ..CaseFilter::default() };
    assert!(engine.cases(&open).await.unwrap().is_empty());
    scene.settled().await;
    let together = "SELECT count(DISTINCT transaction_id) = 1 AND count(*) = 2 AS together FROM (SELECT transaction_id FROM sys_audit_log WHERE table_name LIKE 'muniment.inv%' ORDER BY id LIMIT 2)";
    scene.until(together).await;
    let audited = "SELECT table_name, count(*) AS changes, max(changed_by) AS by FROM sys_audit_log WHERE table_name LIKE 'muniment.inv%' GROUP BY 1 ORDER BY 1";
    scene.settled().await;
    insta::assert_snapshot!(scene.table(audited).await, @r"
    +---------------------------------+---------+----+
    | table_name                      | changes | by |
    +---------------------------------+---------+----+
    | muniment.investigation_evidence | 1       | 1  |
    | muniment.investigation_notes    | 2       | 1  |
    | muniment.investigations         | 5       | 1  |
    +---------------------------------+---------+----+
    ");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_of_the_record_show_its_investigation_and_the_record_stays() {
    let scene = scene().await;
    let engine = &scene.engine;
    for id in [1, 2] {
        let new = NewCase { title: format!("case {id}"), security_audit_id: Some(id), ..NewCase::default() };
        engine.open_case(&new, &investigator()).await.unwrap();
    }
    engine.step_case(2, &to(Status::InProgress, None), &investigator()).await.unwrap();
    engine.note_case(2, "spoke to the owner", &investigator()).await.unwrap();
    engine.step_case(2, &to(Status::Resolved, Some("harmless")), &investigator()).await.unwrap();
    let columns = "id, investigation_status, recorded_investigation_status AS recorded, investigated_by, investigated_at IS NOT NULL AS at, investigation_id AS case, investigation_notes";
    let records = format!("SELECT {columns} FROM security_audit_log ORDER BY id");
    insta::assert_snapshot!(scene.table(&records).await, @r"
    +----+----------------------+----------+-----------------+-------+------+-------------------------+
    | id | investigation_status | recorded | investigated_by | at    | case | investigation_notes     |
    +----+----------------------+----------+-----------------+-------+------+-------------------------+
    | 1  | 1                    | 0        |                 | false | 1    |                         |
    | 2  | 3                    | 0        | 1               | true  | 2    | lan: spoke to the owner |
    | 3  | 0                    | 0        |                 | false |      |                         |
    +----+----------------------+----------+-----------------+-------+------+-------------------------+
    ");
    let counted = "SELECT investigation_status, count(*) AS n FROM security_audit_log WHERE requires_investigation GROUP BY 1 ORDER BY 1";
    insta::assert_snapshot!(scene.table(counted).await, @r"
    +----------------------+---+
    | investigation_status | n |
    +----------------------+---+
    | 0                    | 1 |
    | 1                    | 1 |
    | 3                    | 1 |
    +----------------------+---+
    ");
    insta::assert_snapshot!(scene.table("SELECT id FROM security_audit_log WHERE investigation_status = 3 AND investigated_by = 1").await, @r"
    +----+
    | id |
    +----+
    | 2  |
    +----+
    ");
    insta::assert_snapshot!(scene.table("SELECT count(*) AS n FROM security_audit_log WHERE investigation_status = 0").await, @r"
    +---+
    | n |
    +---+
    | 1 |
    +---+
    ");
    engine.flush_all().await.unwrap();
    insta::assert_snapshot!(scene.table("SELECT id FROM security_audit_log WHERE investigation_status = 3 AND investigated_by = 1").await, @r"
    +----+
    | id |
    +----+
    | 2  |
    +----+
    ");
    let report = verify_store(engine.store(), VerifyOptions::default()).await.unwrap();
    assert!(report.is_valid(), "{report:?}");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finding_is_entered_and_dealt_with_once() {
    let scene = scene().await;
    let engine = &scene.engine;
    let new = object(
        json!({ "event_category": "AUTHENTICATION", "severity_level": "HIGH", "threat_type": "BRUTE_FORCE", "source_ip": "192.0.2.1", "user_id": 1 }),
    );
    let finding = engine.add_finding(&new, &investigator()).await.unwrap();
    assert_eq!((&finding["id"], &finding["detection_method"], &finding["is_resolved"]), (&json!(1), &json!("manual"), &json!(false)));
    refused(engine.add_finding(&object(json!({ "severity_level": "LOW" })), &investigator()).await, "event_category: is missing");
    refused(
        engine.add_finding(&object(json!({ "event_category": "x", "severity_level": "LOW", "source_ip": "here" })), &investigator()).await,
        "source_ip: must be",
    );
    let resolution = Resolution { false_positive: true, analyst_notes: "a test of the alarm".to_owned(), mitigation_action: None };
    let finding = engine.resolve_finding(1, &resolution, &investigator()).await.unwrap();
    assert_eq!((&finding["false_positive"], &finding["resolved_by"]), (&json!(true), &json!("lan")));
    refused(engine.resolve_finding(1, &resolution, &investigator()).await, "was resolved by lan");
    refused(engine.resolve_finding(2, &resolution, &investigator()).await, "finding 2 was not found");
    scene.engine.shutdown().await.unwrap();
}
