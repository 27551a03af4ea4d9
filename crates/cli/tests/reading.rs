//! P9 against `kill -9`: what was answered before the server died is on the record, however soon after the answer it died.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a failed step is a failed test")]

mod common;

use common::{Place, Running};
use std::sync::Mutex;
use std::time::Duration;

/// Asks until the server is gone; returns the reasons of the questions that were answered in full.
fn read(url: &str, key: &str, round: u32, asker: u32) -> Vec<String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(20))).build().into();
    let mut answered = Vec::new();
    for number in 0.. {
        let reason = format!("round {round} asker {asker} question {number}.");
        let request = agent.get(format!("{url}/api/v1/sql?q=SELECT%20username%20FROM%20users"));
        let asked = request.header("authorization", &format!("Bearer {key}")).header("muniment-reason", &reason).call();
        let Ok(mut response) = asked else { break };
        let status = response.status().as_u16();
        let Ok(text) = response.body_mut().read_to_string() else { break };
        assert_eq!(status, 200, "{text}");
        answered.push(reason);
    }
    answered
}

#[test]
fn p9_what_was_answered_before_a_kill_is_on_the_record() {
    let place = Place::new();
    let mut auditor = None;
    let answered = Mutex::new(Vec::new());
    for round in 0..3 {
        let mut server = Running::start(&place, &["serve", "--access", "keys"]);
        let key = auditor.get_or_insert_with(|| {
            let file = place.path("muniment-data/administrator.key");
            while !file.exists() {
                std::thread::sleep(Duration::from_millis(20));
            }
            let administrator = file.to_str().unwrap();
            let made = ["access", "keys", "create", "inspector", "--role", "auditor", "--key-file", administrator];
            let told = place.succeed(&made);
            told.split_whitespace().find(|word| word.starts_with("mnt_")).unwrap_or_else(|| panic!("{told}")).to_owned()
        });
        std::thread::scope(|scope| {
            for asker in 0..3 {
                let (url, key, answered) = (&server.url, &*key, &answered);
                scope.spawn(move || answered.lock().unwrap().extend(read(url, key, round, asker)));
            }
            std::thread::sleep(Duration::from_millis(700 + 150 * u64::from(round)));
            server.child.kill().unwrap();
        });
        server.child.wait().unwrap();
    }
    let recorded = place.succeed(&["sql", "--format", "csv", "SELECT details FROM security_audit_log WHERE username = 'inspector'"]);
    let answered = answered.into_inner().unwrap();
    assert!(answered.len() > 10, "{}", answered.len());
    for reason in &answered {
        assert!(recorded.contains(reason.as_str()), "{reason} was answered and is not on the record");
    }
}
