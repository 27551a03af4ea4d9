//! Logging in with a real OpenID provider (`oidc-provider` on Node.js) in a real browser (Chromium, driven over WebDriver), and tokens of programs.
//! `cargo xtask test` installs both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;
mod web;

use common::{LOG, Service, event};
use muniment_access::Role;
use muniment_server::{AccessMode, OidcConfig};
use muniment_store::register::{ChangedBy, Lookup, RegisterChange, RegisterRow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use web::{Browser, Provider};

const SECRET: &str = "not a secret: this provider is for tests only";

/// A service that knows a provider, and that provider.
async fn service() -> (Service, Provider) {
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let provider = Provider::start(&format!("http://{listen}/login/callback"));
    let roles = [("audit-team", Role::Auditor), ("senders", Role::Ingest)];
    let oidc = OidcConfig {
        issuer: provider.issuer.clone(),
        client_id: "muniment".to_owned(),
        client_secret: Some(SECRET.to_owned()),
        audience: Some("muniment-api".to_owned()),
        public_url: None,
        scopes: "openid profile email groups".to_owned(),
        roles_claim: "groups".to_owned(),
        roles: roles.into_iter().map(|(name, role)| (name.to_owned(), role)).collect::<BTreeMap<_, _>>(),
        ca: None,
    };
    let service = Service::with(|_, server| {
        server.access = AccessMode::Keys;
        server.listen = listen;
        server.oidc = Some(oidc);
    })
    .await;
    (service, provider)
}

async fn user(service: &Service, name: &str) -> RegisterRow {
    let table = muniment_model::table("users").unwrap();
    let found = service.engine.store().db().find_in_register(&Lookup::new(table, vec![("username", name.into())])).await.unwrap();
    found.into_iter().next().unwrap_or_else(|| panic!("no user {name}"))
}

/// Authentication events, oldest first.
async fn events(service: &Service) -> Vec<Value> {
    let query =
        muniment_engine::query::QueryEngine::new(service.engine.store().clone(), muniment_engine::query::QueryLimits::default()).unwrap();
    let question = "SELECT event_type, event_status, user_id, session_id, ip_address, details FROM auth_audit_log ORDER BY id";
    let rows = query.sql(question, Vec::new()).await.unwrap();
    let mut encoder =
        muniment_engine::query::output::Encoder::new(muniment_engine::query::output::OutputFormat::Json, &rows.schema).unwrap();
    let mut text = Vec::new();
    let mut rows = rows;
    while let Some(batch) = futures::StreamExt::next(&mut rows).await {
        text.extend_from_slice(&encoder.write(&batch.unwrap()).unwrap());
    }
    text.extend_from_slice(&encoder.finish().unwrap());
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_and_out_in_a_browser() {
    let (service, _provider) = service().await;
    let home = format!("http://{}/console", service.address);
    let browser = Browser::start();
    let session = tokio::task::block_in_place(|| {
        browser.go(&home);
        browser.log_in("lan");
        browser.wait_for(&home);
        assert_eq!((browser.text("#name"), browser.text("#roles")), ("lan".to_owned(), "auditor".to_owned()));
        assert!(browser.text("#reads").contains("sys_audit_log"));
        browser.cookie("muniment_session")
    });
    assert_eq!((&session["httpOnly"], &session["sameSite"]), (&json!(true), &json!("Lax")));
    let cookie = format!("muniment_session={}", session["value"].as_str().unwrap());
    let me = service.send("GET", "/api/v1/access/me", &[("cookie", &cookie)], b"").await.json();
    let lan = user(&service, "lan").await;
    assert_eq!((&me["user_id"], &me["name"]), (&json!(lan.id()), &json!("lan")));
    assert_eq!((lan.text("email"), lan.text("display_name")), (Some("lan@example.org"), Some("lan <b>Nguyễn</b>")));
    assert!(lan.text("source").unwrap().starts_with("oidc:127.0.0.1"));

    // A session reads for its page only, and changes nothing for a page that isn't named.
    let asked = service.send("POST", "/api/v1/sql", &[("cookie", &cookie)], br#"{"query":"SELECT 1"}"#).await;
    assert_eq!(asked.refusal(), (403, "cross_origin".to_owned()));
    let other = [("cookie", &*cookie), ("origin", "https://evil.example.org")];
    assert_eq!(service.send("POST", "/logout", &other, b"").await.refusal().0, 403);

    tokio::task::block_in_place(|| {
        browser.click("#logout");
        browser.wait_for_text("h1", "Logged out");
    });
    assert_eq!(service.send("GET", "/api/v1/access/me", &[("cookie", &cookie)], b"").await.refusal().0, 401);
    let events = events(&service).await;
    let seen: Vec<(&str, &str)> =
        events.iter().map(|event| (event["event_type"].as_str().unwrap(), event["event_status"].as_str().unwrap())).collect();
    assert_eq!(seen[..2], [("LOGIN", "SUCCESS"), ("LOGOUT", "SUCCESS")], "{events:?}");
    assert_eq!((&events[0]["user_id"], &events[0]["session_id"]), (&json!(lan.id()), &me["session_id"]));
    assert_eq!(events[0]["session_id"], events[1]["session_id"]);
    assert!(!format!("{events:?}").contains(session["value"].as_str().unwrap()), "the cookie is nobody's business");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_without_a_role_give_none_and_nobody_stays_who_is_deactivated() {
    let (service, _provider) = service().await;
    let home = format!("http://{}/console", service.address);
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        browser.go(&home);
        browser.log_in("minh");
        browser.wait_for(&home);
        assert_eq!((browser.text("#name"), browser.text("#roles")), ("minh".to_owned(), "nothing".to_owned()));
    });
    let identities = service.engine.identities();
    let minh = user(&service, "minh").await.id();
    identities.grant_role(minh, Role::Viewer, muniment_engine::now(), &ChangedBy::default()).await.unwrap();
    tokio::task::block_in_place(|| {
        browser.go(&home);
        assert_eq!(browser.text("#roles"), "viewer");
    });
    let table = muniment_model::table("users").unwrap();
    let change = RegisterChange::Update { table, id: minh, values: vec![("is_active", false.into())], expected: Vec::new() };
    service.engine.store().db().change_registers(&[change], &ChangedBy::default()).await.unwrap();
    tokio::task::block_in_place(|| {
        // The provider still knows minh and sends the browser back at once.
        browser.go(&home);
        assert_eq!((browser.text("h1"), browser.text("#reason")), ("Not logged in".to_owned(), "this user is deactivated".to_owned()));
    });
    let events = events(&service).await;
    assert_eq!(events.last().unwrap()["event_status"], "FAILURE", "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_here_asked_for_logs_nobody_in() {
    let (service, provider) = service().await;
    let begun = service.get("/login?return=//evil.example.org").await;
    assert_eq!(begun.status, 303);
    let place = begun.header("location").unwrap();
    assert!(place.starts_with(&format!("{}/auth?", provider.issuer)) && place.contains("code_challenge_method=S256"), "{place}");
    let state = place.split("state=").nth(1).unwrap().split('&').next().unwrap();
    let plain = state.replace("%2D", "-").replace("%5F", "_");
    let cookie = format!("muniment_login={plain}");
    let callback = |query: &str| format!("/login/callback?{query}");
    for (headers, query) in [
        (vec![], "code=x&state=y".to_owned()),
        (vec![], format!("code=x&state={state}")),
        (vec![("cookie", "muniment_login=other")], format!("code=x&state={state}")),
        (vec![("cookie", &*cookie)], format!("state={state}&error=access_denied&error_description=%3Cb%3Eno%3C/b%3E")),
        (vec![("cookie", &*cookie)], format!("code=x&state={state}")),
    ] {
        let answer = service.send("GET", &callback(&query), &headers, b"").await;
        assert_eq!(answer.status, 401, "{query}");
        assert!(answer.header("set-cookie").is_none() && !answer.text().contains("<b>no"), "{}", answer.text());
    }
    assert_eq!(events(&service).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_shows_a_token_of_the_provider() {
    let (service, provider) = service().await;
    let token = tokio::task::block_in_place(|| provider.token("muniment", SECRET));
    let shown = |token: &str| format!("Bearer {token}");
    for _ in 0..2 {
        let answer = service.send("POST", LOG, &[("authorization", &shown(&token))], event(1).as_bytes()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let refused = service.send("GET", "/api/v1/sql?q=SELECT%201", &[("authorization", &shown(&token))], b"").await;
    assert_eq!(refused.refusal().0, 403);
    let mut parts: Vec<&str> = token.split('.').collect();
    let forged = parts[2].chars().rev().collect::<String>();
    parts[2] = &forged;
    for wrong in [parts.join("."), "a.b.c".to_owned(), token[..token.len() - 4].to_owned()] {
        let answer = service.send("POST", LOG, &[("authorization", &shown(&wrong))], event(1).as_bytes()).await;
        assert_eq!(answer.refusal(), (401, "unauthenticated".to_owned()));
    }
    let events = events(&service).await;
    assert!(events.len() == 3 && events.iter().all(|event| event["event_type"] == "TOKEN"), "{events:?}");
}
