//! Sessions whose time is over.

#![allow(clippy::unwrap_used)]

use super::{SessionConfig, acting};
use crate::engine::{Engine, EngineConfig};
use serde_json::{Value, json};
use std::time::Duration;

fn object(value: &Value) -> serde_json::Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_time_is_over_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = SessionConfig { lifetime: Duration::from_millis(1), ..SessionConfig::default() };
    let engine = Engine::open(EngineConfig { sessions, ..EngineConfig::new(folder.path().join("data")) }).await.unwrap();
    engine.start_session(&object(&json!({ "session_id": "short" })), &acting()).await.unwrap();
    engine.start_session(&object(&json!({ "session_id": "long", "expires_at": "2126-01-01" })), &acting()).await.unwrap_err();
    let later = crate::now() + 3_600_000_000;
    engine.start_session(&object(&json!({ "session_id": "long", "expires_at": later })), &acting()).await.unwrap();
    while engine.expire_sessions().await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(engine.expire_sessions().await.unwrap(), 0);
    let session = engine.session("short").await.unwrap();
    assert_eq!((&session["is_active"], &session["logout_reason"]), (&json!(false), &json!("EXPIRED")));
    assert_eq!(session["logout_at"], session["expires_at"]);
    assert_eq!(engine.session("long").await.unwrap()["is_active"], true);
    engine.shutdown().await.unwrap();
}
