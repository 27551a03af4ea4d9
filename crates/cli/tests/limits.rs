//! Rate limits and measures as a user meets them: the commands, and counts that a kill neither loses nor repeats.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Place, Running};
use serde_json::{Value, json};
use std::time::Duration;

const SERVE: &[&str] = &["serve", "--access", "open"];

/// Calls of some users within an hour that is long over.
fn calls(round: usize, request: usize) -> String {
    let call = |n: usize| {
        let time = format!("2025-03-14T09:{:02}:{:02}Z", (n * 7 + request) % 60, (n + round) % 60);
        json!({ "method": "GET", "endpoint": "/cases/7", "user_id": n % 3 + 1, "ip_address": "198.51.100.4", "created_at": time })
    };
    json!((0..50).map(call).collect::<Vec<Value>>()).to_string()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..600 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} did not come");
}

#[test]
fn calls_are_counted_once_across_kills() {
    let place = Place::new();
    let mut server = Running::start(&place, SERVE);
    place.succeed(&["limits", "set", "cases", "--endpoint", "/cases/*", "--by", "user", "--limit", "10", "--window", "1h"]);
    for round in 0..4 {
        for request in 0..5 {
            assert_eq!(server.post("/api/v1/logs/api_access_log", &calls(round, request)).0, 201);
            std::thread::sleep(Duration::from_millis(20 * round as u64));
        }
        server.child.kill().unwrap();
        drop(server);
        server = Running::start(&place, SERVE);
    }
    // A call of another time of day closes the window, so that its row has the last count.
    let later = json!({ "method": "GET", "endpoint": "/cases/7", "user_id": 9, "created_at": "2025-03-14T12:00:00Z" });
    assert_eq!(server.post("/api/v1/logs/api_access_log", &later.to_string()).0, 201);
    let counted = "SELECT subject, request_count AS calls FROM rate_limit_violations ORDER BY subject";
    let logged =
        "SELECT CAST(user_id AS VARCHAR) AS subject, count(*) AS calls FROM api_access_log WHERE user_id < 9 GROUP BY 1 ORDER BY 1";
    let ask = |query: &str| place.succeed(&["sql", "--format", "csv", query]);
    let expected = ask(logged);
    assert_eq!(expected.lines().count(), 4, "{expected}");
    until("every call once", || ask(counted) == expected);
    assert_eq!(server.stop(), 0);
}

#[test]
fn limits_and_measures_on_the_command_line() {
    let place = Place::new();
    let (code, message) = place.fail(&["limits", "list"]);
    assert_eq!(code, 2, "{message}");
    let server = Running::start(&place, SERVE);
    place.succeed(&["limits", "set", "login", "--endpoint", "/login", "--by", "address", "--limit", "2", "--block", "15m"]);
    let check = ["limits", "check", "/login", "--address", "192.0.2.9"];
    let shown = place.succeed(&check);
    assert!(shown.starts_with("allowed, 1 left"), "{shown}");
    place.succeed(&check);
    let refused = place.run(&check);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stdout).unwrap().contains("login blocked 192.0.2.9"));
    let listed: Value = serde_json::from_str(&place.succeed(&["limits", "violations", "--blocked", "--json"])).unwrap();
    let id = listed[0]["id"].to_string();
    let (code, message) = place.fail(&["limits", "unblock", "9999", "--reason", "x"]);
    assert!(code == 2 && message.contains("violation 9999"), "{message}");
    let lifted = place.succeed(&["limits", "unblock", &id, "--reason", "called the help desk"]);
    assert_eq!(lifted, "192.0.2.9 is no longer blocked.\n");
    assert!(place.succeed(&check).starts_with("allowed"));
    // Who changed what and why is on the record.
    let query =
        "SELECT count(*) FROM sys_audit_log WHERE table_name = 'muniment.rate_limit_violations' AND change_reason = 'called the help desk'";
    until("the record of the change", || place.number(query) == 1);
    place.succeed(&["metrics", "set-threshold", "response_time", "--unit", "ms", "--warning", "500", "--critical", "2000"]);
    let measured = r#"{"metric_name":"response_time","metric_category":"API","metric_value":0.75,"metric_unit":"s"}"#;
    assert_eq!(server.post("/api/v1/logs/system_performance_log", measured).0, 201);
    let buckets: Value = serde_json::from_str(&place.succeed(&["metrics", "show", "response_time", "--json"])).unwrap();
    assert_eq!((&buckets[0]["max"], &buckets[0]["exceeded"]), (&json!(0.75), &json!(1)));
    assert!(place.succeed(&["monitoring"]).contains("queue depth"));
    assert_eq!(server.stop(), 0);
    // The same without a server.
    assert!(place.succeed(&["limits", "list"]).contains("login"));
    assert!(place.succeed(&["metrics", "thresholds"]).contains("response_time"));
    place.succeed(&["metrics", "remove-threshold", "1"]);
    place.succeed(&["limits", "remove", "login"]);
    assert!(place.succeed(&["limits", "list"]).starts_with("There is no limit"));
    assert_eq!(place.fail(&["limits", "check", "/login"]).0, 2);
}
