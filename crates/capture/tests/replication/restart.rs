//! Starting again: nothing twice, nothing missing; the slot moves, and only as far as it may.

use crate::support::*;
use muniment_capture::Source;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Transactions of many sizes, with everything that makes more than one record out of one message.
async fn work(server: &muniment_testkit::PostgresServer, rounds: u32) {
    let mut client = client(server, "work").await;
    for n in 0..rounds {
        let (from, to) = (n * 100, n * 100 + 1 + n * 7 % 50);
        let sql = format!(
            "BEGIN; INSERT INTO t SELECT n, 'x' FROM generate_series({from}, {to}) n; UPDATE t SET v = 'y' WHERE id BETWEEN {from} AND {to} AND id % 3 = 0;
             UPDATE t SET id = -id WHERE id > {to} - 20; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT"
        );
        run(&mut client, &sql).await;
        if n % 5 == 4 {
            run(&mut client, "TRUNCATE t, other").await;
        }
    }
}

const TABLES: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL; CREATE TABLE other (id int PRIMARY KEY)";

#[tokio::test]
async fn stopped_anywhere_nothing_is_lost_or_twice() {
    let server = server(TABLES).await;
    server.execute(DATABASE, "SELECT pg_copy_logical_replication_slot('s', 's_whole')").await.unwrap();
    work(&server, 30).await;
    let mut whole = config(&server);
    whole.slot = "s_whole".into();
    let mut whole = Store::open(whole).await;
    whole.catch_up(&server).await;

    let mut small = config(&server);
    small.limits.records = 7;
    let mut store = Store::open(small.clone()).await;
    let mut seed = 12345u32;
    let mut restarts = 0;
    while store.changes.len() < whole.changes.len() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        for _ in 0..seed >> 29 {
            if store.changes.len() < whole.changes.len() {
                store.step().await;
            }
        }
        // One batch that was read and never stored; sometimes one that was stored and never confirmed.
        if store.changes.len() < whole.changes.len() {
            let batch = store.next().await;
            if seed & 1 << 20 == 0 {
                store.keep(&batch);
            }
        }
        store.reopen(small.clone()).await;
        restarts += 1;
    }
    store.catch_up(&server).await;
    assert!(restarts > 20, "{restarts}");
    let positions: HashSet<&str> = store.changes.iter().map(|change| change["source_position"].as_str().unwrap()).collect();
    assert_eq!(positions.len(), store.changes.len());
    assert_eq!(store.changes, whole.changes);
    let reasons = |store: &Store| store.findings.iter().map(|finding| finding["failure_reason"].to_string()).collect::<Vec<_>>();
    assert_eq!(reasons(&store), reasons(&whole));
}

