//! P1 and P2 against `kill -9`: a real server is killed at random moments while several senders write, and while it flushes and merges as often as it
//! can. Everything acknowledged is there once; what was not acknowledged is there once or not at all, whole; verification passes.
//!
//! `TEST_CRASH_ROUNDS` sets the number of rounds (default 12), `TEST_CRASH_SEED` the first random number.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod support;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::{Client, ServerProcess, query, verify};

const SENDERS: u64 = 4;

/// A small generator (SplitMix64, Steele, Lea and Flood 2014), so that a run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn request(request: u64, records: u64) -> String {
    (0..records)
        .map(|n| {
            format!(
                r#"{{"table_name":"case.hoso","operation":"UPDATE","primary_key":"{request}-{n}","old_values":{{"n":{n}}},"new_values":{{"n":{request}}}}}"#
            ) + "\n"
        })
        .collect()
}

/// Sends until the server is gone. Every third request is repeated with its key until it is acknowledged, by later rounds if need be.
fn send(address: &str, next: &AtomicU64, stop: &AtomicBool, seed: u64, ledger: &Ledger) {
    let (mut client, mut random) = (Client::new(address), Random(seed));
    while !stop.load(Ordering::Relaxed) {
        let open = ledger.open.lock().unwrap().pop();
        let (number, records) = open.unwrap_or_else(|| {
            let large = random.below(12) == 0;
            (next.fetch_add(1, Ordering::Relaxed), if large { 300 + random.below(300) } else { 1 + random.below(6) })
        });
        let key = format!("request-{number}");
        let keyed = number % 3 == 0;
        let headers = [("Idempotency-Key", key.as_str())];
        let answer = client.request("POST", "/api/v1/logs/sys_audit_log", &request(number, records), if keyed { &headers } else { &[] });
        match answer {
            Ok((200 | 201, _)) => drop(ledger.acknowledged.lock().unwrap().insert(number, records)),
            Ok((429 | 503, _)) if keyed => ledger.open.lock().unwrap().push((number, records)),
            Ok((429 | 503, _)) => {}
            Ok((status, body)) => panic!("{status}: {body}"),
            Err(_) => {
                if keyed {
                    ledger.open.lock().unwrap().push((number, records));
                } else {
                    ledger.unknown.lock().unwrap().insert(number, records);
                }
                return;
            }
        }
    }
}

/// What the senders know.
#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<HashMap<u64, u64>>,
    /// Sent, without a key, and never answered.
    unknown: Mutex<HashMap<u64, u64>>,
    /// With a key, and not acknowledged yet.
    open: Mutex<Vec<(u64, u64)>>,
}

#[test]
fn p1_kill_9_at_random_moments_loses_nothing_and_repeats_nothing() {
    let (rounds, seed) = (setting("TEST_CRASH_ROUNDS", 12), setting("TEST_CRASH_SEED", 7));
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let settings = [("MUNIMENT_FLUSH__BATCHES", "5"), ("MUNIMENT_FLUSH__AGE", "1s"), ("MUNIMENT_COMPACTION__MIN_FILES", "3")];
    let (next, ledger, mut random) = (AtomicU64::new(0), Ledger::default(), Random(seed));
    for round in 0..rounds {
        let mut server = ServerProcess::start(&data, &settings);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                let (address, seed) = (server.address.clone(), random.next());
                let (next, stop, ledger) = (&next, &stop, &ledger);
                scope.spawn(move || send(&address, next, stop, seed, ledger));
            }
            std::thread::sleep(Duration::from_millis(100 + random.below(1400)));
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        if round % 10 == 9 {
            let (valid, report) = verify(&data);
            assert!(valid, "round {round}: {report}");
        }
    }
    let server = ServerProcess::start(&data, &settings);
    let mut client = Client::new(&server.address);
    let open = std::mem::take(&mut *ledger.open.lock().unwrap());
    for (number, records) in open {
        let key = format!("request-{number}");
        let answer = client.request("POST", "/api/v1/logs/sys_audit_log", &request(number, records), &[("Idempotency-Key", &key)]).unwrap();
        assert!(matches!(answer.0, 200 | 201), "{answer:?}");
        ledger.acknowledged.lock().unwrap().insert(number, records);
    }
    drop(client);
    server.stop();
    check(&data, &ledger, rounds);
}

fn check(data: &std::path::Path, ledger: &Ledger, rounds: u64) {
    let (acknowledged, unknown) = (ledger.acknowledged.lock().unwrap(), ledger.unknown.lock().unwrap());
    let sql = "SELECT split_part(primary_key, '-', 1), count(*), count(DISTINCT primary_key) FROM audit.sys_audit_log GROUP BY 1";
    let mut stored = HashMap::new();
    for line in query(data, sql) {
        let numbers: Vec<u64> = line.split(',').map(|field| field.parse().unwrap()).collect();
        assert_eq!(numbers[1], numbers[2], "request {}: a record is there twice", numbers[0]);
        stored.insert(numbers[0], numbers[1]);
    }
    for (number, records) in acknowledged.iter() {
        assert_eq!(stored.remove(number), Some(*records), "request {number} was acknowledged");
    }
    let doubtful = stored.len();
    for (number, records) in stored {
        assert_eq!(unknown.get(&number), Some(&records), "request {number} was never answered, so it is there whole or not at all");
    }
    let (valid, report) = verify(data);
    assert!(valid, "{report}");
    let records: u64 = acknowledged.values().sum();
    let batches = query(data, "SELECT count(*) FROM audit.sys_audit_log");
    println!(
        "{rounds} rounds: {} requests ({records} records) acknowledged, all there once; {} unanswered, {doubtful} of them stored; {} records in all; verification passes",
        acknowledged.len(),
        unknown.len(),
        batches[0]
    );
}
