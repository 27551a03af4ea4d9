//! Measures the hashing of records on one core: salts, payload hashes, chain, verification and tree.
//!
//! `cargo run --release -p muniment-ledger --example hash_rate`

use std::hint::black_box;
use std::time::{Duration, Instant};

use muniment_ledger::{Frontier, NO_HASH, PartitionKey, StreamId, chain, compact_range, leaf_hashes, node_hash, payload_hashes};

const RECORDS: usize = 100_000;
const PAYLOAD_BYTES: usize = 480;

fn main() {
    let stream = StreamId::new("bench.example.org", "sys_audit_log/7y");
    let key = PartitionKey::new(&[7; 32]);
    let ids: Vec<i64> = (1..=RECORDS as i64).collect();
    let bytes: Vec<u8> = (0..RECORDS * PAYLOAD_BYTES).map(|i| (i % 251) as u8).collect();
    let offsets: Vec<usize> = (0..=RECORDS).map(|i| i * PAYLOAD_BYTES).collect();

    let (salts, salt_time) = best(|| {
        let mut salts = Vec::new();
        key.salts(&ids, &mut salts);
        salts
    });
    let (payloads, payload_time) = best(|| {
        let mut hashes = Vec::new();
        payload_hashes(&salts, &bytes, &offsets, &mut hashes);
        hashes
    });
    let (hashes, chain_time) = best(|| chain(stream, 0, &ids, 0, &payloads, NO_HASH));
    let times = vec![0; RECORDS];
    let (leaves, leaf_time) = best(|| {
        let mut leaves = Vec::new();
        leaf_hashes(stream, 0, &ids, &times, &payloads, NO_HASH, &hashes, &mut leaves);
        leaves
    });
    assert_eq!(leaves, hashes);
    let (_, extend_time) = best(|| {
        let mut frontier = Frontier::new();
        frontier.extend(&hashes);
        frontier.root()
    });
    let (_, range_time) = best(|| compact_range(1, &hashes));
    let (_, node_time) = best(|| hashes.iter().fold(NO_HASH, |left, right| node_hash(&left, right)));

    println!("{RECORDS} records of {PAYLOAD_BYTES} bytes, one core, best of several runs");
    report("salts", salt_time);
    report("payload_hashes", payload_time);
    report("chain", chain_time);
    report("Frontier::extend", extend_time);
    report("commit in all", salt_time + payload_time + chain_time + extend_time);
    report("leaf_hashes", leaf_time);
    report("compact_range", range_time);
    report("verify in all", salt_time + payload_time + leaf_time + range_time);
    report("node_hash, serial", node_time);
}

fn best<T>(mut work: impl FnMut() -> T) -> (T, Duration) {
    let mut result = black_box(work());
    let mut shortest = Duration::MAX;
    for _ in 0..15 {
        let start = Instant::now();
        result = black_box(work());
        shortest = shortest.min(start.elapsed());
    }
    (result, shortest)
}

fn report(name: &str, time: Duration) {
    let nanoseconds = time.as_secs_f64() * 1e9 / RECORDS as f64;
    println!("{name:>18}: {nanoseconds:7.1} ns a record, {:6.2} M records/s", 1e3 / nanoseconds);
}
