//! The canonical bytes of a record are rebuilt from its columns, so every form that the columns take must give the same bytes: the request's, the hot
//! batch's, the Parquet file's, and those of files merged from others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod records;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use muniment_ledger::{Hash, NO_HASH};
use muniment_model::{PayloadEncoder, Table, logs, table};
use muniment_store::db::FileRow;
use muniment_store::hot::{self, Ledgered};
use muniment_store::parquet_file::{FileWriter, Lifetime, nodes_from_bytes};
use muniment_store::{Mode, Store};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use records::{Row, batch, payloads, rows, times};
use tempfile::TempDir;

/// Records as they were before they were stored.
struct Original {
    ids: Vec<i64>,
    hashes: Vec<Hash>,
    recorded_at: i64,
    payloads: Vec<Vec<u8>>,
    body: Bytes,
}

impl Original {
    fn new(table: &'static Table, first_id: i64, recorded_at: i64, rows: &[Row]) -> Self {
        let ids: Vec<i64> = (0..rows.len() as i64).map(|n| first_id + 3 * n).collect();
        let columns = batch(table, &ids, rows);
        let hashes = ids.iter().map(|id| *muniment_ledger::leaf_hash(&id.to_be_bytes()).first_chunk().unwrap()).collect();
        let payloads = payloads(table, &columns);
        Self { ids, hashes, recorded_at, payloads, body: hot::encode(&columns).unwrap() }
    }

    fn decode(&self, table: &'static Table, first: u64) -> RecordBatch {
        let hashes = hot::hash_bytes(&self.hashes);
        hot::decode(table, &self.body, Ledgered { first, recorded_at: self.recorded_at, hashes: &hashes }).unwrap()
    }
}

/// A stored batch must be what the originals were, in order.
fn check(table: &'static Table, stored: &RecordBatch, first: u64, originals: &[&Original]) {
    let all = |part: fn(&Original) -> usize| originals.iter().map(|original| part(original)).sum::<usize>();
    assert_eq!(stored.num_rows(), all(|original| original.ids.len()));
    assert_eq!(stored.schema().fields(), table.stored_schema().fields());
    let payloads = payloads(table, stored);
    let ints = |name: &str| stored.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
    let times = stored.column_by_name("recorded_at").unwrap().as_primitive::<TimestampMicrosecondType>();
    let hashes = stored.column_by_name("blockchain_hash").unwrap().as_fixed_size_binary();
    let (ids, indexes) = (ints("id"), ints("stream_index"));
    let mut row = 0;
    for original in originals {
        for at in 0..original.ids.len() {
            assert_eq!(payloads[row], original.payloads[at], "payload of row {row}");
            assert_eq!((ids[row], indexes[row]), (original.ids[at], first as i64 + row as i64));
            assert_eq!((times.value(row), hashes.value(row)), (original.recorded_at, &original.hashes[at][..]));
            row += 1;
        }
    }
    assert_eq!(stored.column_by_name("erased_payload_hash").unwrap().null_count(), stored.num_rows());
}

/// A store, and the number of files written.
struct Files {
    _folder: TempDir,
    store: Arc<Store>,
    written: Cell<u64>,
}

impl Files {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mode = Mode::Write { origin: "audit.example.org".to_owned(), now: 0 };
        let store = tokio::runtime::Runtime::new().unwrap().block_on(Store::open(folder.path(), mode)).unwrap().0;
        Self { _folder: folder, store, written: Cell::new(0) }
    }

    fn write(&self, table: &'static Table, batches: &[RecordBatch]) -> FileRow {
        self.written.set(self.written.get() + 1);
        let (objects, stream) = (self.store.objects(), format!("{}/7y", table.name));
        let mut writer = FileWriter::create(objects, table, &stream, NO_HASH, Lifetime::Lasting, self.written.get()).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.finish(objects).unwrap().unwrap()
    }

    fn read(&self, table: &'static Table, file: &FileRow) -> Vec<RecordBatch> {
        let batches = self.store.open_file(file, 0..file.extent.records(), None).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        assert!(batches.iter().all(|batch| batch.schema().fields() == table.stored_schema().fields()));
        batches
    }
}

fn whole(table: &'static Table, batches: &[RecordBatch]) -> RecordBatch {
    concat_batches(&table.stored_schema(), batches).unwrap()
}

/// Two groups of records, through hot batches into a file each, and through these into a merged one.
fn round(files: &Files, table: &'static Table, first: u64, originals: [&Original; 2]) {
    let second = first + originals[0].ids.len() as u64;
    let mut merged = Vec::new();
    for (first, original) in [(first, originals[0]), (second, originals[1])] {
        let decoded = original.decode(table, first);
        check(table, &decoded, first, &[original]);
        let file = files.write(table, &[decoded]);
        let extent = &file.extent;
        assert_eq!((extent.first, extent.records()), (first, original.ids.len() as u64));
        assert_eq!(nodes_from_bytes(&file.nodes).unwrap(), muniment_ledger::compact_range(first, &original.hashes));
        let read = files.read(table, &file);
        check(table, &whole(table, &read), first, &[original]);
        merged.extend(read);
    }
    let file = files.write(table, &merged);
    check(table, &whole(table, &files.read(table, &file)), first, &originals);
}