#[tokio::test]
async fn the_server_is_killed() {
    let mut server = server(TABLES).await;
    let mut store = Store::open(config(&server)).await;
    for round in 0..4 {
        run(
            &mut client(&server, "work").await,
            &format!("INSERT INTO other SELECT n FROM generate_series({}, {}) n", round * 100, round * 100 + 99),
        )
        .await;
        if round % 2 == 0 {
            store.step().await;
        }
        server.kill9().unwrap();
        server.restart().unwrap();
        // What had come is still there; then the stream ends with an error.
        let failed = tokio::time::timeout(Duration::from_secs(30), async {
            while let Ok(batch) = store.source.next().await {
                store.keep(&batch);
            }
        });
        failed.await.unwrap();
        store.source.start(store.position.as_deref()).await.unwrap();
    }
    store.catch_up(&server).await;
    let keys: Vec<i64> = store.changes.iter().map(|change| change["primary_key"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(keys, (0..400).collect::<Vec<i64>>());
    assert!(store.findings.iter().all(|finding| finding["event_type"] != "CAPTURE_GAP"));
}

#[tokio::test]
async fn the_slot_is_confirmed_only_as_told() {
    let server = server(TABLES).await;
    let mut config = config(&server);
    config.limits.records = 10;
    config.strict = true;
    let confirmed = async || {
        let text = ask(&server, "SELECT (confirmed_flush_lsn - '0/0')::int8::text FROM pg_replication_slots").await;
        text.parse::<u64>().unwrap()
    };
    let mut store = Store::open(config).await;
    let start = confirmed().await;
    server.execute(DATABASE, "INSERT INTO other SELECT generate_series(1, 100)").await.unwrap();
    while store.changes.len() < 50 {
        let batch = store.next().await;
        store.keep(&batch);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(confirmed().await, start);
    // Within the transaction: not beyond it.
    let within = store.at().unwrap();
    assert!(within.ordinal.is_some());
    store.source.confirm(&within.to_string()).await.unwrap();
    wait_for(|| async { confirmed().await > start }).await;
    assert!(confirmed().await <= within.lsn);
    store.catch_up(&server).await;
    let end = store.at().unwrap().lsn;
    wait_for(|| async { confirmed().await >= end }).await;
}

async fn wait_for<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < Duration::from_secs(20), "it never comes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_idle_source_moves_on() {
    let server = server(TABLES).await;
    server.execute(DATABASE, "CREATE DATABASE elsewhere").await.unwrap();
    server.execute("elsewhere", "CREATE TABLE t (v text)").await.unwrap();
    let mut store = Store::open(config(&server)).await;
    store.step().await;
    let before = store.at().unwrap();
    // WAL of another database: nothing for us, but it must not be kept for us.
    server.execute("elsewhere", "INSERT INTO t SELECT repeat('x', 100) FROM generate_series(1, 10000)").await.unwrap();
    let end = wal_end(&server).await;
    let started = Instant::now();
    while store.at().unwrap().lsn < end - 10_000 {
        store.step().await;
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    assert!(store.at().unwrap().lsn > before.lsn + 1_000_000 && store.changes.is_empty());

    let mut config = config(&server);
    config.heartbeat = Some(Duration::from_millis(200));
    store.reopen(config).await;
    let before = store.at().unwrap();
    while store.at().unwrap().lsn == before.lsn {
        store.step().await;
    }
    assert!(store.changes.is_empty());
}

#[tokio::test]
async fn the_server_stops_without_waiting_for_us() {
    let mut server = server(TABLES).await;
    server.execute(DATABASE, "INSERT INTO other SELECT generate_series(1, 100)").await.unwrap();
    let mut config = config(&server);
    config.idle = Duration::from_secs(3600);
    let mut store = Store::open(config).await;
    let reading = tokio::spawn(async move {
        while let Ok(batch) = store.source.next().await {
            store.keep(&batch);
            store.source.confirm(&batch.position).await.unwrap();
        }
        store
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let started = Instant::now();
    let server = tokio::task::spawn_blocking(move || {
        server.stop().unwrap();
        server
    });
    let _server = server.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(reading.await.unwrap().changes.len(), 100);
}

#[tokio::test]
async fn strict_capture_makes_commits_wait_for_us() {
    let server = server(TABLES).await;
    let mut config = config(&server);
    (config.strict, config.heartbeat) = (true, Some(Duration::from_millis(100)));
    let mut store = Store::open(config).await;
    store.step().await;
    server.execute(DATABASE, "ALTER SYSTEM SET synchronous_standby_names = '\"muniment_pg:test\"'").await.unwrap();
    server.execute(DATABASE, "SELECT pg_reload_conf()").await.unwrap();
    let synchronous = || async { ask(&server, "SELECT sync_state FROM pg_stat_replication").await == "sync" };
    wait_for(synchronous).await;
    let mut writer = client(&server, "writer").await;
    let writing = tokio::spawn(async move { run(&mut writer, "INSERT INTO other VALUES (1)").await });
    while store.changes.is_empty() {
        let batch = store.next().await;
        store.keep(&batch);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!writing.is_finished());
    let position = store.position.clone().unwrap();
    store.source.confirm(&position).await.unwrap();
    let started = Instant::now();
    while !writing.is_finished() {
        // The commit's end may come in a batch of its own.
        if let Ok(batch) = tokio::time::timeout(Duration::from_millis(20), store.source.next()).await {
            let batch = batch.unwrap();
            store.keep(&batch);
            store.source.confirm(&batch.position).await.unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_slot_that_is_still_held_is_waited_for() {
    let server = server(TABLES).await;
    let mut first = Store::open(config(&server)).await;
    first.step().await;
    let position = first.position.clone();
    let second = tokio::spawn(async move {
        let mut second = Store::new(config(&server));
        second.source.start(position.as_deref()).await.unwrap();
        server
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!second.is_finished());
    drop(first);
    second.await.unwrap();
}

#[tokio::test]
async fn errors_say_what_is_wrong_and_no_secret() {
    let server = server(TABLES).await;
    let mut nowhere = config(&server);
    nowhere.publication = "nowhere".into();
    let mut store = Store::new(nowhere);
    store.source.start(None).await.unwrap();
    server.execute(DATABASE, "INSERT INTO other VALUES (1)").await.unwrap();
    let error = loop {
        if let Err(error) = store.source.next().await {
            break format!("{error:?}");
        }
    };
    assert!(error.contains("nowhere"), "{error}");
    drop(store);
    let mut wrong = config(&server);
    wrong.url = wrong
        .url
        .replace("127.0.0.1:", "someone:wrong@127.0.0.1:")
        .replace(&format!("{}:{}@", muniment_testkit::USER, muniment_testkit::PASSWORD), "");
    let error = format!("{:?}", Store::new(wrong).source.start(None).await.unwrap_err());
    assert!(error.contains("someone") && !error.contains("wrong@"), "{error}");
    assert!(!format!("{:?}", config(&server)).contains(muniment_testkit::PASSWORD));
}

/// Lets the server end its timeline and begin another, as a promoted standby does.
fn promote(server: &mut muniment_testkit::PostgresServer, with_slot: bool) {
    server.stop().unwrap();
    let owner = std::fs::metadata(server.data()).unwrap();
    let signal = server.data().join("recovery.signal");
    std::fs::write(&signal, "").unwrap();
    std::os::unix::fs::chown(&signal, Some(std::os::unix::fs::MetadataExt::uid(&owner)), None).unwrap();
    if !with_slot {
        std::fs::remove_dir_all(server.data().join("pg_replslot").join("s")).unwrap();
    }
    server.restart().unwrap();
}

#[tokio::test]
async fn trap_13_failover() {
    let options = muniment_testkit::PostgresOptions::default().setting("restore_command", "false");
    let mut server = server_with(&options, TABLES).await;
    let mut store = Store::open(config(&server)).await;
    for (round, with_slot) in [(0, true), (1, true), (2, false)] {
        server.execute(DATABASE, &format!("INSERT INTO other SELECT generate_series({round}0, {round}9)")).await.unwrap();
        store.catch_up(&server).await;
        drop(std::mem::replace(&mut store.source, Store::new(config(&server)).source));
        // With the slot, nothing of this is missed.
        server.execute(DATABASE, &format!("UPDATE other SET id = id + 1000 WHERE id = {round}9")).await.unwrap();
        promote(&mut server, with_slot);
        wait_for(|| async { ask(&server, "SELECT pg_is_in_recovery()::text").await == "false" }).await;
        store.source.start(store.position.as_deref()).await.unwrap();
        assert_eq!(store.source.baseline_need().gap.is_some(), !with_slot);
    }
    server.execute(DATABASE, "INSERT INTO other VALUES (100)").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(store.at().unwrap().timeline, 4);
    let inserted = store.changes.iter().filter(|change| change["operation"] == "INSERT").count();
    // 10 a round, 1 at the end, and those that the changed keys of the first two rounds are.
    assert_eq!(inserted, 33);
    let gaps: Vec<_> = store.findings.iter().filter(|finding| finding["event_type"] == "CAPTURE_GAP").collect();
    assert_eq!(gaps.len(), 1);
    assert!(store.changes[0]["source_position"].as_str().unwrap().starts_with("pg:test:1/"));
    assert!(store.changes.last().unwrap()["source_position"].as_str().unwrap().starts_with("pg:test:4/"));
}

#[tokio::test]
async fn wide_rows_in_bounded_memory() {
    let server = server("CREATE TABLE w (id int PRIMARY KEY, v text)").await;
    let mut store = Store::open(config(&server)).await;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let before = resident();
    // 600 MB, of which a value each is left out and another kept.
    let sql =
        "ALTER TABLE w ADD COLUMN x text; INSERT INTO w SELECT n, repeat('a', 800000), repeat('b', 200000) FROM generate_series(1, 600) n";
    server.execute(DATABASE, sql).await.unwrap();
    let mut records = 0;
    while records < 600 {
        let batch = store.next().await;
        assert!(batch.changes.len() < 6 << 20);
        records += batch.records;
    }
    assert!(resident() - before < 200, "{} MiB", resident() - before);
}
