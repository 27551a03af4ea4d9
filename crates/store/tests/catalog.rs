//! Files, hot batches and the catalog of both, on a real store: flushing, merging, sweeping, and who may open a folder.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use muniment_ledger::checkpoint::{Checkpoint, SigningKey, sign};
use muniment_ledger::meta::{MetaLeaf, StreamHead};
use muniment_ledger::{Frontier, Hash, NO_HASH, PartitionKey, StreamId, chain, payload_hashes, root_of_nodes};
use muniment_model::{Format, Limits, ParseOptions, PayloadEncoder, Table, parse, table};
use muniment_store::db::{Commit, Extent, FileRow, MetaHeadRow, NewBatch, StreamRow};
use muniment_store::hot::{self, Ledgered};
use muniment_store::parquet_file::nodes_from_bytes;
use muniment_store::{Compaction, FlushPolicy, Mode, Store, StoreError, StreamSnapshot, month_of};
use tempfile::TempDir;

const ORIGIN: &str = "audit.example.org/1c0f";
const STREAM: &str = "auth_audit_log/5y";
const OTHER: &str = "api_access_log/7y";
/// 2026-01-01T00:00:00Z.
const JANUARY: i64 = 1_767_225_600_000_000;
/// 2026-02-01T00:00:00Z.
const FEBRUARY: i64 = JANUARY + 31 * 86_400_000_000;
const MARCH: i64 = FEBRUARY + 28 * 86_400_000_000;

#[derive(Default)]
struct Head {
    frontier: Frontier,
    hashes: Vec<Hash>,
    payloads: Vec<Vec<u8>>,
    ids: Vec<i64>,
}

/// A store and the ledger that commits to it.
struct Book {
    folder: TempDir,
    store: Arc<Store>,
    key: SigningKey,
    meta: Frontier,
    heads: BTreeMap<&'static str, Head>,
}

fn write() -> Mode {
    Mode::Write { origin: ORIGIN.to_owned(), now: JANUARY }
}

fn table_of(stream: &str) -> &'static Table {
    table(stream.split_once('/').unwrap().0).unwrap()
}

/// Records with a number each, `id` first.
fn records(stream: &str, ids: &[i64]) -> RecordBatch {
    let record = |id| match stream {
        STREAM => format!(r#"{{"event_type":"LOGIN","session_id":"s{id}"}}"#),
        _ => format!(r#"{{"method":"GET","endpoint":"/{id}"}}"#),
    };
    let body = ids.iter().map(record).collect::<Vec<_>>().join("\n");
    let mut uuid = || [7; 16];
    let mut options = ParseOptions {
        now: JANUARY,
        format: Format::Ndjson,
        limits: Limits::default(),
        uuid: &mut uuid,
        retention_years: None,
        users: None,
    };
    let data = parse(table_of(stream), body.as_bytes(), &mut options).unwrap().batches.remove(0).data;
    let mut fields = vec![Arc::new(Field::new("id", DataType::Int64, false))];
    fields.extend(data.schema().fields().iter().cloned());
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids.to_vec()))];
    columns.extend(data.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn payloads(table: &Table, batch: &RecordBatch) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
    PayloadEncoder::new(table, batch).unwrap().encode_all(&mut bytes, &mut offsets);
    (bytes, offsets)
}