fn every_form_gives_the_same_bytes(log: &str) {
    let (table, files) = (table(log).unwrap(), Files::new());
    let instants = prop::sample::select(vec![0, 1, 1_767_225_599_999_999, 1_767_225_600_000_000, 253_402_300_799_999_999]);
    let cases = (0..1_u64 << 40, 1..i64::MAX / 2, instants, rows(table, 1..8), rows(table, 1..4), prop_oneof![4 => Just(1), 1 => Just(20)]);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) });
    runner
        .run(&cases, |(first, id, time, one, two, count)| {
            let one = times(count, &one);
            let originals = [Original::new(table, id, time, &one), Original::new(table, id + 1000, time, &two)];
            round(&files, table, first, [&originals[0], &originals[1]]);
            Ok(())
        })
        .unwrap();
}

#[test]
fn changes_of_data() {
    every_form_gives_the_same_bytes("sys_audit_log");
}

#[test]
fn authentication_events() {
    every_form_gives_the_same_bytes("auth_audit_log");
}

#[test]
fn security_events() {
    every_form_gives_the_same_bytes("security_audit_log");
}

#[test]
fn api_requests() {
    every_form_gives_the_same_bytes("api_access_log");
}

#[test]
fn measurements() {
    every_form_gives_the_same_bytes("system_performance_log");
}

/// More records than a data page, and than a reader decodes at a time.
#[test]
fn long_files() {
    let table = table("system_performance_log").unwrap();
    let mut runner = TestRunner::deterministic();
    let rows = rows(table, 16).new_tree(&mut runner).unwrap().current();
    let originals = [Original::new(table, 1, 0, &times(560, &rows)), Original::new(table, 100_000, 0, &rows)];
    round(&Files::new(), table, 5, [&originals[0], &originals[1]]);
}

/// Decodes what may be damaged. An accepted batch has a hash for each record, and columns that can be read to the end.
fn decode_damaged(table: &'static Table, body: Vec<u8>, hashes: &[u8]) -> Result<(), TestCaseError> {
    let shown = body.clone();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let row = Ledgered { first: 0, recorded_at: 0, hashes };
        hot::decode(table, &Bytes::from(body), row).ok().map(|batch| {
            if let Ok(encoder) = PayloadEncoder::new(table, &batch) {
                encoder.encode_all(&mut Vec::new(), &mut Vec::new());
            }
            (batch.num_rows(), batch.schema() == table.stored_schema())
        })
    }));
    match outcome {
        Err(_) => Err(TestCaseError::fail(format!("decoding panics: {shown:?}"))),
        Ok(Some((rows, schema))) => {
            prop_assert_eq!(rows * 32, hashes.len());
            prop_assert!(schema);
            Ok(())
        }
        Ok(None) => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn arbitrary_bytes_are_no_batch(bytes in prop::collection::vec(any::<u8>(), 0..200), log in 0..5_usize) {
        decode_damaged(logs()[log], bytes.clone(), &[0; 32])?;
        // The same with the version and the names of columns that are there.
        let mut named = vec![1, 2, 0, 0, 0];
        named.extend(b"id");
        named.extend((bytes.len() as u32 / 2).to_le_bytes());
        named.extend(bytes);
        decode_damaged(logs()[log], named, &[0; 32])?;
    }

    #[test]
    fn the_wrong_number_of_hashes_is_refused(count in 0..5_usize, hashes in 0..200_usize) {
        let table = table("auth_audit_log").unwrap();
        let body = body_of(table, count, 1);
        decode_damaged(table, body, &vec![0; hashes])?;
    }

    #[test]
    fn a_damaged_batch_is_refused_or_whole(
        log in 0..5_usize,
        count in prop::sample::select(vec![1, 200]),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..4),
    ) {
        let table = logs()[log];
        let mut body = body_of(table, 3, count);
        let front = body.len().min(1200);
        for (at, byte, anywhere) in edits {
            // Most of the bytes are data; what can do harm is in front.
            let at = at.index(if anywhere { body.len() } else { front });
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        decode_damaged(table, body, &vec![0; 32 * 3 * count])?;
    }
}

/// The body of a batch of `different * count` records; with many it is compressed.
fn body_of(table: &'static Table, different: usize, count: usize) -> Vec<u8> {
    let mut runner = TestRunner::deterministic();
    let rows = rows(table, different).new_tree(&mut runner).unwrap().current();
    Original::new(table, 1, 0, &times(count, &rows)).body.to_vec()
}
