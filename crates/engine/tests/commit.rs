//! The ledger's promises through the engine's own door: once (P2), in order (P4), signed, fenced against roll-back (P5), bounded (P10).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

use bytes::Bytes;
use muniment_engine::{Engine, EngineConfig, EngineError, FileIngest, IngestRequest, Receipt};
use muniment_ledger::checkpoint::{VerifierKey, open, parse_unverified};
use muniment_ledger::meta::MetaLeaf;
use muniment_model::Format;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

fn event(key: usize) -> String {
    format!(r#"{{"table_name":"case.hoso","operation":"INSERT","primary_key":"{key}","new_values":{{"n":{key}}},"changed_by":1}}"#)
}

fn lines(keys: std::ops::Range<usize>) -> String {
    keys.map(|key| event(key) + "\n").collect()
}

async fn send(engine: &Arc<Engine>, body: String, key: Option<&str>) -> Result<Receipt, EngineError> {
    let idempotency_key = key.map(str::to_owned);
    let body = Bytes::from(body);
    engine.ingest(IngestRequest { log: "sys_audit_log", body, format: Format::Ndjson, idempotency_key, position: None }).await
}

fn records(engine: &Engine) -> u64 {
    engine.store().snapshot().values().map(|stream| stream.end()).sum()
}

async fn new_engine(folder: &TempDir) -> Arc<Engine> {
    Engine::open(EngineConfig::new(folder.path().join("data"))).await.unwrap()
}

async fn vkey(engine: &Engine) -> VerifierKey {
    let first = engine.store().db().meta_leaves(0, 1).await.unwrap().remove(0);
    match MetaLeaf::decode(&first).unwrap() {
        MetaLeaf::Key { vkey, .. } => vkey.to_string().parse().unwrap(),
        other => panic!("leaf 0 is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_retry_with_the_same_key_stores_one_record() {
    let folder = TempDir::new().unwrap();
    let engine = new_engine(&folder).await;
    let sends = (0..20).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move { send(&engine, lines(0..3), Some("k-1")).await.unwrap() })
    });
    let mut receipts = Vec::new();
    for send in sends.collect::<Vec<_>>() {
        receipts.push(send.await.unwrap());
    }
    assert_eq!(records(&engine), 3);
    assert_eq!(receipts.iter().filter(|receipt| !receipt.replayed).count(), 1);
    assert!(receipts.iter().all(|receipt| receipt.ids == receipts[0].ids && receipt.checkpoint == receipts[0].checkpoint));
    let other = send(&engine, lines(7..8), Some("k-1")).await;
    assert!(matches!(other, Err(EngineError::KeyReused)), "{other:?}");
    engine.shutdown().await.unwrap();
    drop(engine);
    let engine = new_engine(&folder).await;
    assert!(send(&engine, lines(0..3), Some("k-1")).await.unwrap().replayed);
    assert_eq!(records(&engine), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_concurrent_requests_share_one_order_without_gaps() {
    let folder = TempDir::new().unwrap();
    let engine = new_engine(&folder).await;
    let mut sends = Vec::new();
    for sender in 0..16 {
        let engine = engine.clone();
        sends.push(tokio::spawn(async move {
            for n in 0..20 {
                let size = if n % 5 == 0 { 300 } else { n % 4 + 1 };
                send(&engine, lines(sender * 1000..sender * 1000 + size), None).await.unwrap();
            }
        }));
    }
    for send in sends {
        send.await.unwrap();
    }
    let snapshot = engine.store().snapshot();
    let stream = &snapshot["sys_audit_log/7y"];
    let mut next = 0;
    for batch in &stream.hot {
        assert_eq!(batch.extent.first, next, "batches follow on each other");
        next = batch.extent.end;
    }
    assert_eq!(next, 16 * (4 * 300 + 4 * (2 + 3 + 4 + 1)) as u64);
    let hashes = engine.store().hashes("sys_audit_log/7y", stream, 0, next).await.unwrap();
    let mut frontier = muniment_ledger::Frontier::new();
    frontier.extend(&hashes);
    let size = engine.checkpoint_size();
    let leaf = engine.store().db().meta_leaves(size - 1, size).await.unwrap().remove(0);
    let MetaLeaf::Commit { streams, .. } = MetaLeaf::decode(&leaf).unwrap() else { panic!("the last leaf is a commit") };
    assert_eq!((streams[0].size, streams[0].root), (next, frontier.root()), "the signed root is that of the stored hashes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_stored_whole_or_not_at_all() {
    let folder = TempDir::new().unwrap();
    let engine = new_engine(&folder).await;
    let body = format!("{}\n{{\"table_name\":\"t\"}}\n{}", event(1), event(2));
    let Err(EngineError::Invalid(rejection)) = send(&engine, body, None).await else { panic!("a bad line is refused") };
    assert!(rejection.errors.iter().all(|error| error.line == 2), "{rejection:?}");
    assert!(rejection.errors.iter().any(|error| error.field.as_deref() == Some("operation")), "{rejection:?}");
    assert_eq!(records(&engine), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_an_older_copy_of_the_data_folder_does_not_sign() {
    let folder = TempDir::new().unwrap();
    let engine = new_engine(&folder).await;
    send(&engine, lines(0..5), None).await.unwrap();
    engine.shutdown().await.unwrap();
    drop(engine);
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    copy_folder(&data, &copy);

    let engine = new_engine(&folder).await;
    send(&engine, lines(5..9), None).await.unwrap();
    engine.shutdown().await.unwrap();
    drop(engine);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    let opened = Engine::open(EngineConfig::new(&data)).await;
    assert!(matches!(opened, Err(EngineError::RolledBack { .. })), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_signs_from_then_on_and_survives_a_restart() {
    let folder = TempDir::new().unwrap();
    let engine = new_engine(&folder).await;
    let first = vkey(&engine).await;
    let second: VerifierKey = engine.rotate_key().await.unwrap().parse().unwrap();
    let both = engine.checkpoint();
    assert_eq!(open(&both, &[first.clone(), second.clone()]).unwrap().signers.len(), 2, "the rotation is signed by both keys");
    send(&engine, lines(0..2), None).await.unwrap();
    let after = engine.checkpoint();
    assert!(open(&after, std::slice::from_ref(&first)).is_err(), "the old key signs no more");
    assert!(open(&after, std::slice::from_ref(&second)).is_ok());
    engine.shutdown().await.unwrap();
    drop(engine);
    let engine = new_engine(&folder).await;
    send(&engine, lines(2..3), None).await.unwrap();
    assert!(open(&engine.checkpoint(), std::slice::from_ref(&second)).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_signed_too() {
    let folder = TempDir::new().unwrap();
    let engine = new_engine(&folder).await;
    let before = parse_unverified(&engine.checkpoint()).unwrap();
    engine.heartbeat(muniment_engine::now() + 1).await.unwrap();
    let after = parse_unverified(&engine.checkpoint()).unwrap();
    assert_eq!(after.size, before.size + 1);
    engine.heartbeat(0).await.unwrap();
    assert_eq!(engine.checkpoint_size(), after.size, "none is needed when something was committed since");
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_source_continues_where_it_was_left() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("events.ndjson");
    std::fs::write(&path, lines(0..40_000)).unwrap();
    let engine = new_engine(&folder).await;
    let run = async |engine: &Arc<Engine>| {
        let reader = Box::new(std::fs::File::open(&path).unwrap());
        engine.ingest_source(FileIngest { log: "sys_audit_log", source: Some("events".into()), reader }, |_| {}).await
    };
    assert_eq!(run(&engine).await.unwrap().records, 40_000);
    assert_eq!(run(&engine).await.unwrap().records, 0, "nothing twice");
    let grown = std::fs::read_to_string(&path).unwrap() + &lines(40_000..40_010);
    std::fs::write(&path, &grown).unwrap();
    assert_eq!(run(&engine).await.unwrap().records, 10, "what was appended");
    std::fs::write(&path, grown.replacen("case.hoso", "case.hosi", 1)).unwrap();
    let changed = run(&engine).await;
    assert!(matches!(changed, Err(EngineError::Parameter { .. })), "{changed:?}");
    assert_eq!(records(&engine), 40_010);
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_line_that_is_too_long_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("events.ndjson");
    let long = event(9).replace("case.hoso", &"x".repeat(5_000_000));
    std::fs::write(&path, lines(0..40_000) + &long).unwrap();
    let mut config = EngineConfig::new(folder.path().join("data"));
    config.limits.body_bytes = 4_500_000;
    let engine = Engine::open(config).await.unwrap();
    let reader = Box::new(std::fs::File::open(&path).unwrap());
    let taken = engine.ingest_source(FileIngest { log: "sys_audit_log", source: Some("events".into()), reader }, |_| {}).await;
    assert!(matches!(taken, Err(EngineError::LongLine { line: 40_001, limit: 4_500_000 })), "{taken:?}");
    assert_eq!(records(&engine), 40_000, "what was before it is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_requests_beyond_the_memory_limit_are_told_to_wait() {
    let folder = TempDir::new().unwrap();
    let mut config = EngineConfig::new(folder.path().join("data"));
    config.limits.memory_bytes = 100_000;
    let engine = Engine::open(config).await.unwrap();
    let held = engine.reserve(90_000).unwrap();
    let refused = send(&engine, lines(0..100), None).await;
    assert!(matches!(refused, Err(EngineError::Busy { retry_after: 1.., .. })), "{refused:?}");
    drop(held);
    send(&engine, lines(0..100), None).await.unwrap();
    assert_eq!(records(&engine), 100);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