impl Book {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let (store, loaded) = Store::open(folder.path(), write()).await.unwrap();
        assert!(loaded.meta.is_none() && loaded.streams.is_empty());
        let key = SigningKey::from_bytes(ORIGIN, &[1; 32]).unwrap();
        Self { folder, store, key, meta: Frontier::new(), heads: BTreeMap::new() }
    }

    fn leaf(&mut self, commit: &mut Commit, leaf: &MetaLeaf) -> u64 {
        let number = self.meta.size();
        self.meta.append(leaf.leaf_hash());
        commit.leaves.push((number, leaf.encode()));
        number
    }

    /// Commits records to a stream.
    async fn commit(&mut self, stream: &'static str, time: i64, records: i64) {
        let mut commit = Commit { time, ..Commit::default() };
        if self.meta.size() == 0 {
            let vkey = self.key.verifier_key().to_string();
            self.leaf(&mut commit, &MetaLeaf::Key { time, vkey, previous: None });
        }
        let decoded = self.append(&mut commit, stream, time, records).await;
        let head = &self.heads[stream];
        let (size, root, row) = (head.frontier.size(), head.frontier.root(), head.row(stream, time));
        let number =
            self.leaf(&mut commit, &MetaLeaf::Commit { time, streams: vec![StreamHead { stream: stream.to_owned(), size, root }] });
        commit.streams.push((row, number));
        let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size: self.meta.size(), root: self.meta.root() };
        commit.checkpoint = Some((checkpoint.size, sign(&checkpoint, &[&self.key]).unwrap()));
        commit.meta = Some(MetaHeadRow { size: self.meta.size(), frontier: self.meta.to_bytes(), time });
        self.store.commit(&commit, vec![decoded]).await.unwrap();
    }

    async fn append(&mut self, commit: &mut Commit, stream: &'static str, time: i64, count: i64) -> RecordBatch {
        let (table, head) = (table_of(stream), self.heads.entry(stream).or_default());
        let first = head.frontier.size();
        let first_id = first as i64 + 1;
        let ids: Vec<i64> = (first_id..first_id + count).collect();
        let batch = records(stream, &ids);
        let (bytes, offsets) = payloads(table, &batch);
        let key = self.store.db().create_partition_key(stream, &month_of(time), [9; 32]).await.unwrap();
        let (mut salts, mut salted) = (Vec::new(), Vec::new());
        PartitionKey::new(&key).salts(&ids, &mut salts);
        payload_hashes(&salts, &bytes, &offsets, &mut salted);
        let previous = head.hashes.last().copied().unwrap_or(NO_HASH);
        let hashes = chain(StreamId::new(ORIGIN, stream), first, &ids, time, &salted, previous);
        head.frontier.extend(&hashes);
        head.payloads.extend(offsets.windows(2).map(|limits| bytes[limits[0]..limits[1]].to_vec()));
        head.hashes.extend(&hashes);
        head.ids.extend(&ids);
        let hashes = hot::hash_bytes(&hashes);
        let extent = Extent {
            stream: stream.to_owned(),
            first,
            end: first + count as u64,
            first_id,
            last_id: first_id + count - 1,
            recorded_from: time,
            recorded_to: time,
            min_time: JANUARY,
            max_time: JANUARY,
        };
        let decoded = hot::complete(&table.stored_schema(), &batch, Ledgered { first, recorded_at: time, hashes: &hashes }).unwrap();
        commit.next_ids.push((table.name.to_owned(), first_id + count));
        commit.batches.push(NewBatch { extent, hashes, body: hot::encode(&batch).unwrap() });
        decoded
    }

    async fn flush(&self, now: i64) -> Vec<FileRow> {
        self.store.flush(&FlushPolicy::default(), now, true).await.unwrap()
    }

    /// One file for each number, with as many records, one microsecond after the other.
    async fn files(&mut self, stream: &'static str, month: i64, sizes: &[i64]) {
        for (at, size) in sizes.iter().enumerate() {
            let time = month + self.heads.get(stream).map_or(0, |head| head.ids.len() as i64) + at as i64;
            self.commit(stream, time, *size).await;
            assert_eq!(self.flush(time).await.len(), 1);
        }
    }

    fn stream(&self, name: &str) -> StreamSnapshot {
        self.store.snapshot().remove(name).unwrap()
    }

    fn sizes(&self, stream: &str) -> Vec<u64> {
        self.stream(stream).files.iter().map(|file| file.extent.records()).collect()
    }

    async fn reopen(&mut self) {
        let placeholder = Store::open(TempDir::new().unwrap().path(), write()).await.unwrap().0;
        drop(std::mem::replace(&mut self.store, placeholder));
        self.store = Store::open(self.folder.path(), write()).await.unwrap().0;
    }

    fn object(&self, path: &str) -> PathBuf {
        self.store.objects().local_path(path)
    }

    /// The store must have every record once, in order, with its payload and hash, and files whose nodes fit the tree.
    async fn check(&self) {
        for stream in self.heads.keys() {
            self.check_in(&self.store, stream, &self.stream(stream)).await;
        }
    }

    async fn check_in(&self, store: &Store, name: &str, stream: &StreamSnapshot) {
        let (table, head) = (table_of(name), &self.heads[name]);
        let end = stream.end();
        assert_eq!(stream.first(), 0);
        let mut batches: Vec<RecordBatch> = Vec::new();
        for file in stream.files.iter() {
            batches.extend(store.open_file(file, 0..file.extent.records(), None).unwrap().map(Result::unwrap));
            assert_eq!(file.previous_hash, file.extent.first.checked_sub(1).map_or(NO_HASH, |before| head.hashes[before as usize]));
            assert_eq!(month_of(file.extent.recorded_from), month_of(file.extent.recorded_to));
            assert!(file.path.starts_with(&format!("logs/{name}/{}/", file.month)), "{}", file.path);
        }
        for row in &stream.hot {
            batches.push(store.read_hot(table, row).await.unwrap());
        }
        let mut at = 0;
        for batch in &batches {
            let ints = |column: &str| batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec();
            let (bytes, offsets) = payloads(table, batch);
            for (row, index) in ints("stream_index").into_iter().enumerate() {
                assert_eq!((index, ints("id")[row]), (at as i64, head.ids[at]));
                assert_eq!(bytes[offsets[row]..offsets[row + 1]], head.payloads[at]);
                at += 1;
            }
        }
        assert_eq!(at as u64, end);
        assert_eq!(store.hashes(name, stream, 0, end).await.unwrap(), head.hashes[..at]);
        let nodes: Vec<_> = stream.files.iter().flat_map(|file| nodes_from_bytes(&file.nodes).unwrap()).collect();
        let mut frontier = Frontier::new();
        frontier.extend(&head.hashes[..stream.files.last().map_or(0, |file| file.extent.end) as usize]);
        assert_eq!(root_of_nodes(&nodes).unwrap(), frontier.root());
    }
}

