//! Sessions: from log-ins and log-outs, each record once; by the application itself; over by log-out or by time; too many at once are a finding.

use super::{Scene, by, object};
use muniment_engine::sessions::{CountBy, SessionConfig, SessionFilter};
use muniment_engine::{EngineConfig, EngineError};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

/// 2126-03-02T08:00:00Z, in µs: sessions that began then are not over while a test runs.
const EIGHT: i64 = 4_928_112_000_000_000;
const MINUTE: i64 = 60_000_000;
const SESSIONS: &str = "SELECT session_id, user_id, ip_address, created_at, last_activity_at, expires_at, is_active, logout_reason, logout_at \
                        FROM user_sessions ORDER BY session_id";

fn event(event_type: &str, session: &str, user: i64, minute: i64) -> Value {
    json!({
        "event_type": event_type, "session_id": session, "user_id": user, "ip_address": "10.0.0.7", "user_agent": "test/1",
        "device_fingerprint": "d-1", "created_at": EIGHT + minute * MINUTE,
    })
}

async fn following(concurrent: u32) -> Scene {
    let folder = TempDir::new().unwrap();
    let sessions = SessionConfig { concurrent, ..SessionConfig::default() };
    let scene = Scene::with(folder, EngineConfig { sessions, ..EngineConfig::new("") }).await;
    scene.engine.start_following().unwrap();
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn log_ins_open_sessions_and_log_outs_end_them() {
    let scene = following(0).await;
    let mut early = event("LOGOUT", "late", 7, 30);
    early["details"] = json!({ "reason": "idle" });
    let mut ends = event("LOGIN", "ends", 8, 0);
    ends["details"] = json!({ "expires_at": "2126-03-02T09:00:00Z" });
    let mut failed = event("LOGIN", "failed", 7, 0);
    failed["event_status"] = json!("FAILURE");
    let events = [
        event("LOGIN", "a", 7, 0),
        event("TOKEN_REFRESH", "a", 7, 10),
        event("TOKEN_REFRESH", "a", 7, 10),
        early,
        ends,
        failed,
        event("TOKEN_REFRESH", "unknown", 7, 0),
        event("LOGIN", "b", 7, 1),
        event("LOGOUT", "b", 7, 20),
        event("LOGIN", "late", 7, 2),
    ];
    scene.send("auth_audit_log", &events[..6]).await;
    scene.send("auth_audit_log", &events[6..]).await;
    scene.until("SELECT count(*) >= 4 AS done FROM user_sessions").await;
    insta::assert_snapshot!(scene.table(SESSIONS).await, @r"
    +------------+---------+------------+----------------------+----------------------+----------------------+-----------+---------------+----------------------+
    | session_id | user_id | ip_address | created_at           | last_activity_at     | expires_at           | is_active | logout_reason | logout_at            |
    +------------+---------+------------+----------------------+----------------------+----------------------+-----------+---------------+----------------------+
    | a          | 7       | 10.0.0.7   | 2126-03-02T08:00:00Z | 2126-03-02T08:10:00Z | 2126-03-02T20:00:00Z | true      |               |                      |
    | b          | 7       | 10.0.0.7   | 2126-03-02T08:01:00Z | 2126-03-02T08:20:00Z | 2126-03-02T20:01:00Z | false     | LOGOUT        | 2126-03-02T08:20:00Z |
    | ends       | 8       | 10.0.0.7   | 2126-03-02T08:00:00Z | 2126-03-02T08:00:00Z | 2126-03-02T09:00:00Z | true      |               |                      |
    | late       | 7       | 10.0.0.7   | 2126-03-02T08:02:00Z | 2126-03-02T08:30:00Z | 2126-03-02T20:30:00Z | false     | idle          | 2126-03-02T08:30:00Z |
    +------------+---------+------------+----------------------+----------------------+----------------------+-----------+---------------+----------------------+
    ");
    // What was taken is not taken again.
    let scene = scene.restarted().await;
    scene.engine.start_following().unwrap();
    scene.send("auth_audit_log", &[event("LOGOUT", "a", 7, 40)]).await;
    scene.until("SELECT count(*) = 3 AS done FROM user_sessions WHERE NOT is_active").await;
    let ended = "SELECT session_id, logout_reason, logout_at FROM user_sessions WHERE NOT is_active ORDER BY session_id";
    insta::assert_snapshot!(scene.table(ended).await, @r"
    +------------+---------------+----------------------+
    | session_id | logout_reason | logout_at            |
    +------------+---------------+----------------------+
    | a          | LOGOUT        | 2126-03-02T08:40:00Z |
    | b          | LOGOUT        | 2126-03-02T08:20:00Z |
    | late       | idle          | 2126-03-02T08:30:00Z |
    +------------+---------------+----------------------+
    ");
    let changed = "SELECT count(*) FILTER (WHERE operation = 'INSERT') AS inserts, count(DISTINCT primary_key) AS rows, max(changed_by_username) AS by \
                   FROM sys_audit_log WHERE table_name = 'muniment.user_sessions'";
    scene.settled().await;
    insta::assert_snapshot!(scene.table(changed).await, @r"
    +---------+------+-------------------+
    | inserts | rows | by                |
    +---------+------+-------------------+
    | 4       | 4    | muniment:sessions |
    +---------+------+-------------------+
    ");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sessions_at_once_than_allowed_are_a_finding() {
    let scene = following(2).await;
    let events: Vec<Value> = (0..4).map(|n| event("LOGIN", &format!("s{n}"), 7, n)).collect();
    scene.send("auth_audit_log", &events[..1]).await;
    scene.send("auth_audit_log", &events[1..]).await;
    let findings = "SELECT event_type, user_id, session_id, failure_reason, requires_investigation FROM security_audit_log ORDER BY id";
    scene.until("SELECT count(*) = 2 AS done FROM security_audit_log WHERE event_type = 'CONCURRENT_SESSIONS'").await;
    insta::assert_snapshot!(scene.table(findings).await, @r"
    +---------------------+---------+------------+----------------------------------------------+------------------------+
    | event_type          | user_id | session_id | failure_reason                               | requires_investigation |
    +---------------------+---------+------------+----------------------------------------------+------------------------+
    | CONCURRENT_SESSIONS | 7       | s2         | user 7 has 3 sessions at once; 2 are allowed | true                   |
    | CONCURRENT_SESSIONS | 7       | s3         | user 7 has 4 sessions at once; 2 are allowed | true                   |
    +---------------------+---------+------------+----------------------------------------------+------------------------+
    ");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_starts_touches_and_ends_sessions() {
    let scene = Scene::new().await;
    let engine = &scene.engine;
    engine.add_user(&object(json!({ "username": "lan" })), &by("admin")).await.unwrap();
    let start = |fields: Value| object(fields);
    let first = engine
        .start_session(&start(json!({ "user_id": 1, "ip_address": "10.0.0.1", "device_fingerprint": "d" })), &by("app"))
        .await
        .unwrap();
    assert_eq!((&first["is_active"], &first["open_sessions"], &first["over_limit"]), (&json!(true), &json!(1), &json!(false)));
    let id = first["session_id"].as_str().unwrap();
    for n in 2..=6 {
        let fields = json!({ "session_id": format!("s{n}"), "user_id": 1, "ip_address": "10.0.0.2" });
        let answer = engine.start_session(&start(fields), &by("app")).await.unwrap();
        assert_eq!(answer["over_limit"], n > 5, "{answer}");
    }
    insta::assert_snapshot!(scene.table("SELECT event_type, session_id, failure_reason FROM security_audit_log").await, @r"
    +---------------------+------------+----------------------------------------------+
    | event_type          | session_id | failure_reason                               |
    +---------------------+------------+----------------------------------------------+
    | CONCURRENT_SESSIONS | s6         | user 1 has 6 sessions at once; 5 are allowed |
    +---------------------+------------+----------------------------------------------+
    ");
    let touched = engine.touch_session(id, &object(json!({})), &by("app")).await.unwrap();
    assert_eq!(touched["last_activity_at"], first["last_activity_at"], "a time of less than a minute is not stored");
    engine.end_session(id, "LOGOUT", &by("app")).await.unwrap();
    let refused = async |outcome: Result<Value, EngineError>, expected: &str| {
        let text = outcome.map_or_else(|error| error.to_string(), |value| value.to_string());
        assert!(text.contains(expected), "{text}");
    };
    refused(engine.end_session(id, "LOGOUT", &by("app")).await, "is over: LOGOUT").await;
    refused(engine.touch_session(id, &object(json!({})), &by("app")).await, "is over: LOGOUT").await;
    refused(engine.start_session(&start(json!({ "session_id": "s2" })), &by("app")).await, "there is a session of this name").await;
    refused(engine.start_session(&start(json!({ "user_id": 99 })), &by("app")).await, "there is no such user").await;
    refused(engine.start_session(&start(json!({ "expires_at": "2020-01-01T00:00:00Z" })), &by("app")).await, "expires_at: must lie").await;
    refused(engine.touch_session("nobody", &object(json!({})), &by("app")).await, "was not found").await;
    let open = engine.sessions(&SessionFilter { active: Some(true), user_id: Some(1), ..SessionFilter::default() }).await.unwrap();
    assert_eq!(open.len(), 5);
    let counts = engine.open_sessions(CountBy::Address).await.unwrap();
    assert_eq!((counts.len(), &counts[0]["ip_address"], &counts[0]["sessions"]), (1, &json!("10.0.0.2"), &json!(5)));
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_time_is_over_is_not_open() {
    let folder = TempDir::new().unwrap();
    let sessions = SessionConfig { lifetime: Duration::from_millis(1), ..SessionConfig::default() };
    let scene = Scene::with(folder, EngineConfig { sessions, ..EngineConfig::new("") }).await;
    let session = scene.engine.start_session(&object(json!({ "session_id": "short" })), &by("app")).await.unwrap();
    assert_eq!(session["session_id"], "short");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let open = SessionFilter { active: Some(true), ..SessionFilter::default() };
    assert!(scene.engine.sessions(&open).await.unwrap().is_empty());
    let touched = scene.engine.touch_session("short", &object(json!({})), &by("app")).await;
    assert!(matches!(touched, Err(EngineError::Refused(_))), "{touched:?}");
    scene.engine.shutdown().await.unwrap();
}
