//! Scenarios with the real binary, from the first event to the auditor's desk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;

use common::{Place, Running, changes};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn served_posted_found_verified_and_handed_over() {
    let place = Place::new();
    let server = Running::start(&place, &["serve"]);
    let (status, answer) =
        server.post("/api/v1/logs/auth_audit_log", r#"{"user_id": 7, "event_type": "LOGIN", "ip_address": "192.0.2.9"}"#);
    assert_eq!(status, 201, "{answer}");
    let found = place.succeed(&["sql", "SELECT id, event_type, ip_address FROM auth_audit_log WHERE user_id = 7"]);
    assert_eq!(found, "id,event_type,ip_address\n1,LOGIN,192.0.2.9\n");
    let json = place.succeed(&["sql", "--format", "json", "SELECT count(*) AS n FROM auth_audit_log"]);
    assert_eq!(json, "[{\"n\":1}]\n");
    assert!(place.succeed(&["verify"]).starts_with("valid: "));

    let (code, error) = place.fail(&["compact"]);
    assert_eq!((code, error.contains(&server.url)), (2, true), "{error}");
    let rotated = place.succeed(&["key", "rotate"]);
    assert_ne!(rotated.trim(), server.key);
    place.succeed(&["prove", "auth_audit_log", "1", "--out", "proof.json"]);
    place.succeed(&["export", "--out", "bundle"]);
    place.succeed(&["export", "--out", "lines", "--record-format", "ndjson", "--log", "auth_audit_log"]);
    let key = server.key.clone();
    assert_eq!(server.stop(), 0);
    assert!(!place.path("muniment-data/server.json").exists());

    place.write("key.txt", &format!("{key}\n"));
    let shown = place.succeed(&["check", "proof.json", "--key", "key.txt"]);
    assert!(shown.starts_with("proven: record 1 of auth_audit_log") && shown.contains("ip_address: 192.0.2.9"), "{shown}");
    for bundle in ["bundle", "lines"] {
        assert!(place.succeed(&["verify", bundle, "--key", &key]).starts_with("valid: "));
    }
    let forged = std::fs::read_to_string(place.path("proof.json")).unwrap().replacen("\"id\": 1", "\"id\": 2", 1);
    place.write("forged.json", &forged);
    let output = place.run(&["check", "forged.json", "--key", &key]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("not proven"));
    assert_eq!(place.fail(&["check", "proof.json", "--key", "nonsense"]).0, 2);
    assert_eq!(place.fail(&["verify", "bundle"]).0, 2);
    assert_eq!(place.fail(&["verify", "--data", "absent"]).0, 2);
    assert!(!place.path("absent").exists());
}

#[test]
fn an_older_copy_of_the_data_folder_is_found_out() {
    let place = Place::new();
    changes(&place.path("a.ndjson"), 0..10);
    changes(&place.path("b.ndjson"), 10..20);
    place.succeed(&["ingest", "--log", "sys_audit_log", "a.ndjson"]);
    assert!(Command::new("cp").args(["-r", "muniment-data", "copy"]).current_dir(place.path("")).status().unwrap().success());
    place.succeed(&["ingest", "--log", "sys_audit_log", "b.ndjson"]);
    std::fs::remove_dir_all(place.path("muniment-data")).unwrap();
    std::fs::rename(place.path("copy"), place.path("muniment-data")).unwrap();
    let output = place.run(&["verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("cut"));
    let (code, error) = place.fail(&["ingest", "--log", "sys_audit_log", "b.ndjson"]);
    assert_eq!((code, error.contains("older copy")), (2, true), "{error}");
}

/// Starts an ingest and kills it after a while, some times over; then lets one finish.
fn killed_and_repeated(place: &Place, records: usize) {
    for millis in [150, 250, 400, 600] {
        let mut ingest = place.command(&["ingest", "--log", "sys_audit_log", "events.ndjson"]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        let _ = ingest.kill();
        ingest.wait().unwrap();
    }
    place.succeed(&["ingest", "--log", "sys_audit_log", "events.ndjson"]);
    assert_eq!(place.number("SELECT count(*) FROM sys_audit_log WHERE table_name NOT LIKE 'muniment.%'"), records as u64);
    assert_eq!(
        place.number("SELECT count(DISTINCT change_reason) FROM sys_audit_log WHERE table_name NOT LIKE 'muniment.%'"),
        records as u64
    );
}

#[test]
fn a_killed_ingest_repeated_loses_and_repeats_nothing() {
    let place = Place::new();
    changes(&place.path("events.ndjson"), 0..40_000);
    killed_and_repeated(&place, 40_000);
    changes(&place.path("events.ndjson"), 40_000..41_000);
    place.succeed(&["ingest", "--log", "sys_audit_log", "events.ndjson"]);
    assert_eq!(place.number("SELECT count(DISTINCT change_reason) FROM sys_audit_log WHERE table_name NOT LIKE 'muniment.%'"), 41_000);
    assert!(place.succeed(&["verify"]).starts_with("valid: "));
    assert!(place.succeed(&["compact"]).contains(" records in "));
    assert!(place.succeed(&["verify"]).starts_with("valid: "));
}

#[test]
fn through_a_server_and_then_directly_it_is_the_same_source() {
    let place = Place::new();
    changes(&place.path("events.ndjson"), 0..20_000);
    let server = Running::start(&place, &["serve"]);
    killed_and_repeated(&place, 20_000);
    let again = place.succeed(&[
        "ingest",
        "--server",
        &server.url,
        "--data",
        "elsewhere",
        "--log",
        "sys_audit_log",
        "--source",
        "x",
        "events.ndjson",
    ]);
    assert!(again.contains("20000 records stored"), "{again}");
    let again = place.succeed(&[
        "ingest",
        "--server",
        &server.url,
        "--data",
        "elsewhere",
        "--log",
        "sys_audit_log",
        "--source",
        "x",
        "events.ndjson",
    ]);
    assert!(again.contains(" 0 records stored") && again.contains("20000 were stored before"), "{again}");
    assert_eq!(server.stop(), 0);
    changes(&place.path("events.ndjson"), 20_000..20_500);
    let last = place.succeed(&["ingest", "--log", "sys_audit_log", "events.ndjson"]);
    assert!(last.contains(" 500 records stored"), "{last}");
    assert_eq!(place.number("SELECT count(*) FROM sys_audit_log WHERE table_name NOT LIKE 'muniment.%'"), 40_500);
}

#[test]
fn every_form_of_input() {
    let place = Place::new();
    changes(&place.path("events.ndjson"), 0..100);
    let lines = std::fs::read_to_string(place.path("events.ndjson")).unwrap();
    let array = format!("[\n{}\n]\n", lines.trim_end().replace('\n', ",\n"));
    place.write("array.json", &array.replace(",\"operation\"", ",\n  \"operation\""));
    place.write("objects.json", &lines.replace(",\"operation\"", ",\n  \"operation\""));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(lines.as_bytes()).unwrap();
    std::fs::write(place.path("events.gz"), packed.finish().unwrap()).unwrap();
    std::fs::write(place.path("events.zst"), zstd::encode_all(lines.as_bytes(), 3).unwrap()).unwrap();
    place.succeed(&["ingest", "--log", "sys_audit_log", "events.ndjson", "array.json", "objects.json", "events.gz", "events.zst"]);
    let input = std::fs::File::open(place.path("events.ndjson")).unwrap();
    assert!(place.command(&["ingest", "--log", "sys_audit_log", "-"]).stdin(input).output().unwrap().status.success());
    assert_eq!(place.number("SELECT count(*) FROM sys_audit_log WHERE table_name NOT LIKE 'muniment.%'"), 600);
    assert_eq!(place.number("SELECT count(*) FROM sys_audit_log WHERE change_reason = '42'"), 6);
}

#[test]
fn bad_records_are_named_and_the_rest_comes_in_once_they_are_corrected() {
    let place = Place::new();
    changes(&place.path("events.ndjson"), 0..50);
    let lines = std::fs::read_to_string(place.path("events.ndjson")).unwrap();
    let broken: Vec<String> =
        lines.lines().enumerate().map(|(at, line)| if at == 20 { line.replace("UPDATE", "UPSERT") } else { line.to_owned() }).collect();
    place.write("events.ndjson", &broken.join("\n"));
    for through_server in [false, true] {
        let server = through_server.then(|| Running::start(&place, &["serve"]));
        let (code, error) = place.fail(&["ingest", "--log", "sys_audit_log", "events.ndjson"]);
        assert_eq!((code, error.contains("events.ndjson: line 21, operation: must be one of")), (1, true), "{error}");
        drop(server);
    }
    place.write("array.json", &format!("[{}]", broken.join(",\n\n")));
    let (code, error) = place.fail(&["ingest", "--log", "sys_audit_log", "array.json"]);
    assert_eq!((code, error.contains("array.json: record 21, operation")), (1, true), "{error}");
    place.write("events.ndjson", &lines);
    place.succeed(&["ingest", "--log", "sys_audit_log", "events.ndjson"]);
    assert_eq!(place.number("SELECT count(*) FROM sys_audit_log WHERE table_name NOT LIKE 'muniment.%'"), 50);
    assert_eq!(place.fail(&["ingest", "--log", "no_log", "events.ndjson"]).0, 2);
    assert_eq!(place.fail(&["ingest", "--log", "sys_audit_log", "absent.ndjson"]).0, 2);
}

#[test]
fn history_and_state_of_an_entity() {
    let place = Place::new();
    let events = [
        r#"{"table_name":"case.hoso","operation":"INSERT","primary_key":"1","new_values":{"status":"NEW"},"changed_at":"2026-01-01T08:00:00Z","changed_by_username":"lan"}"#,
        r#"{"table_name":"case.hoso","operation":"UPDATE","primary_key":"1","old_values":{"status":"NEW"},"new_values":{"status":"PAID"},"changed_at":"2026-01-02T08:00:00Z","change_reason":"fee paid"}"#,
    ];
    place.write("events.ndjson", &events.join("\n"));
    place.succeed(&["ingest", "--log", "sys_audit_log", "events.ndjson"]);
    let history = place.succeed(&["history", "case.hoso", "1"]);
    for text in ["2 changes", "INSERT  by lan", "UPDATE  by nobody named", "why: fee paid", "status: \"NEW\" → \"PAID\""] {
        assert!(history.contains(text), "{text}\n{history}");
    }
    assert!(place.succeed(&["history", "case.hoso", "1", "--json"]).trim_start().starts_with('['));
    assert!(place.succeed(&["at", "case.hoso", "1", "--time", "2026-01-01T12:00:00Z"]).contains("NEW"));
    assert!(place.succeed(&["at", "case.hoso", "--time", "2026-02-01"]).contains("PAID"));
    assert_eq!(place.fail(&["at", "case.hoso", "1", "--time", "2025-01-01"]).0, 2);
    assert_eq!(place.fail(&["history", "case.hoso", "2"]).0, 2);
}

#[test]
fn the_demo_fills_every_log() {
    let place = Place::new();
    place.succeed(&["demo", "--listen", "127.0.0.1:0", "--duration", "3s", "--backfill", "3000"]);
    let text = place.succeed(&["demo", "--listen", "127.0.0.1:0", "--duration", "1s"]);
    assert!(text.contains("Things to try"), "{text}");
    for table in ["sys_audit_log", "auth_audit_log", "security_audit_log", "api_access_log", "system_performance_log", "users"] {
        let csv = place.succeed(&["sql", "--data", "muniment-demo", &format!("SELECT count(*) FROM {table}")]);
        assert!(csv.lines().nth(1).unwrap().parse::<u64>().unwrap() >= 40, "{table}: {csv}");
    }
    assert!(place.succeed(&["verify", "--data", "muniment-demo"]).starts_with("valid"));
}