#[tokio::test]
async fn a_file_holds_one_month() {
    let mut book = Book::new().await;
    for (time, count) in [(JANUARY, 2), (FEBRUARY - 1, 3), (FEBRUARY, 1), (FEBRUARY + 1, 4), (MARCH, 1)] {
        book.commit(STREAM, time, count).await;
    }
    book.check().await;
    let files = book.flush(MARCH).await;
    let ranges: Vec<_> = files.iter().map(|file| (file.month.as_str(), file.extent.first, file.extent.end)).collect();
    assert_eq!(ranges, [("2026-01", 0, 5), ("2026-02", 5, 10), ("2026-03", 10, 11)]);
    assert!(book.stream(STREAM).hot.is_empty());
    assert_eq!(book.store.hot_size(), (0, 0));
    book.check().await;
    book.commit(STREAM, MARCH + 1, 2).await;
    book.check().await;
    book.reopen().await;
    assert_eq!(book.sizes(STREAM), [5, 5, 1]);
    assert_eq!(book.stream(STREAM).hot.len(), 1);
    book.check().await;
}

#[tokio::test]
async fn a_stream_is_flushed_when_it_reaches_a_limit() {
    let mut book = Book::new().await;
    let never = FlushPolicy { bytes: u64::MAX, batches: usize::MAX, age: i64::MAX, file_records: u64::MAX };
    book.commit(STREAM, JANUARY, 3).await;
    book.commit(STREAM, JANUARY + 10, 3).await;
    book.commit(OTHER, JANUARY + 10, 1).await;
    let later = JANUARY + 11;
    assert_eq!(book.store.flush(&never, later, false).await.unwrap().len(), 0);
    assert_eq!(book.store.flush(&FlushPolicy { batches: 3, ..never }, later, false).await.unwrap().len(), 0);
    assert_eq!(book.store.flush(&FlushPolicy { age: 12, ..never }, later, false).await.unwrap().len(), 0);
    assert_eq!(book.store.flush(&FlushPolicy { age: 11, ..never }, later, false).await.unwrap().len(), 1);
    assert_eq!((book.sizes(STREAM), book.sizes(OTHER)), (vec![6], vec![]));
    assert_eq!(book.store.flush(&FlushPolicy { bytes: 100, ..never }, later, false).await.unwrap().len(), 1);
    // A batch is never divided, however few records a file may have; a past month is due whatever the limits are.
    for count in [2, 1, 5] {
        book.commit(STREAM, later, count).await;
    }
    let files = book.store.flush(&FlushPolicy { file_records: 4, ..never }, FEBRUARY, false).await.unwrap();
    assert_eq!(files.iter().map(|file| file.extent.records()).collect::<Vec<_>>(), [3, 5]);
    book.check().await;
}

