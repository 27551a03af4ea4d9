//! The random workload, replayed: the log equals the tables, at the end and at instants in between.

use crate::support::*;
use muniment_testkit::workload::{Ddl, Instant, Replay, State, TABLES, Workload, WorkloadOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Differences, column by column where a row has its like by `id`.
fn differences(replayed: &State, live: &State) -> Vec<String> {
    let mut found = Vec::new();
    for (table, rows) in &replayed.tables {
        for (row, count) in rows.iter().filter(|(row, count)| live.tables[table].get(*row) != Some(count)) {
            let other = live.tables[table].keys().find(|other| row.contains_key("id") && other.get("id") == row.get("id"));
            let Some(other) = other else {
                found.push(format!("{table}: {count} × {row:?} only in the log"));
                continue;
            };
            let names = row.keys().chain(other.keys()).filter(|name| row.get(*name) != other.get(*name));
            found.extend(names.map(|name| format!("{table}.{name}: {:?} in the log, {:?} in the table", row.get(name), other.get(name))));
        }
    }
    if found.is_empty() {
        found = replayed.differences(live, 20);
    }
    found.sort();
    found.dedup();
    found.truncate(20);
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_replayed_is_the_tables() {
    let server = server();
    let connect = server.connect_options(DATABASE);
    let options_of_workload = WorkloadOptions {
        seed: 7,
        ddl: Ddl::Plain,
        // TRUNCATE empties a table for older snapshots, too: an instant that is being read would not be one.
        truncate: false,
        beyond_json: false,
        ..WorkloadOptions::default()
    };
    let workload = Workload::create(connect.clone(), options_of_workload).await.unwrap();
    attach(&server, &options(&["shop.*", "Số liệu.*"])).await;
    let running = tokio::spawn({
        let workload = workload.clone();
        async move { workload.run(4, 150).await.unwrap() }
    });
    let mut store = Store::default();
    let mut instants = Vec::new();
    while !running.is_finished() {
        // Each time a new reader, as after a crash; what the former had handed out and not confirmed comes again.
        let mut source = source(&server);
        let _ = tokio::time::timeout(Duration::from_millis(300), store.catch_up(&mut source)).await;
        if instants.len() < 5
            && let Ok(instant) = Instant::read(&connect, &TABLES).await
        {
            instants.push(instant);
        }
    }
    let outcome = running.await.unwrap();
    assert!(outcome.committed > 100, "{outcome:?}");
    instants.push(Instant::read(&connect, &TABLES).await.unwrap());
    store.catch_up(&mut source(&server)).await;

    let mut seen = BTreeSet::new();
    assert!(store.records.iter().all(|record| seen.insert(record.position.clone().unwrap())), "a change was stored twice");
    for instant in &instants {
        let mut replay = Replay::default();
        let included = store.records.iter().filter(|record| record.transaction_number().is_some_and(|number| instant.includes(number)));
        included.for_each(|record| replay.apply(record).unwrap());
        assert_eq!(differences(&replay.state(instant), &instant.state), Vec::<String>::new());
    }
    // The journal says whom each change must name.
    let mut journal = BTreeMap::new();
    for row in instants.last().unwrap().state.tables["shop.journal"].keys() {
        journal.insert(row["id"].clone(), row.get("user_name").cloned());
    }
    let named = store.records.iter().filter(|record| record.table == "shop.journal" && record.operation == "INSERT");
    for record in named {
        let expected = journal.get(&record.key).cloned().flatten();
        assert_eq!(record.user.clone().filter(|_| record.attribution.as_deref() == Some("APPLICATION")), expected, "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_servers_lose_nothing() {
    let mut server = server();
    let connect = server.connect_options(DATABASE);
    let workload =
        Workload::create(connect.clone(), WorkloadOptions { seed: 11, beyond_json: false, ..WorkloadOptions::default() }).await.unwrap();
    attach(&server, &options(&["shop.*", "Số liệu.*"])).await;
    let mut store = Store::default();
    for _ in 0..3 {
        let running = tokio::spawn({
            let workload = workload.clone();
            async move { workload.run(3, 40).await.unwrap() }
        });
        let mut source = source(&server);
        let _ = tokio::time::timeout(Duration::from_millis(700), store.catch_up(&mut source)).await;
        server.kill9().unwrap();
        server.restart().unwrap();
        running.await.unwrap();
    }
    store.catch_up(&mut source(&server)).await;
    let end = Instant::read(&connect, &TABLES).await.unwrap();
    let mut replay = Replay::default();
    store.records.iter().for_each(|record| replay.apply(record).unwrap());
    assert_eq!(differences(&replay.state(&end), &end.state), Vec::<String>::new());
}
