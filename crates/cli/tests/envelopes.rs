//! Envelopes from files with the real binary, killed and repeated, and what is asked about them afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod common;

use common::{Place, Running};
use std::fmt::Write;
use std::process::Stdio;
use std::time::Duration;

/// Inserts of Debezium, one a line; ten share a time and three a position.
fn inserts(ids: std::ops::Range<u32>) -> String {
    ids.fold(String::new(), |mut text, id| {
        let source = format!(
            r#"{{"connector":"mysql","db":"shop","table":"t","file":"binlog.000003","pos":{},"row":0,"ts_ms":{}}}"#,
            4 + id / 3,
            1_700_000_000_000_u64 + u64::from(id / 10)
        );
        let _ = writeln!(text, r#"{{"op":"c","before":null,"after":{{"id":{id},"note":"x"}},"source":{source}}}"#);
        text
    })
}

const INGEST: [&str; 8] = ["ingest", "--format", "debezium", "--source", "shop", "--key", "id", "events.json"];

fn killed_and_repeated(place: &Place, records: u64) {
    for millis in [150, 300, 500] {
        let mut ingest = place.command(&INGEST).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        let _ = ingest.kill();
        ingest.wait().unwrap();
    }
    place.succeed(&INGEST);
    assert_eq!(place.number("SELECT count(*) FROM sys_audit_log"), records);
    assert_eq!(place.number("SELECT count(DISTINCT primary_key) FROM sys_audit_log"), records);
}

#[test]
fn a_killed_ingest_of_envelopes_repeated_loses_and_repeats_nothing() {
    let place = Place::new();
    place.write("events.json", &inserts(0..40_000));
    killed_and_repeated(&place, 40_000);
    place.write("copy.json", &inserts(39_000..41_000));
    let told = place.succeed(&["ingest", "--format", "debezium", "--source", "shop", "--key", "id", "copy.json"]);
    assert!(told.contains("1000 records stored") && told.contains("1000 were stored before"), "{told}");
    let server = Running::start(&place, &["serve"]);
    place.write("events.json", &inserts(0..42_000));
    let told = place.succeed(&INGEST);
    assert!(told.contains("1000 records stored") && told.contains("41000 were stored before"), "through the server: {told}");
    drop(server);
    let (code, told) = place.fail(&["ingest", "--format", "debezium", "--log", "auth_audit_log", "events.json"]);
    assert_eq!((code, told.contains("goes to sys_audit_log")), (2, true), "{told}");
    place.write("bad.json", &inserts(50_000..50_002).replace("\"after\":{\"id\":50001", "\"behind\":{\"id\":50001"));
    let (code, told) = place.fail(&["ingest", "--format", "debezium", "bad.json"]);
    assert_eq!((code, told.contains("bad.json: line 2, after: it is missing")), (1, true), "{told}");
}

#[test]
fn what_comes_through_a_pipe_is_stored_while_it_stays_open() {
    let place = Place::new();
    let lines = inserts(0..30);
    let lines: Vec<&str> = lines.split_inclusive('\n').collect();
    for served in [false, true] {
        let server = served.then(|| Running::start(&place, &["serve"]));
        let before = if served { 15 } else { 0 };
        let mut ingest = place
            .command(&["ingest", "--format", "debezium", "--source", "shop", "--key", "id", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut pipe = ingest.stdin.take().unwrap();
        let stored = |wanted: u64| {
            let began = std::time::Instant::now();
            let count = || place.run(&["sql", "--format", "csv", "SELECT count(*) FROM sys_audit_log"]).stdout;
            while String::from_utf8(count()).unwrap().lines().nth(1) != Some(&wanted.to_string()) {
                assert!(began.elapsed() < Duration::from_secs(30), "{wanted} are not stored while the pipe is open");
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        let mut write = |text: &str| {
            std::io::Write::write_all(&mut pipe, text.as_bytes()).unwrap();
            std::io::Write::flush(&mut pipe).unwrap();
        };
        // Two lines and half of the third, its other half, the rest.
        let (half, rest) = lines[before + 2].split_at(40);
        write(&[lines[before], lines[before + 1], half].concat());
        stored(before as u64 + 2);
        write(rest);
        stored(before as u64 + 3);
        write(&lines[before + 3..before + 15].concat());
        drop(pipe);
        assert!(ingest.wait().unwrap().success());
        assert_eq!(place.number("SELECT count(DISTINCT primary_key) FROM sys_audit_log"), before as u64 + 15);
        drop(server);
    }
}

#[test]
fn blame_transaction_and_undo_of_wal2json() {
    let place = Place::new();
    let transaction = |number: u32, change: &str| {
        format!(
            r#"{{"xid":{number},"nextlsn":"0/{number}","timestamp":"2026-01-31 09:00:0{number}+00","change":[{{"kind":"message","transactional":true,"prefix":"muniment.context","content":"{{\"user_name\":\"lan\",\"change_reason\":\"why {number}\"}}"}},{change}]}}"#
        )
    };
    let columns = |n: &str| {
        format!(r#""columnnames":["id","n"],"columntypes":["integer","numeric"],"columnvalues":[1,{n}],"pk":{{"pknames":["id"]}}"#)
    };
    let insert = transaction(1, &format!(r#"{{"kind":"insert","schema":"case","table":"hoso",{}}}"#, columns("1.50")));
    let old = r#""oldkeys":{"keynames":["id","n"],"keytypes":["integer","numeric"],"keyvalues":[1,1.50]}"#;
    let update = transaction(2, &format!(r#"{{"kind":"update","schema":"case","table":"hoso",{},{old}}}"#, columns("2.50")));
    place.write("changes.json", &format!("{insert}\n{update}\n"));
    place.succeed(&["ingest", "--format", "wal2json", "--source", "shop", "changes.json"]);
    let blame = place.succeed(&["blame", "case.hoso", "1"]);
    assert!(blame.contains("n: 2.50\n  since 2026-01-31T09:00:02Z by lan (UPDATE, record 2)\n  why: why 2"), "{blame}");
    let shown = place.succeed(&["transaction", "shop:2@0/2"]);
    assert!(shown.starts_with("shop:2@0/2: 1 changes\n\ncase.hoso 1\n2026-01-31T09:00:02Z  UPDATE  by lan"), "{shown}");
    let script = place.succeed(&["undo", "--transaction", "shop:2@0/2"]);
    assert!(script.contains("UPDATE \"case\".\"hoso\" AS t SET \"n\" = o.\"n\"") && script.ends_with("COMMIT;\n"), "{script}");
    let by_user = place.succeed(&["undo", "--user", "lan", "--from", "2026-01-01", "--to", "2026-02-01", "--dialect", "sqlite"]);
    assert!(by_user.contains("DELETE FROM \"case\".\"hoso\""), "{by_user}");
    let (code, told) = place.fail(&["undo", "--record", "1"]);
    assert_eq!((code, told.contains("record 1 (case.hoso 1): the row was changed again by the later record 2")), (1, true), "{told}");
    assert_eq!(place.fail(&["undo"]).0, 2);
    assert_eq!(place.fail(&["undo", "--user", "lan"]).0, 2);
}