#[tokio::test]
async fn a_query_keeps_the_batches_it_began_with() {
    let mut book = Book::new().await;
    book.commit(STREAM, JANUARY, 3).await;
    let before = book.stream(STREAM);
    book.flush(JANUARY).await;
    book.commit(STREAM, JANUARY + 1, 2).await;
    assert!(book.stream(STREAM).hot.len() == 1 && before.hot.len() == 1);
    book.store.remove_retired().await.unwrap();
    book.check_in(&book.store, STREAM, &before).await;
    let row = before.hot[0].extent.clone();
    drop(before);
    book.store.remove_retired().await.unwrap();
    assert!(book.store.db().hot_body(STREAM, row.first).await.unwrap().is_none());
    book.check().await;
}

#[tokio::test]
async fn files_of_a_past_month_are_merged() {
    let mut book = Book::new().await;
    book.files(STREAM, JANUARY, &[1, 2, 3, 4]).await;
    book.files(STREAM, FEBRUARY, &[2, 2, 2]).await;
    let policy = Compaction { target_records: 8, min_files: 4, ..Compaction::default() };
    let first = book.store.compact(&policy, FEBRUARY).await.unwrap().unwrap();
    assert_eq!((first.extent.first, first.extent.end, first.month.as_str()), (0, 6, "2026-01"));
    assert_eq!(book.sizes(STREAM), [6, 4, 2, 2, 2]);
    book.check().await;
    // 6 + 4 would be too many for one file, and three files are too few in the current month.
    assert!(book.store.compact(&policy, FEBRUARY).await.unwrap().is_none());
    let all = Compaction { target_records: 100, min_files: 3, ..Compaction::default() };
    while book.store.compact(&all, FEBRUARY).await.unwrap().is_some() {}
    assert_eq!(book.sizes(STREAM), [10, 6]);
    book.check().await;
    book.reopen().await;
    assert_eq!(book.sizes(STREAM), [10, 6]);
    book.check().await;
}

/// In the current month a file larger than all that follow it waits; merging stops, and no record is lost however it goes.
#[tokio::test]
async fn merging_comes_to_an_end() {
    for (target_records, min_files) in [(1, 2), (5, 2), (12, 2), (100, 2), (100, 3)] {
        let mut book = Book::new().await;
        let policy = Compaction { target_records, min_files, ..Compaction::default() };
        for (at, size) in [5, 1, 1, 3, 1, 1, 1, 7, 2, 1, 1, 1].into_iter().enumerate() {
            book.files(STREAM, JANUARY + at as i64, &[size]).await;
            for step in 0.. {
                let before = book.sizes(STREAM);
                let Some(file) = book.store.compact(&policy, JANUARY).await.unwrap() else { break };
                assert!(step < 12 && file.extent.records() <= target_records);
                assert!(before.len() >= book.sizes(STREAM).len() + min_files - 1);
                let files = book.stream(STREAM).files;
                assert!(files.windows(2).all(|pair| pair[0].extent.end == pair[1].extent.first));
            }
        }
        book.check().await;
    }
}

