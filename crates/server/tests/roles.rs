//! Every role at every door, as the table in `docs/access.md` says, and attempts to get more than it says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Answer, Service};
use muniment_access::{Masking, Role};
use muniment_engine::identity::{ChangedBy, NewKey};
use muniment_server::AccessMode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const DOCUMENT: &str = include_str!("../../../docs/access.md");
const ATTEMPTS: &str = include_str!("roles/attempts.http");

/// A service with one key for each role, and records whose secrets all say so.
struct Roles {
    service: Service,
    keys: BTreeMap<&'static str, String>,
}

impl Roles {
    async fn start() -> Self {
        Self::with(&[], &[]).await
    }

    /// With masks by configuration.
    async fn with(masked: &[&str], shown: &[&str]) -> Self {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let masking = Masking::new(&texts(masked), &texts(shown)).unwrap();
        let service = Service::with(|_, server| (server.access, server.masking) = (AccessMode::Keys, masking)).await;
        let mut keys = BTreeMap::new();
        for role in Role::ALL {
            let wish = NewKey { name: role.name().to_owned(), roles: BTreeSet::from([role]), ..NewKey::default() };
            let key = service.engine.identities().create_key(&wish, muniment_engine::now(), &ChangedBy::default()).await.unwrap();
            keys.insert(role.name(), key.key);
        }
        let roles = Self { service, keys };
        for (log, lines) in records() {
            let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let answer = roles.ask("ingest", "POST", &format!("/api/v1/logs/{log}"), &[], &body).await;
            assert_eq!(answer.status, 201, "{log}: {}", answer.text());
        }
        roles
    }

    async fn ask(&self, role: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let key = format!("Bearer {}", self.keys[role]);
        let mut all = vec![("authorization", key.as_str())];
        all.extend(headers);
        self.service.send(method, path, &all, body.as_bytes()).await
    }

    async fn add_violation(&self, fields: &Value) {
        let table = muniment_model::table("rate_limit_violations").unwrap();
        let text = |name: &str| fields[name].as_str().unwrap().into();
        let values = vec![
            ("endpoint", text("endpoint")),
            ("ip_address", text("ip_address")),
            ("request_count", 7.into()),
            ("limit_threshold", 5.into()),
            ("time_window_minutes", 1.into()),
            ("violation_type", "USER".into()),
        ];
        let change = muniment_store::register::RegisterChange::Insert { table, values };
        self.service.engine.store().db().change_registers(&[change], &ChangedBy::default()).await.unwrap();
    }

    async fn sql(&self, role: &str, query: &str) -> Answer {
        self.ask(role, "POST", "/api/v1/sql", &[], &json!({ "query": query }).to_string()).await
    }
}

/// Records of every log. What a viewer may not see says `secret`.
fn records() -> Vec<(&'static str, Vec<Value>)> {
    let change = |key: &str, level: i64, transaction: &str| {
        json!({"table_name": "case.hoso", "primary_key": key, "operation": "INSERT", "compliance_level": level, "transaction_id": transaction,
            "new_values": {"id": key, "name": "secret"}, "ip_address": "203.0.113.77", "user_agent": "secret-agent", "session_id": "secret-session",
            "changed_by": 1, "changed_by_username": if level == 3 { "secret-user" } else { "lan" }, "changed_at": "2026-01-01T00:00:00Z"})
    };
    vec![
        ("sys_audit_log", vec![change("open", 1, "open-transaction"), change("secret-key", 3, "secret-transaction")]),
        (
            "auth_audit_log",
            vec![json!({"event_type": "LOGIN", "ip_address": "203.0.113.77", "details": {"a": "secret"}, "session_id": "secret"})],
        ),
        (
            "security_audit_log",
            vec![json!({"event_type": "LOGIN", "event_category": "AUTHENTICATION", "severity": 1, "ip_address": "203.0.113.77",
                "user_agent": "secret-agent", "threat_indicators": ["secret"]})],
        ),
        (
            "api_access_log",
            vec![
                json!({"method": "GET", "endpoint": "/", "request_headers": {"cookie": "secret"}, "ip_address": "203.0.113.77", "created_at": "2026-01-01T00:00:00Z"}),
            ],
        ),
        (
            "system_performance_log",
            vec![json!({"metric_name": "latency", "metric_category": "API", "metric_value": 1, "additional_data": {"a": "secret"}})],
        ),
    ]
}

/// The rows of the tables in the document whose first heading is this one: by first cell, then by role, what it says. Tables of an area are in `tables`.
fn matrix(heading: &str) -> Vec<(String, Vec<String>, BTreeMap<String, String>)> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let mut found = Vec::new();
    let mut names: Option<Vec<String>> = None;
    for line in DOCUMENT.lines() {
        if !line.starts_with('|') {
            names = None;
            continue;
        }
        let row = cells(line);
        match &names {
            None => names = Some(row),
            Some(names) if names[0] == heading && !row[0].starts_with("---") => {
                let has_tables = names[1] == "tables";
                let tables =
                    if has_tables { row[1].split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect() } else { Vec::new() };
                let from = 1 + usize::from(has_tables);
                let said = names[from..].iter().cloned().zip(row[from..].iter().cloned()).collect();
                found.push((row[0].trim_matches('`').to_owned(), tables, said));
            }
            Some(_) => {}
        }
    }
    found
}

