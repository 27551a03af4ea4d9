//! Registers through the real binary: users, sessions and cases on the command line, and every change of a register on the record once, through `kill -9` and
//! whoever makes it (P2, P8).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod common;

use common::{Place, Running};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use std::time::{Duration, Instant};

/// Runs SQL in the commit database as any program could.
fn behind_the_back(place: &Place, sql: String) {
    let url = format!("sqlite://{}", place.path("muniment-data/muniment.db").display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

/// Waits until a question is answered with this number.
fn until(place: &Place, query: &str, expected: u64) {
    let began = Instant::now();
    while place.number(query) != expected {
        assert!(began.elapsed() < Duration::from_secs(60), "{query} did not come to {expected}: {}", place.number(query));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn users_sessions_and_cases_on_the_command_line() {
    let place = Place::new();
    let server = Running::start(&place, &["serve"]);
    let added = place.succeed(&["users", "add", "lan", "--name", "Nguyen Lan", "--external-id", "hr-1", "--reason", "ticket 4711"]);
    assert_eq!(added, "lan (number 1) is added.\n");
    let csv = place.write("staff.csv", "username,display_name,external_id\nminh,Minh,hr-2\nan,,hr-2\n");
    let (code, told) = place.fail(&["users", "import", csv.to_str().unwrap()]);
    assert!(code == 1 && told.contains("line 3") && told.contains("external_id"), "{code}: {told}");
    let csv = place.write("staff.csv", "username,display_name,external_id\nminh,Minh,hr-2\nlan,Lan,hr-1\n");
    let imported = place.succeed(&["users", "import", csv.to_str().unwrap(), "--existing", "update"]);
    assert_eq!(imported, "1 added, 1 updated, 0 unchanged\n");
    assert_eq!(place.succeed(&["users", "deactivate", "hr-2"]), "minh (number 2) is deactivated.\n");
    assert!(place.succeed(&["users", "list", "--inactive"]).contains("minh"));
    // A log-in by external id opens a session.
    let login = r#"{"event_type":"LOGIN","user_id":"hr-1","session_id":"s-1","ip_address":"10.0.0.7"}"#;
    assert_eq!(server.post("/api/v1/logs/auth_audit_log", login).0, 201);
    until(&place, "SELECT count(*) FROM user_sessions WHERE session_id = 's-1' AND user_id = 1", 1);
    assert!(place.succeed(&["sessions", "list", "--user", "1"]).contains("s-1"));
    assert_eq!(place.succeed(&["sessions", "end", "s-1", "--because", "device lost"]), "s-1 ended: device lost\n");
    assert_eq!(place.succeed(&["sessions", "count"]), "There is none.\n");
    // A security record is investigated.
    let denied = r#"{"event_type":"ACCESS_DENIED","event_category":"AUTHORIZATION","severity":3,"ip_address":"10.0.0.9","event_time":1}"#;
    assert_eq!(server.post("/api/v1/logs/security_audit_log", denied).0, 201);
    let id = place.number("SELECT id FROM security_audit_log WHERE event_type = 'ACCESS_DENIED'").to_string();
    assert_eq!(place.succeed(&["cases", "open", "Who?", "--record", &id]), "Investigation 1 is pending.\n");
    let (code, told) = place.fail(&["cases", "resolve", "1", "--outcome", "x"]);
    assert!(code != 0 && told.contains("what may follow is in_progress"), "{told}");
    assert_eq!(place.succeed(&["cases", "start", "1"]), "Investigation 1 is in progress.\n");
    place.succeed(&["cases", "note", "1", "asked the owner"]);
    place.succeed(&["cases", "evidence", "1", "security_audit_log", &id]);
    assert_eq!(place.succeed(&["cases", "resolve", "1", "--outcome", "harmless"]), "Investigation 1 is resolved.\n");
    assert!(place.succeed(&["cases", "show", "1"]).contains(": asked the owner\n"));
    assert_eq!(place.number(&format!("SELECT investigation_status FROM security_audit_log WHERE id = {id}")), 3);
    assert!(place.succeed(&["sources"]).contains("registers"));
    let reasons = "SELECT count(*) FROM sys_audit_log WHERE table_name = 'muniment.users' AND change_reason = 'ticket 4711'";
    until(&place, reasons, 1);
    assert_eq!(server.stop(), 0);
    // The same without a server: the change is on the record when the command ends.
    place.succeed(&["users", "activate", "minh"]);
    assert_eq!(place.number("SELECT count(*) FROM sys_audit_log WHERE table_name = 'muniment.users' AND primary_key = '2'"), 3);
}

#[test]
fn p2_p8_every_change_of_a_register_is_recorded_once_through_kills() {
    let place = Place::new();
    let (mut users, mut foreign) = (0, 0);
    for round in 0..5_u64 {
        let mut server = Running::start(&place, &["serve"]);
        for n in 0..(3 + round * 4) {
            assert_eq!(server.post("/api/v1/users", &format!(r#"{{"username":"u-{round}-{n}"}}"#)).0, 201);
            users += 1;
            if n % 3 == 0 {
                behind_the_back(&place, format!("INSERT INTO users (username) VALUES ('foreign-{round}-{n}')"));
                foreign += 1;
            }
        }
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        behind_the_back(&place, format!("INSERT INTO users (username) VALUES ('meanwhile-{round}')"));
        foreign += 1;
    }
    let _server = Running::start(&place, &["serve"]);
    let of = |condition: &str| format!("SELECT count(*) FROM sys_audit_log WHERE table_name = 'muniment.users' AND {condition}");
    until(&place, &of("operation = 'INSERT'"), users + foreign);
    assert_eq!(place.number(&of("attribution = 'APPLICATION'")), users);
    assert_eq!(place.number(&of("attribution = 'NONE'")), foreign);
    let distinct = "SELECT count(DISTINCT primary_key) FROM sys_audit_log WHERE table_name = 'muniment.users'";
    assert_eq!(place.number(distinct), users + foreign);
    assert!(place.number("SELECT count(*) FROM security_audit_log WHERE event_type = 'UNATTRIBUTED_WRITE'") > 0);
}