#[tokio::test]
async fn replaced_files_go_after_a_while() {
    let mut book = Book::new().await;
    book.files(STREAM, JANUARY, &[1, 2]).await;
    let old = book.stream(STREAM);
    book.store.compact(&Compaction::default(), FEBRUARY).await.unwrap().unwrap();
    book.check_in(&book.store, STREAM, &old).await;
    assert_eq!(book.store.sweep_replaced(FEBRUARY - 1).await.unwrap(), 0);
    // A new start is no reason to remove them: a process that only reads may have them open.
    book.reopen().await;
    book.check_in(&book.store, STREAM, &old).await;
    assert_eq!(book.store.sweep_replaced(FEBRUARY).await.unwrap(), 2);
    assert_eq!(book.store.sweep_replaced(FEBRUARY).await.unwrap(), 0);
    assert!(old.files.iter().all(|file| !book.object(&file.path).exists()));
    book.check().await;
}

#[tokio::test]
async fn orphans_are_removed_when_the_folder_is_opened() {
    let mut book = Book::new().await;
    book.files(STREAM, JANUARY, &[1, 2]).await;
    let file = book.stream(STREAM).files[0].clone();
    let orphan = book.object(&format!("logs/{STREAM}/2026-01/000000000000-000000000000-0123456789abcdef.parquet"));
    let unfinished = book.store.objects().scratch().unwrap().join("1-1.parquet");
    for path in [&orphan, &unfinished] {
        std::fs::copy(book.object(&file.path), path).unwrap();
    }
    // Not by a process that only reads: they may be the writer's.
    Store::open(book.folder.path(), Mode::Read).await.unwrap();
    assert!(orphan.exists() && unfinished.exists());
    book.reopen().await;
    assert!(!orphan.exists() && !unfinished.exists());
    assert_eq!(book.store.objects().list().await.unwrap().len(), 2);
    book.check().await;
}

#[tokio::test]
async fn damage_is_not_merged_away() {
    let mut book = Book::new().await;
    book.files(STREAM, JANUARY, &[1, 2, 3]).await;
    let files = book.stream(STREAM).files;
    let path = book.object(&files[1].path);
    let genuine = std::fs::read(&path).unwrap();
    let mut damaged = genuine.clone();
    damaged[genuine.len() / 2] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    for _ in 0..2 {
        let error = book.store.compact(&Compaction::default(), FEBRUARY).await.unwrap_err();
        assert!(matches!(&error, StoreError::Damaged(what) if what.contains(&files[1].path)), "{error}");
    }
    assert_eq!(book.sizes(STREAM), [1, 2, 3]);
    assert!(book.store.db().garbage(i64::MAX).await.unwrap().is_empty());
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(book.store.compact(&Compaction::default(), FEBRUARY).await, Err(StoreError::File { .. })));
    std::fs::write(&path, &genuine).unwrap();
    assert_eq!(book.store.compact(&Compaction::default(), FEBRUARY).await.unwrap().unwrap().extent.records(), 6);
    book.check().await;
}

/// A merge that fails is tried again and again, so it must not leave a file each time.
#[tokio::test]
async fn a_failed_merge_leaves_no_scratch_file() {
    let mut book = Book::new().await;
    book.files(STREAM, JANUARY, &[1, 2]).await;
    let path = book.object(&book.stream(STREAM).files[1].path);
    std::fs::write(&path, b"PAR1").unwrap();
    book.store.compact(&Compaction::default(), FEBRUARY).await.unwrap_err();
    let left = std::fs::read_dir(book.store.objects().scratch().unwrap()).unwrap().count();
    assert_eq!(left, 0);
}

