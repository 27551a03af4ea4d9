//! Keys from the first start to everyday use, with the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Place, Running, changes};

#[test]
fn the_first_key_makes_the_others() {
    let place = Place::new();
    changes(&place.path("events.ndjson"), 0..50);
    let server = Running::start(&place, &["serve", "--access", "keys"]);
    let first = place.path("muniment-data/administrator.key");
    let began = std::time::Instant::now();
    while !first.exists() {
        assert!(began.elapsed().as_secs() < 30, "no key was made");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&first).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let first = first.to_str().unwrap();

    let ingest = ["ingest", "--log", "sys_audit_log", "events.ndjson"];
    let (code, error) = place.fail(&ingest);
    assert!(code == 2 && error.contains("401") && error.contains("--key-file or in MUNIMENT_KEY"), "{error}");
    let (_, error) = place.fail(&[&ingest[..], &["--key-file", first]].concat());
    assert!(error.contains("403") && error.contains("ingest of sys_audit_log"), "{error}");
    let made = place.succeed(&["access", "keys", "create", "loader", "--role", "ingest", "--expires", "1d", "--key-file", first]);
    let key = made.trim();
    assert!(key.starts_with("mnt_") && key.len() == 4 + 12 + 1 + 32, "{made}");
    let output = place.command(&ingest).env("MUNIMENT_KEY", key).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let who = place.command(&["access", "whoami"]).env("MUNIMENT_KEY", key).output().unwrap();
    assert!(String::from_utf8_lossy(&who.stdout).starts_with("loader: ingest\nmay: ingest"), "{who:?}");

    let list = place.succeed(&["access", "keys", "list", "--key-file", first]);
    assert!(list.contains("first administrator") && list.contains("loader") && !list.contains(key), "{list}");
    place.succeed(&["access", "keys", "revoke", "2", "--reason", "test is over", "--key-file", first]);
    let output = place.command(&["access", "whoami"]).env("MUNIMENT_KEY", key).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("revoked"), "{output:?}");
    assert_eq!(server.stop(), 0);
    assert_eq!(place.number("SELECT count(*) FROM sys_audit_log WHERE table_name = 'case.hoso'"), 50);

    // Whoever owns the folder needs no key.
    let rescue = place.succeed(&["access", "keys", "create", "rescue", "--role", "administrator"]);
    place.write("rescue.key", &rescue);
    let list = place.succeed(&["access", "keys", "list", "--json"]);
    assert!(list.contains("at the data folder"), "{list}");
    let server = Running::start(&place, &["serve", "--access", "keys"]);
    assert!(place.succeed(&["access", "whoami", "--key-file", "rescue.key"]).starts_with("rescue: administrator"));
    assert_eq!(server.stop(), 0);
}

#[test]
fn somebody_asks_to_see_what_is_masked_and_somebody_else_decides() {
    let place = Place::new();
    for (name, role) in [("viewer", "viewer"), ("officer", "compliance_officer")] {
        if name == "viewer" {
            changes(&place.path("events.ndjson"), 0..3);
            place.succeed(&["ingest", "--log", "sys_audit_log", "events.ndjson"]);
        }
        let key = place.succeed(&["access", "keys", "create", name, "--role", role]);
        place.write(&format!("{name}.key"), &key);
    }
    let (code, error) = place.fail(&["unmask", "list"]);
    assert!(code == 2 && error.contains("no server runs on the data folder"), "{error}");
    let server = Running::start(&place, &["serve", "--access", "keys"]);
    let viewer = |arguments: &[&str]| place.succeed(&[&["unmask"], arguments, &["--key-file", "viewer.key"]].concat());
    let officer = |arguments: &[&str]| place.succeed(&[&["unmask"], arguments, &["--key-file", "officer.key"]].concat());
    assert_eq!(viewer(&["list"]), "There is none.\n");
    let told = viewer(&["request", "sys_audit_log", "--reason", "complaint 17", "--entity", "case.hoso", "1", "--for", "30min"]);
    assert!(told.starts_with("Request 1 waits for somebody to approve it; then it is good until 2"), "{told}");
    let (code, error) = place.fail(&["unmask", "approve", "1", "--key-file", "viewer.key"]);
    assert!(code == 2 && error.contains("403"), "{error}");
    let list = officer(&["list", "--pending"]);
    assert!(list.contains("pending") && list.contains("case.hoso 1") && list.contains("complaint 17"), "{list}");
    assert!(officer(&["approve", "1", "--note", "seen it"]).starts_with("Request 1 is approved; it is good until 2"));
    assert_eq!(officer(&["list", "--pending"]), "There is none.\n");
    let shown = viewer(&["show", "1"]);
    assert!(
        shown.contains("state: approved\n") && shown.contains("decided by: officer\nd") && shown.contains("note: seen it\n"),
        "{shown}"
    );
    let key = std::fs::read_to_string(place.path("viewer.key")).unwrap();
    let history = |grant: Option<&str>| {
        let request = ureq::get(format!("{}/api/v1/entities/case.hoso/1/history", server.url))
            .header("authorization", format!("Bearer {}", key.trim()));
        let request = grant.into_iter().fold(request, |request, grant| request.header("muniment-unmasking", grant));
        request.call().unwrap().body_mut().read_to_string().unwrap()
    };
    let (clear, masked) = (history(Some("1")), history(None));
    assert!(clear.contains(r#""field":"n","old":1,"new":2"#) && !clear.contains("masked"), "{clear}");
    assert!(masked.contains(r#""fields":[],"masked":true"#), "{masked}");
    assert_eq!(viewer(&["end", "1"]), "Request 1 is ended.\n");

    let told = viewer(&["request", "sys_audit_log", "--reason", "again", "--id", "1", "--id", "2", "--json"]);
    assert!(told.contains("\"status\": \"PENDING\"") && told.contains("\"ids\""), "{told}");
    assert_eq!(officer(&["refuse", "2", "--note", "no need"]), "Request 2 is refused.\n");
    let list = viewer(&["list"]);
    assert!(list.contains("ended") && list.contains("refused") && list.contains("records 1, 2"), "{list}");
    for wrong in [&["request", "sys_audit_log"][..], &["request", "sys_audit_log", "--reason", "x", "--for", "90s"], &["approve"]] {
        assert_eq!(place.fail(&[&["unmask"], wrong, &["--key-file", "viewer.key"]].concat()).0, 2, "{wrong:?}");
    }
    let (_, error) = place.fail(&["unmask", "request", "api_keys", "--reason", "x", "--key-file", "viewer.key"]);
    assert!(error.contains("403"), "{error}");
    assert_eq!(server.stop(), 0);
}

#[test]
fn open_access_is_for_this_machine_only() {
    let place = Place::new();
    let (code, error) = place.fail(&["serve", "--access", "open", "--listen", "0.0.0.0:0"]);
    assert!(code == 2 && error.contains("access.mode"), "{error}");
    assert_eq!(place.fail(&["serve", "--access", "ajar"]).0, 2);
    assert!(!place.path("muniment-data").exists());
}
