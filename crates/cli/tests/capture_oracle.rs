//! P2, P3, P4 and P8 for captured changes: a random workload runs on a real database while it is captured, and what the log adds up to is what the tables
//! hold, at the end and at instants in between. The database is the oracle.
//!
//! `TEST_WORKLOAD_SEED` sets the seed, `TEST_WORKLOAD_TRANSACTIONS` the number of transactions of each of four sessions.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod captured;
mod support;

use captured::{Audited, DATABASE, SOURCE, check_instant, check_journal, check_positions};
use muniment_testkit::workload::{Ddl, Instant, TABLES, Workload, WorkloadOptions};
use muniment_testkit::{PostgresOptions, PostgresServer};
use std::time::Duration;

const SESSIONS: u64 = 4;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

async fn check(url: fn(&PostgresServer, &str) -> String, attach: &[&str]) {
    let is_queue = attach.contains(&"queue");
    let mut audited = Audited::start(&PostgresOptions::default().setting("deadlock_timeout", "50ms")).await;
    let options =
        WorkloadOptions { seed: setting("TEST_WORKLOAD_SEED", 1), ddl: Ddl::Plain, beyond_json: !is_queue, ..WorkloadOptions::default() };
    let connect = audited.server.connect_options(DATABASE);
    let workload = Workload::create(connect.clone(), options).await.unwrap();
    let tables = ["--table", "shop.*", "--table", "\"Số liệu\".*"];
    audited.attach_at(&url(&audited.server, DATABASE), &[&tables, attach].concat());
    let transactions = setting("TEST_WORKLOAD_TRANSACTIONS", 150);
    let running = tokio::spawn(async move { workload.run(SESSIONS, transactions).await.unwrap() });
    let mut instants = Vec::new();
    while !running.is_finished() && instants.len() < 6 {
        instants.push(Instant::read(&connect, &TABLES).await.unwrap());
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let outcome = running.await.unwrap();
    assert!(outcome.committed > SESSIONS * transactions / 2, "{outcome:?}");
    instants.push(Instant::read(&connect, &TABLES).await.unwrap());
    audited.caught_up().await;
    let log = audited.log("true");
    for (number, instant) in instants.iter().enumerate() {
        check_instant(&log, instant, &format!("instant {} of {}, {outcome:?}", number + 1, instants.len()));
    }
    check_journal(&log, instants.last().unwrap());
    if !is_queue {
        check_positions(&log);
    }
    let reconciled = audited.command(&["reconcile", SOURCE]);
    let printed = String::from_utf8(reconciled.stdout).unwrap();
    assert!(reconciled.status.success(), "{printed}{}", String::from_utf8_lossy(&reconciled.stderr));
    assert!(printed.ends_with("no difference\n"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replication() {
    check(PostgresServer::url, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_through_the_socket() {
    check(PostgresServer::socket_url, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queue() {
    check(PostgresServer::url, &["--mode", "queue"]).await;
}
