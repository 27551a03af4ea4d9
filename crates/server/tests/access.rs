//! Keys at the door: who gets in, who doesn't, and how soon a change counts.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Answer, LOG, Service, event};
use muniment_engine::identity::{ChangedBy, NewKey};
use muniment_server::AccessMode;
use serde_json::{Value, json};

/// A service that asks for keys, and its first administrator's key.
async fn service() -> (Service, String) {
    let service = Service::with(|_, server| server.access = AccessMode::Keys).await;
    let first = service.engine.identities().first_key(muniment_engine::now()).await.unwrap().unwrap();
    assert!(service.engine.identities().first_key(muniment_engine::now()).await.unwrap().is_none(), "there is only one first key");
    (service, first.key)
}

async fn ask(service: &Service, key: &str, method: &str, path: &str, body: &str) -> Answer {
    service.send(method, path, &[("authorization", &format!("Bearer {key}"))], body.as_bytes()).await
}

async fn new_key(service: &Service, administrator: &str, wish: Value) -> (String, i64) {
    let answer = ask(service, administrator, "POST", "/api/v1/access/keys", &wish.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let created = answer.json();
    (created["key"].as_str().unwrap().to_owned(), created["id"].as_i64().unwrap())
}

async fn status(service: &Service, key: &str) -> u16 {
    ask(service, key, "GET", "/api/v1/access/me", "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_only_what_is_public_is_answered() {
    let (service, administrator) = service().await;
    let document = service.get("/api/v1/openapi.json").await.json();
    let (nothing, _) = new_key(&service, &administrator, json!({ "name": "nothing", "roles": ["ingest"], "actions": ["read"] })).await;
    let mut public = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let concrete: String = path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect::<Vec<_>>().join("/");
            let answer = service.send(&method.to_uppercase(), &concrete, &[], b"").await;
            let is_page = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
            if answer.status != 401 || is_page {
                public.push(path.clone());
                continue;
            }
            assert_eq!(answer.refusal(), (401, "unauthenticated".to_owned()), "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"muniment\""));
            // Parameters that are missing may be told before it is decided that they would not have helped.
            let answer = ask(&service, &nothing, &method.to_uppercase(), &concrete, "").await;
            let told = ["/api/v1/access/me", "/api/v1/unmasking"].contains(&path.as_str());
            let nobodys = path.starts_with("/api/v1/unmasking/") && answer.status == 404;
            assert!(told || nobodys || matches!(answer.refusal(), (403, _) | (400, _)), "{method} {path}: {}", answer.text());
        }
    }
    public.sort();
    let wanted = ["/", "/api/v1/checkpoint", "/api/v1/openapi.json", "/healthz", "/readyz"];
    assert_eq!(public.into_iter().filter(|path| !path.starts_with("/log") && path != "/console").collect::<Vec<_>>(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_does_what_its_roles_and_limits_allow() {
    let (service, administrator) = service().await;
    let (ingest, _) = new_key(&service, &administrator, json!({ "name": "app", "roles": ["ingest"], "tables": ["sys_audit_log"] })).await;
    let (auditor, _) = new_key(&service, &administrator, json!({ "name": "audit", "roles": ["auditor"] })).await;
    assert_eq!(ask(&service, &ingest, "POST", LOG, &event(1)).await.status, 201);
    let elsewhere = ask(&service, &ingest, "POST", "/api/v1/logs/auth_audit_log", r#"{"event_type":"LOGIN"}"#).await;
    assert_eq!(elsewhere.refusal(), (403, "forbidden".to_owned()));
    assert!(elsewhere.text().contains("ingest of auth_audit_log (outside-the-scope)"), "{}", elsewhere.text());
    let question = r#"{"query":"SELECT count(*) AS n FROM sys_audit_log WHERE table_name = 'case.hoso'"}"#;
    assert_eq!(ask(&service, &ingest, "POST", "/api/v1/sql", question).await.refusal().0, 403);
    assert_eq!(ask(&service, &auditor, "POST", "/api/v1/sql", question).await.json(), json!([{ "n": 1 }]));
    assert_eq!(ask(&service, &auditor, "POST", LOG, &event(2)).await.refusal().0, 403);
    assert_eq!(ask(&service, &auditor, "GET", "/api/v1/access/keys", "").await.refusal().0, 403);
    assert_eq!(ask(&service, &administrator, "GET", "/api/v1/entities/case.hoso/1/history", "").await.refusal().0, 403);
    let me = ask(&service, &auditor, "GET", "/api/v1/access/me", "").await.json();
    assert_eq!((&me["name"], &me["roles"]), (&json!("audit"), &json!(["auditor"])));
    assert_eq!(me["may"], json!(["read", "read_unmasked", "export", "verify", "read_metrics"]));
    let keys = ask(&service, &administrator, "GET", "/api/v1/access/keys", "").await.text();
    assert!(keys.contains("\"app\"") && !keys.contains(&ingest) && !keys.contains("hash"), "{keys}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_that_make_no_sense_are_refused_with_the_field() {
    let (service, administrator) = service().await;
    for (wish, field) in [
        (json!({ "name": " ", "roles": ["viewer"] }), "name"),
        (json!({ "name": "x", "roles": [] }), "roles"),
        (json!({ "name": "x", "roles": ["king"] }), "king"),
        (json!({ "name": "x", "roles": ["viewer"], "tables": ["nowhere"] }), "tables"),
        (json!({ "name": "x", "roles": ["viewer"], "actions": ["conquer"] }), "actions"),
        (json!({ "name": "x", "roles": ["viewer"], "actions": [] }), "actions"),
        (json!({ "name": "x", "roles": ["viewer"], "expires_at": "2020-01-01" }), "expires_at"),
        (json!({ "name": "x", "roles": ["viewer"], "user_id": 999 }), "user_id"),
        (json!({ "name": "x", "roles": ["viewer"], "colour": "red" }), "colour"),
    ] {
        let answer = ask(&service, &administrator, "POST", "/api/v1/access/keys", &wish.to_string()).await;
        assert_eq!(answer.refusal(), (400, "invalid_parameter".to_owned()), "{wish}");
        assert!(answer.text().contains(field), "{wish}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_revocation_and_expiry_count_at_once() {
    let (service, administrator) = service().await;
    let (old, id) = new_key(&service, &administrator, json!({ "name": "app", "roles": ["ingest"] })).await;
    let rotated = ask(&service, &administrator, "POST", &format!("/api/v1/access/keys/{id}/rotate?grace=3600"), "").await.json();
    let (new, new_id) = (rotated["key"].as_str().unwrap(), rotated["id"].as_i64().unwrap());
    assert_eq!((status(&service, &old).await, status(&service, new).await), (200, 200));
    assert_eq!((&rotated["rotated_from"], &rotated["name"]), (&json!(id), &json!("app")));
    let again = ask(&service, &administrator, "POST", &format!("/api/v1/access/keys/{new_id}/rotate"), "").await.json();
    assert_eq!((status(&service, new).await, status(&service, again["key"].as_str().unwrap()).await), (401, 200));
    let revoked = ask(&service, &administrator, "DELETE", &format!("/api/v1/access/keys/{id}?reason=lost"), "").await.json();
    assert_eq!((&revoked["state"], &revoked["revoked_reason"]), (&json!("revoked"), &json!("lost")));
    assert_eq!(status(&service, &old).await, 401);
    assert_eq!(ask(&service, &administrator, "DELETE", "/api/v1/access/keys/999", "").await.refusal().0, 404);

    let now = muniment_engine::now();
    let wish = NewKey {
        name: "short".to_owned(),
        roles: ["viewer".parse().unwrap()].into(),
        expires_at: Some(now + 60_000_000),
        ..NewKey::default()
    };
    let short = service.engine.identities().create_key(&wish, now, &ChangedBy::default()).await.unwrap();
    let identities = service.engine.identities();
    assert!(identities.recognise(&short.key, now + 59_000_000).await.unwrap().is_ok());
    assert!(identities.recognise(&short.key, now + 60_000_000).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_key_does_no_more_than_the_user_may() {
    let (service, administrator) = service().await;
    let users = muniment_model::table("users").unwrap();
    let insert = muniment_store::register::RegisterChange::Insert { table: users, values: vec![("username", "lan".into())] };
    let user = service.engine.store().db().change_registers(&[insert], &ChangedBy::default()).await.unwrap()[0];
    let wish = json!({ "name": "lan's", "roles": ["auditor"], "user_id": user });
    assert_eq!(ask(&service, &administrator, "POST", "/api/v1/access/keys", &wish.to_string()).await.refusal().0, 400);
    for role in ["auditor", "viewer"] {
        let path = format!("/api/v1/access/users/lan/roles/{role}?reason=new%20colleague");
        assert_eq!(ask(&service, &administrator, "PUT", &path, "").await.status, 204);
    }
    let (key, _) = new_key(&service, &administrator, wish).await;
    let me = ask(&service, &key, "GET", "/api/v1/access/me", "").await.json();
    assert_eq!((&me["name"], &me["user_id"], &me["roles"]), (&json!("lan"), &json!(user), &json!(["auditor"])));
    let grants = ask(&service, &administrator, "GET", "/api/v1/access/roles", "").await.json();
    assert_eq!(grants.as_array().unwrap().len(), 2, "{grants}");
    let path = format!("/api/v1/access/users/{user}/roles/auditor");
    assert_eq!(ask(&service, &administrator, "DELETE", &path, "").await.status, 204);
    assert_eq!(ask(&service, &administrator, "DELETE", &path, "").await.refusal().0, 404);
    assert_eq!(ask(&service, &key, "GET", "/api/v1/access/me", "").await.json()["roles"], json!([]));
    let update = muniment_store::register::RegisterChange::Update {
        table: users,
        id: user,
        values: vec![("is_active", false.into())],
        expected: Vec::new(),
    };
    service.engine.store().db().change_registers(&[update], &ChangedBy::default()).await.unwrap();
    assert_eq!(status(&service, &key).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_recorded_and_then_told_to_wait_while_right_ones_pass() {
    let (service, administrator) = service().await;
    let wrong = format!("{}x", &administrator[..administrator.len() - 1]);
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(ask(&service, &wrong, "GET", "/api/v1/access/me", "").await.refusal());
    }
    assert!(answers.iter().all(|answer| *answer == (401, "unauthenticated".to_owned())), "{answers:?}");
    for _ in 0..3 {
        let answer = ask(&service, &wrong, "GET", "/api/v1/access/me", "").await;
        assert_eq!((answer.refusal().0, answer.header("retry-after").is_some()), (429, true));
    }
    assert_eq!(status(&service, &administrator).await, 200);
    let (auditor, _) = new_key(&service, &administrator, json!({ "name": "audit", "roles": ["auditor"] })).await;
    let question = json!({ "query": "SELECT event_type, event_status, ip_address, count(*) AS n, min(details) AS details FROM auth_audit_log GROUP BY 1, 2, 3 ORDER BY n" });
    let rows = ask(&service, &auditor, "POST", "/api/v1/sql", &question.to_string()).await.json();
    let seen: Vec<(&str, &str, &str, i64)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap();
            (text("event_type"), text("event_status"), text("ip_address"), row["n"].as_i64().unwrap())
        })
        .collect();
    assert_eq!(seen, [("LOCKOUT", "FAILURE", "127.0.0.1", 1), ("API_KEY", "FAILURE", "127.0.0.1", 10)]);
    let secret = wrong.rsplit('_').next().unwrap();
    assert!(rows.to_string().contains("the secret is wrong") && !rows.to_string().contains(secret), "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_bearer_key_is_refused_however_it_looks() {
    let (service, administrator) = service().await;
    let basic = ("authorization", "Basic YTpi");
    let nothing = ("authorization", "Bearer");
    let twice = format!("Bearer {administrator}");
    for headers in [vec![basic], vec![nothing], vec![("authorization", &*twice), ("authorization", &*twice)]] {
        assert_eq!(service.send("GET", "/api/v1/access/me", &headers, b"").await.refusal().0, 401, "{headers:?}");
    }
    let lower = format!("bearer  {administrator}");
    assert_eq!(service.send("GET", "/api/v1/access/me", &[("authorization", &lower)], b"").await.status, 200);
    // A large body that is refused is read far enough for its sender to see the answer.
    let answer = service.post(LOG, &[], vec![b'x'; 4 << 20]).await;
    assert_eq!(answer.refusal().0, 401);
}