/// Damage in one stream must not keep the others from being merged.
#[tokio::test]
async fn damage_does_not_stop_other_streams() {
    let mut book = Book::new().await;
    book.files(OTHER, JANUARY, &[1, 2]).await;
    book.files(STREAM, JANUARY, &[1, 2]).await;
    // The streams are visited in the order of their names.
    let path = book.object(&book.stream(OTHER).files[0].path);
    std::fs::write(&path, b"PAR1").unwrap();
    for _ in 0..2 {
        let _ = book.store.compact(&Compaction::default(), FEBRUARY).await;
    }
    assert_eq!((book.sizes(OTHER), book.sizes(STREAM)), (vec![1, 2], vec![3]));
}

/// A damaged batch stays where it is, and the streams after it are flushed all the same.
#[tokio::test]
async fn a_damaged_hot_batch_is_not_flushed() {
    let mut book = Book::new().await;
    book.commit(STREAM, JANUARY, 2).await;
    let mut commit = Commit { time: JANUARY, ..Commit::default() };
    let decoded = book.append(&mut commit, OTHER, JANUARY, 3).await;
    commit.streams.push((book.heads[OTHER].row(OTHER, JANUARY), 0));
    let body = &mut commit.batches[0].body;
    body.truncate(body.len() / 2);
    book.store.commit(&commit, vec![decoded]).await.unwrap();
    assert!(matches!(book.store.flush(&FlushPolicy::default(), JANUARY, true).await, Err(StoreError::Damaged(_))));
    assert_eq!((book.stream(OTHER).hot.len(), book.sizes(OTHER)), (1, vec![]));
    assert_eq!((book.stream(STREAM).hot.len(), book.sizes(STREAM)), (0, vec![2]));
}

#[tokio::test]
async fn a_reader_beside_the_writer() {
    let mut book = Book::new().await;
    book.files(STREAM, JANUARY, &[2]).await;
    book.commit(STREAM, JANUARY + 10, 3).await;
    let (reader, loaded) = Store::open(book.folder.path(), Mode::Read).await.unwrap();
    assert!(reader.is_read_only() && !book.store.is_read_only());
    assert_eq!((loaded.origin.as_str(), loaded.meta.unwrap().size), (ORIGIN, 3));
    book.commit(STREAM, JANUARY + 11, 1).await;
    let seen = reader.snapshot().remove(STREAM).unwrap();
    assert_eq!(seen.end(), 5);
    book.check_in(&reader, STREAM, &seen).await;
    assert!(matches!(reader.commit(&Commit::default(), Vec::new()).await, Err(StoreError::ReadOnly)));
    assert!(matches!(reader.remove_retired().await, Ok(())));
    // The writer merges and sweeps: the reader, which has no say in it, is told that what it wants is gone.
    drop(reader);
    let (reader, _) = Store::open(book.folder.path(), Mode::Read).await.unwrap();
    let seen = reader.snapshot().remove(STREAM).unwrap();
    book.flush(JANUARY + 12).await;
    let gone = reader.read_hot(table_of(STREAM), &seen.hot[0]).await;
    assert!(matches!(gone, Err(StoreError::Damaged(_))));
    let (reader, _) = Store::open(book.folder.path(), Mode::Read).await.unwrap();
    book.check_in(&reader, STREAM, &reader.snapshot()[STREAM]).await;
}

#[tokio::test]
async fn one_writer_at_a_time() {
    let mut book = Book::new().await;
    book.commit(STREAM, JANUARY, 1).await;
    assert!(matches!(Store::open(book.folder.path(), write()).await, Err(StoreError::Locked { path }) if path == book.folder.path()));
    book.reopen().await;
    book.check().await;
    let nowhere = book.folder.path().join("nowhere");
    assert!(matches!(Store::open(&nowhere, Mode::Read).await, Err(StoreError::Absent { .. })));
    assert!(!nowhere.exists());
}

impl Head {
    fn row(&self, stream: &str, time: i64) -> StreamRow {
        StreamRow {
            stream: stream.to_owned(),
            log: table_of(stream).name.to_owned(),
            retention_years: 5,
            size: self.frontier.size(),
            frontier: self.frontier.to_bytes(),
            last_hash: self.hashes.last().copied().unwrap_or(NO_HASH),
            recorded_at: time,
        }
    }
}