fn said(heading: &str, row: &str, role: &str) -> String {
    matrix(heading).into_iter().find(|(name, ..)| name == row).unwrap_or_else(|| panic!("no {row}")).2[role].clone()
}

fn secret(answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body);
    text.contains("secret") || text.contains("203.0.113.77") || text.contains("736563726574")
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_shows_each_role_what_the_table_says() {
    let roles = Roles::start().await;
    let areas = matrix("area");
    let tables: BTreeSet<&str> = areas.iter().flat_map(|(_, tables, _)| tables.iter().map(String::as_str)).collect();
    assert_eq!(tables, muniment_model::tables().iter().map(|table| table.name).collect(), "the document has all tables");
    let mut checked = 0;
    for (area, tables, said) in &areas {
        for (role, says) in said {
            for table in tables {
                // Records of registers and findings come between.
                let rows = match table.as_str() {
                    "sys_audit_log" => "table_name NOT LIKE 'muniment.%'",
                    "security_audit_log" => "event_type = 'LOGIN'",
                    _ => "id <= 2",
                };
                let answer = roles.sql(role, &format!("SELECT * FROM {table} WHERE {rows} ORDER BY id")).await;
                let case = format!("{role} {area} {table} {says}: {} {}", answer.status, answer.text());
                let has_secrets = table.ends_with("_log");
                match says.as_str() {
                    "–" => assert!(matches!(answer.status, 400 | 403) && !secret(&answer), "{case}"),
                    "masked" => assert!(answer.status == 200 && !secret(&answer), "{case}"),
                    "in clear" | "confidential masked" => assert!(answer.status == 200 && secret(&answer) == has_secrets, "{case}"),
                    other => panic!("the document says {other}"),
                }
                if says == "masked" && has_secrets {
                    assert!(answer.text().contains("***"), "{case}");
                }
                checked += 1;
            }
        }
    }
    assert_eq!(checked, muniment_model::tables().len() * Role::ALL.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_door_keeps_to_the_table() {
    let roles = Roles::start().await;
    let histories = [
        ("GET", "/api/v1/entities/case.hoso/open/history", ""),
        ("GET", "/api/v1/entities/case.hoso/open/at?time=2030-01-01", ""),
        ("GET", "/api/v1/entities/case.hoso/at?time=2030-01-01", ""),
        ("GET", "/api/v1/entities/case.hoso/open/blame", ""),
        ("GET", "/api/v1/transactions/open-transaction", ""),
        ("POST", "/api/v1/undo", r#"{"transaction":"open-transaction","key":"id"}"#),
    ];
    for role in Role::ALL.map(Role::name) {
        let reads = said("area", "changes", role);
        for (method, path, body) in histories {
            let answer = roles.ask(role, method, path, &[], body).await;
            let case = format!("{role} {path}: {} {}", answer.status, answer.text());
            match reads.as_str() {
                "–" => assert!(answer.status == 403 && !secret(&answer), "{case}"),
                "masked" => assert!(matches!(answer.status, 200 | 409) && !secret(&answer), "{case}"),
                _ => assert!(answer.status == 200 && secret(&answer), "{case}"),
            }
        }
        for log in ["sys_audit_log", "auth_audit_log", "security_audit_log", "api_access_log", "system_performance_log"] {
            let proof = roles.ask(role, "GET", &format!("/api/v1/proofs/{log}/1"), &[], "").await;
            assert_eq!(proof.status, if said("action", "export", role) == "all" { 200 } else { 403 }, "{role} {log}");
            let line = records().into_iter().find(|(name, _)| *name == log).unwrap().1.remove(0).to_string();
            let stored = roles.ask(role, "POST", &format!("/api/v1/logs/{log}"), &[], &line).await;
            assert_eq!(stored.status, if said("action", "ingest", role) == "all" { 201 } else { 403 }, "{role} {log}");
        }
        let compared = roles.ask(role, "POST", "/api/v1/sources/none/reconcile", &[], "").await;
        assert_eq!(compared.status, if said("action", "verify", role) == "all" { 404 } else { 403 }, "{role}");
        for (action, method, path) in
            [("manage_keys", "GET", "/api/v1/access/keys"), ("configure", "GET", "/api/v1/sources"), ("read_metrics", "GET", "/metrics")]
        {
            let answer = roles.ask(role, method, path, &[], "").await;
            assert_eq!(answer.status, if said("action", action, role) == "yes" { 200 } else { 403 }, "{role} {action}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attempt_over_http_shows_a_secret() {
    attempt_all(&Roles::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attempt_over_http_shows_what_configuration_masks() {
    let masked = ["*.new_values.name", "*.username", "system_performance_log.metric_value", "rate_limit_violations.endpoint"];
    let roles = Roles::with(&masked, &["*.old_values", "*.new_values"]).await;
    attempt_all(&roles).await;
    let shown = roles.sql("viewer", "SELECT new_values FROM sys_audit_log WHERE primary_key = 'open'").await;
    assert_eq!(shown.json()[0]["new_values"], json!(r#"{"id":"open","name":{"$masked":true}}"#));
    let state = roles.ask("viewer", "GET", "/api/v1/entities/case.hoso/open/at?time=2030-01-01", &[], "").await.json();
    assert_eq!(state["document"], json!({"id": "open", "name": {"$masked": true}}));
    for format in ["text/csv", "application/x-ndjson", "application/vnd.apache.arrow.stream"] {
        let body = json!({ "query": "SELECT new_values FROM sys_audit_log" }).to_string();
        let answer = roles.ask("viewer", "POST", "/api/v1/sql", &[("accept", format)], &body).await;
        assert!(answer.status == 200 && !secret(&answer), "{format}: {}", answer.text());
    }
    let buckets = "/api/v1/metrics/aggregate?metric=latency&from=2020-01-01&bucket=1d";
    let mean = async |role: &str| roles.ask(role, "GET", buckets, &[], "").await.text();
    assert!(mean("auditor").await.contains("\"avg\":1.0"), "{}", mean("auditor").await);
    assert_eq!(mean("viewer").await, "[]");
    let violation = json!({"endpoint": "/secret", "ip_address": "203.0.113.77"});
    roles.add_violation(&violation).await;
    for (role, hidden) in [("viewer", true), ("investigator", false), ("auditor", false)] {
        let answer = roles.ask(role, "GET", "/api/v1/limits/violations", &[], "").await;
        assert!(answer.status == 200 && secret(&answer) != hidden, "{role}: {}", answer.text());
        let names = roles.sql(role, "SELECT username FROM security_audit_log WHERE username = 'auditor'").await;
        assert_eq!(names.json().as_array().unwrap().is_empty(), hidden, "{role}: {}", names.text());
    }
    assert!(secret(&roles.sql("auditor", "SELECT new_values FROM sys_audit_log").await));
}

/// Makes all attempts of the list.
async fn attempt_all(roles: &Roles) {
    let hashes: Vec<String> = {
        let lookup = muniment_store::register::Lookup::new(muniment_model::table("api_keys").unwrap(), Vec::new());
        let rows = roles.service.engine.store().db().find_in_register(&lookup).await.unwrap();
        rows.iter().map(|row| row.text("key_hash").unwrap().to_owned()).collect()
    };
    let mut made = 0;
    for attempt in ATTEMPTS.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = attempt.splitn(4, ' ');
        let (role, method, path, rest) =
            (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap_or_default());
        let (header, body) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((header, body)) => (header.split_once(": "), body.trim()),
            None => (None, rest),
        };
        let answer = roles.ask(role, method, path, header.as_slice(), body).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let hash = hashes.iter().any(|hash| text.contains(hash.as_str()));
        // What was asked is repeated in messages; it is no news to whoever asked.
        let own = |word: &str| body.contains(word) || path.contains(word);
        let told = ["name\":\"secret", "203.0.113.77", "secret-agent", "secret-session", "secret-user", "secret-key", "736563726574"];
        let leaked = told.iter().find(|word| text.contains(**word) && !own(word));
        assert!(leaked.is_none() && !hash && answer.status < 500, "{attempt}: {} {leaked:?} {text}", answer.status);
        made += 1;
    }
    assert!(made >= 50, "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_limited_to_tables_sees_no_other() {
    let roles = Roles::start().await;
    let wish = NewKey {
        name: "narrow".to_owned(),
        roles: BTreeSet::from([Role::Auditor]),
        tables: Some(BTreeSet::from(["auth_audit_log".to_owned()])),
        ..NewKey::default()
    };
    let created = roles.service.engine.identities().create_key(&wish, muniment_engine::now(), &ChangedBy::default()).await.unwrap();
    let key = format!("Bearer {}", created.key);
    let ask = async |method: &str, path: &str, body: &str| {
        roles.service.send(method, path, &[("authorization", &key)], body.as_bytes()).await.status
    };
    assert_eq!(ask("POST", "/api/v1/sql", r#"{"query":"SELECT * FROM auth_audit_log"}"#).await, 200);
    assert_eq!(ask("POST", "/api/v1/sql", r#"{"query":"SELECT * FROM sys_audit_log"}"#).await, 400);
    assert_eq!(ask("GET", "/api/v1/proofs/auth_audit_log/1", "").await, 200);
    assert_eq!(ask("GET", "/api/v1/proofs/sys_audit_log/1", "").await, 403);
    assert_eq!(ask("GET", "/api/v1/entities/case.hoso/open/history", "").await, 403);
}
