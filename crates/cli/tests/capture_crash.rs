//! P2 and P3 for captured changes against `kill -9`: a random workload runs while Muniment or PostgreSQL is killed at random moments. In the end every
//! committed change is in the log once, and nothing else is.
//!
//! `TEST_CRASH_ROUNDS` sets the number of rounds (default 6; a thorough run is 100), `TEST_CRASH_SEED` the first random number.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod captured;
mod support;

use captured::{Audited, DATABASE, check_instant, check_journal, check_positions};
use muniment_testkit::workload::{Instant, Random, TABLES, Workload, WorkloadOptions};
use muniment_testkit::{PostgresOptions, PostgresServer};
use std::time::Duration;

const SESSIONS: u64 = 3;
/// More than any run gets through.
const TRANSACTIONS: u64 = 10_000_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

async fn check(url: fn(&PostgresServer, &str) -> String, attach: &[&str]) {
    let is_queue = attach.contains(&"queue");
    let (rounds, seed) = (setting("TEST_CRASH_ROUNDS", 6), setting("TEST_CRASH_SEED", 1));
    let mut audited = Audited::start(&PostgresOptions::default().setting("deadlock_timeout", "50ms")).await;
    let connect = audited.server.connect_options(DATABASE);
    let workload =
        Workload::create(connect.clone(), WorkloadOptions { seed, beyond_json: !is_queue, ..WorkloadOptions::default() }).await.unwrap();
    let tables = ["--table", "shop.*", "--table", "\"Số liệu\".*"];
    audited.attach_at(&url(&audited.server, DATABASE), &[&tables, attach].concat());
    let running = tokio::spawn({
        let workload = workload.clone();
        async move { workload.run(SESSIONS, TRANSACTIONS).await.unwrap() }
    });
    let mut random = Random::new(seed);
    let mut killed = [0, 0];
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(100 + random.below(1500))).await;
        let kills_muniment = random.percent(60);
        killed[usize::from(kills_muniment)] += 1;
        if kills_muniment {
            audited.muniment.kill();
            tokio::time::sleep(Duration::from_millis(random.below(500))).await;
            audited.start_again();
        } else {
            audited.server.kill9().unwrap();
            audited.server.restart().unwrap();
        }
    }
    workload.stop();
    let outcome = running.await.unwrap();
    let instant = Instant::read(&connect, &TABLES).await.unwrap();
    audited.caught_up().await;
    let log = audited.log("true");
    check_journal(&log, &instant);
    if !is_queue {
        check_positions(&log);
    }
    check_instant(&log, &instant, &format!("{outcome:?}, killed PostgreSQL and Muniment {killed:?} times"));
    println!("PostgreSQL and Muniment were killed {killed:?} times: {outcome:?}, {} records, none lost, none twice", log.len());
    audited.muniment.kill();
    let (valid, printed) = support::verify(&audited.muniment.data);
    assert!(valid, "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_survives() {
    check(PostgresServer::url, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_through_the_socket_survives() {
    check(PostgresServer::socket_url, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_survives() {
    check(PostgresServer::url, &["--mode", "queue"]).await;
}
