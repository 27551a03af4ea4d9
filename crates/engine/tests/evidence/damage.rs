//! Damage to a live store.

use crate::scene::{Copy, HOT, IN_FILE, STEP, SYS, SYS_STREAM, Scene, read_parquet};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray};
use arrow_select::concat::concat_batches;
use muniment_engine::evidence::prove;
use muniment_ledger::checkpoint::{self, Checkpoint, SigningKey};
use muniment_ledger::verify::Verdict;
use muniment_ledger::{Frontier, Hash, NO_HASH, PartitionKey, StreamId, chain, payload_hashes};
use muniment_model::PayloadEncoder;
use muniment_store::{Mode, Store, month_of};
use parquet::file::reader::{FileReader, SerializedFileReader};
use sqlx::{Connection, Row};
use std::fs::File;
use std::sync::Arc;

/// The batch with one value of a text column changed.
fn with_text(batch: &RecordBatch, column: &str, row: usize, text: &str) -> RecordBatch {
    let at = batch.schema().index_of(column).unwrap();
    let values = batch.column(at).as_string::<i32>();
    let changed: StringArray = values.iter().enumerate().map(|(i, value)| if i == row { Some(text) } else { value }).collect();
    with_column(batch, column, Arc::new(changed))
}

fn with_column(batch: &RecordBatch, column: &str, values: ArrayRef) -> RecordBatch {
    let at = batch.schema().index_of(column).unwrap();
    let mut columns = batch.columns().to_vec();
    columns[at] = values;
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

fn join(parts: &[RecordBatch]) -> RecordBatch {
    concat_batches(&parts[0].schema(), parts).unwrap()
}

async fn expect(copy: &Copy, finding: String) {
    assert_eq!(copy.findings().await, [finding]);
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_changed_value_in_a_file_with_valid_checksums_is_named() {
    let scene = Scene::new().await;
    for row in [0, 5, 500, IN_FILE as usize - 1] {
        let copy = scene.copy(&format!("value-{row}")).await;
        let path = copy.rewrite(|batch| with_text(&batch, "new_values", row, "{\"n\":0}")).await;
        expect(&copy, format!("altered: {SYS_STREAM}, record {row}, in {path}: the record does not fit its blockchain_hash")).await;
        let store = Store::open(&copy.folder, Mode::Read).await.unwrap().0;
        assert!(prove(&store, SYS, row as i64 + 1).await.is_err(), "no proof of a changed record");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_every_ledger_column_of_a_file_is_covered() {
    let scene = Scene::new().await;
    let copy = scene.copy("id").await;
    let plus_one = |batch: &RecordBatch, name: &str| -> ArrayRef {
        let values = batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
        Arc::new(
            values
                .iter()
                .enumerate()
                .map(|(i, value)| if i == 7 { value.map(|value| value + 5000) } else { value })
                .collect::<Int64Array>(),
        )
    };
    let path = copy.rewrite(|batch| with_column(&batch, "id", plus_one(&batch, "id"))).await;
    expect(&copy, format!("altered: {SYS_STREAM}, record 7, in {path}: the record does not fit its blockchain_hash")).await;
    let copy = scene.copy("index").await;
    copy.rewrite(|batch| with_column(&batch, "stream_index", plus_one(&batch, "stream_index"))).await;
    expect(&copy, format!("altered: {SYS_STREAM}, record 7, in {path}: record 5007 stands in its place")).await;
    let copy = scene.copy("hash").await;
    copy.rewrite(|batch| {
        let hashes = batch.column_by_name("blockchain_hash").unwrap().as_fixed_size_binary();
        let changed = hashes.iter().enumerate().map(|(i, hash)| if i == 7 { vec![9; 32] } else { hash.unwrap().to_vec() });
        let changed = FixedSizeBinaryArray::try_from_iter(changed).unwrap();
        with_column(&batch, "blockchain_hash", Arc::new(changed))
    })
    .await;
    expect(&copy, format!("altered: {SYS_STREAM}, record 7, in {path}: the record does not fit its blockchain_hash")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_removed_inserted_and_swapped_records_are_named() {
    let scene = Scene::new().await;
    let copy = scene.copy("removed").await;
    let path = copy.rewrite(|batch| join(&[batch.slice(0, 300), batch.slice(301, batch.num_rows() - 301)])).await;
    expect(&copy, format!("missing: {SYS_STREAM}, record 300, in {path}: the records are not there")).await;
    let copy = scene.copy("removed-last").await;
    copy.rewrite(|batch| batch.slice(0, batch.num_rows() - 2)).await;
    expect(&copy, format!("missing: {SYS_STREAM}, records 998 to 999, in {path}: the records are not there")).await;
    let copy = scene.copy("inserted").await;
    copy.rewrite(|batch| join(&[batch.slice(0, 301), batch.slice(300, batch.num_rows() - 300)])).await;
    expect(&copy, format!("altered: {SYS_STREAM}, record 301, in {path}: record 300 stands in its place")).await;
    let copy = scene.copy("inserted-last").await;
    copy.rewrite(|batch| join(&[batch.clone(), batch.slice(0, 1)])).await;
    expect(&copy, format!("altered: {SYS_STREAM}, record 1000, in {path}: the record is beyond the end of what should be here")).await;
    let copy = scene.copy("swapped").await;
    copy.rewrite(|batch| join(&[batch.slice(0, 40), batch.slice(41, 1), batch.slice(40, 1), batch.slice(42, batch.num_rows() - 42)])).await;
    expect(&copy, format!("altered: {SYS_STREAM}, record 40, in {path}: record 41 stands in its place")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_flipped_byte_of_a_payload_column_is_named() {
    let scene = Scene::new().await;
    let copy = scene.copy("flip").await;
    let (path, place) = copy.file().await;
    let good = std::fs::read(&place).unwrap();
    let reader = SerializedFileReader::new(File::open(&place).unwrap()).unwrap();
    let group = reader.metadata().row_group(0).clone();
    for name in ["primary_key", "new_values", "changed_by", "changed_at", "blockchain_hash"] {
        let column = group.columns().iter().find(|column| column.column_path().string() == name).unwrap();
        let (start, length) = column.byte_range();
        for part in 1..6 {
            let at = (start + length * part / 6) as usize;
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&place, &bytes).unwrap();
            let report = copy.verify().await;
            let finding = report.outcome.findings.first().unwrap_or_else(|| panic!("{name}, byte {at} was not found"));
            assert!(matches!(finding.verdict, Verdict::Altered | Verdict::Malformed), "{finding}");
            assert_eq!((finding.stream.as_deref(), finding.file.as_deref()), (Some(SYS_STREAM), Some(path.as_str())), "{name}: {finding}");
            assert!(finding.records.as_ref().is_none_or(|records| records.end <= IN_FILE), "{name}: {finding}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_what_no_record_depends_on_is_found_last() {
    let scene = Scene::new().await;
    let copy = scene.copy("same-records").await;
    let (path, place) = copy.file().await;
    let mut bytes = std::fs::read(&place).unwrap();
    let at = bytes.windows(8).rposition(|window| window == b"muniment").unwrap();
    bytes[at] = b'M';
    std::fs::write(&place, bytes).unwrap();
    expect(&copy, format!("altered: {SYS_STREAM}, in {path}: the file does not have the listed SHA-256")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_cut_tail_is_missing() {
    let scene = Scene::new().await;
    let copy = scene.copy("last-batch").await;
    assert_eq!(copy.execute("DELETE FROM hot_batch WHERE stream = 'sys_audit_log/7y' AND first = 1100").await, 1);
    expect(&copy, format!("missing: {SYS_STREAM}, records 1100 to 1199: the records are not there")).await;
    copy.execute("UPDATE stream SET size = 1100 WHERE stream = 'sys_audit_log/7y'").await;
    expect(&copy, format!("missing: {SYS_STREAM}: the stream is said to have 1100 records, its newest commit says 1200")).await;
    let copy = scene.copy("first-batch").await;
    copy.execute("DELETE FROM hot_batch WHERE first = 1000").await;
    expect(&copy, format!("missing: {SYS_STREAM}, records 1000 to 1099, in muniment.db: the records are not there")).await;
    let copy = scene.copy("file").await;
    let (path, place) = copy.file().await;
    std::fs::remove_file(&place).unwrap();
    expect(&copy, format!("missing: {SYS_STREAM}, records 0 to 999, in {path}: the file is not there")).await;
    copy.execute("DELETE FROM file WHERE stream = 'sys_audit_log/7y'").await;
    expect(&copy, format!("missing: {SYS_STREAM}, records 0 to 999: the records are not there")).await;
    let copy = scene.copy("stream").await;
    copy.execute("DELETE FROM hot_batch").await;
    copy.execute("DELETE FROM file").await;
    copy.execute("DELETE FROM stream").await;
    assert_eq!(copy.findings().await.len(), 3);
    let copy = scene.copy("leaf").await;
    copy.execute("DELETE FROM meta_leaf WHERE number = (SELECT max(number) FROM meta_leaf)").await;
    assert_eq!(copy.verify().await.verdict(), Verdict::Cut);
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_changed_hot_batch_is_found() {
    let scene = Scene::new().await;
    let copy = scene.copy("hot").await;
    let mut connection = copy.sql().await;
    let row = sqlx::query("SELECT hashes, body FROM hot_batch WHERE first = 1000").fetch_one(&mut connection).await.unwrap();
    let (hashes, body): (Vec<u8>, Vec<u8>) = (row.get(0), row.get(1));
    for at in [40, body.len() / 2, body.len() - 30] {
        let mut changed = body.clone();
        changed[at] ^= 1;
        sqlx::query("UPDATE hot_batch SET body = $1 WHERE first = 1000").bind(&changed).execute(&mut connection).await.unwrap();
        let report = copy.verify().await;
        if let Some(finding) = report.outcome.findings.first() {
            assert_eq!(finding.stream.as_deref(), Some(SYS_STREAM));
            let records = finding.records.clone().unwrap();
            assert!(records.start >= IN_FILE && records.end <= IN_FILE + STEP, "{finding}");
        } else {
            // A byte of padding holds nothing.
            assert!(at != body.len() / 2, "byte {at} was not found");
        }
    }
    let mut changed = hashes.clone();
    changed[32 * 12] ^= 1;
    let update = sqlx::query("UPDATE hot_batch SET body = $1, hashes = $2 WHERE first = 1000");
    update.bind(&body).bind(&changed).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    expect(&copy, format!("altered: {SYS_STREAM}, record 1012, in muniment.db: the record does not fit its blockchain_hash")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_catalog_that_would_hide_records_is_found() {
    let scene = Scene::new().await;
    for (i, sql) in [
        "UPDATE file SET first_id = first_id + 1",
        "UPDATE file SET max_time = max_time - 1",
        "UPDATE file SET recorded_to = recorded_to - 1",
        "UPDATE file SET month = '2001-01'",
        "UPDATE file SET previous_hash = CAST(zeroblob(31) || x'01' AS BLOB)",
        "UPDATE file SET nodes = zeroblob(41)",
        "UPDATE hot_batch SET last_id = last_id - 1",
        "UPDATE hot_batch SET recorded_at = recorded_at + 1",
        "UPDATE stream SET last_hash = zeroblob(32)",
        "UPDATE partition_key SET key = zeroblob(32)",
        "DELETE FROM partition_key",
    ]
    .into_iter()
    .enumerate()
    {
        let copy = scene.copy(&format!("catalog-{i}")).await;
        assert!(copy.execute(sql).await > 0);
        let report = copy.verify().await;
        assert!(!report.is_valid(), "{sql}");
        assert!(report.outcome.findings.iter().all(|finding| finding.stream.is_some()), "{sql}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_an_older_copy_of_the_whole_folder_is_cut() {
    let scene = Scene::new().await;
    let mut copy = scene.copy("older").await;
    let engine = muniment_engine::Engine::open(muniment_engine::EngineConfig::new(scene.folder.path().join("data"))).await.unwrap();
    crate::scene::send(&engine, SYS, 0..3).await;
    copy.published = vec![engine.checkpoint()];
    engine.shutdown().await.unwrap();
    let findings = copy.findings().await;
    assert!(findings.len() == 1 && findings[0].starts_with("cut: in the published checkpoint: a checkpoint of "), "{findings:?}");
    copy.published.clear();
    assert!(copy.verify().await.is_valid(), "alone, an older copy is a valid store");
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_forged_checkpoint_is_forged() {
    let scene = Scene::new().await;
    let copy = scene.copy("forged").await;
    let genuine = checkpoint::parse_unverified(&scene.note).unwrap();
    let stranger = SigningKey::from_bytes(&genuine.origin, &[7; 32]).unwrap();
    let mut connection = copy.sql().await;
    for (root, size) in [(genuine.root, genuine.size), ([3; 32], genuine.size), (genuine.root, genuine.size + 5)] {
        let note = checkpoint::sign(&Checkpoint { root, size, ..genuine.clone() }, &[&stranger]).unwrap();
        sqlx::query("DELETE FROM checkpoint WHERE size = $1").bind(size as i64).execute(&mut connection).await.unwrap();
        let insert = sqlx::query("INSERT INTO checkpoint (size, note) VALUES ($1, $2)");
        insert.bind(size as i64).bind(note).execute(&mut connection).await.unwrap();
        assert_eq!(copy.findings().await, ["forged: in checkpoint: no trusted key signed the checkpoint"]);
    }
    connection.close().await.unwrap();
    let copy = Copy { key: stranger.verifier_key().clone(), ..scene.copy("another-key").await };
    assert_eq!(copy.verify().await.verdict(), Verdict::Forged);
}

/// Changes a record and hashes all after it anew, as somebody can who has everything but the signing key.
async fn rewrite_history(copy: &Copy, row: usize) -> (String, Vec<Hash>) {
    let store = Store::open(&copy.folder, Mode::Read).await.unwrap().0;
    let origin = store.db().load().await.unwrap().origin;
    let (_, place) = copy.file().await;
    let recorded_at = read_parquet(&place).column_by_name("recorded_at").unwrap().as_primitive::<TimestampMicrosecondType>().value(0);
    let key = store.db().partition_key(SYS_STREAM, &month_of(recorded_at)).await.unwrap().unwrap();
    let mut hashes: Vec<Hash> = Vec::new();
    let path = copy
        .rewrite(|batch| {
            let batch = with_text(&batch, "new_values", row, "{\"n\":-1}");
            let (mut bytes, mut offsets, mut salts, mut payloads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            PayloadEncoder::new(muniment_model::table(SYS).unwrap(), &batch).unwrap().encode_all(&mut bytes, &mut offsets);
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().clone();
            let times = batch.column_by_name("recorded_at").unwrap().as_primitive::<TimestampMicrosecondType>().values().clone();
            PartitionKey::new(&key).salts(&ids, &mut salts);
            payload_hashes(&salts, &bytes, &offsets, &mut payloads);
            for i in 0..ids.len() {
                let previous = hashes.last().copied().unwrap_or(NO_HASH);
                hashes.extend(chain(StreamId::new(&origin, SYS_STREAM), i as u64, &ids[i..=i], times[i], &payloads[i..=i], previous));
            }
            with_column(&batch, "blockchain_hash", Arc::new(FixedSizeBinaryArray::try_from_iter(hashes.iter()).unwrap()))
        })
        .await;
    (path, hashes)
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_rewritten_hashes_are_found_between_two_commits() {
    let scene = Scene::new().await;
    let copy = scene.copy("history").await;
    let (path, hashes) = rewrite_history(&copy, 456).await;
    // The chain of the hot batch that follows no longer fits.
    expect(&copy, format!("altered: {SYS_STREAM}, record 1000, in muniment.db: the record does not fit its blockchain_hash")).await;
    // Cut off what follows, and make the catalog fit: only the signed root of a commit still says the truth.
    let mut frontier = Frontier::new();
    frontier.extend(&hashes);
    let nodes = muniment_store::parquet_file::nodes_to_bytes(&frontier.nodes());
    let mut connection = copy.sql().await;
    sqlx::query("UPDATE file SET nodes = $1 WHERE path = $2").bind(nodes).bind(&path).execute(&mut connection).await.unwrap();
    let rehashed = rehash_hot(&copy, &mut connection, hashes[hashes.len() - 1]).await;
    assert_eq!(rehashed, HOT);
    connection.close().await.unwrap();
    let findings = copy.findings().await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    let expected =
        format!("altered: {SYS_STREAM}, records 400 to 499, in {path}: the records fit their hashes, but not the root of commit ");
    assert!(findings[0].starts_with(&expected) && findings[0].ends_with("hashes were rewritten"), "{findings:?}");
}

/// Hashes the hot batches anew; returns the number of their records.
async fn rehash_hot(copy: &Copy, connection: &mut sqlx::SqliteConnection, mut previous: Hash) -> u64 {
    let store = Store::open(&copy.folder, Mode::Read).await.unwrap().0;
    let origin = store.db().load().await.unwrap().origin;
    let table = muniment_model::table(SYS).unwrap();
    let mut records = 0;
    let mut frontier_hashes = Vec::new();
    for row in &store.snapshot()[SYS_STREAM].hot {
        let batch = store.read_hot(table, row).await.unwrap();
        let (mut bytes, mut offsets, mut salts, mut payloads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        PayloadEncoder::new(table, &batch).unwrap().encode_all(&mut bytes, &mut offsets);
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().clone();
        let key = store.db().partition_key(SYS_STREAM, &month_of(row.extent.recorded_to)).await.unwrap().unwrap();
        PartitionKey::new(&key).salts(&ids, &mut salts);
        payload_hashes(&salts, &bytes, &offsets, &mut payloads);
        let hashes = chain(StreamId::new(&origin, SYS_STREAM), row.extent.first, &ids, row.extent.recorded_to, &payloads, previous);
        previous = hashes[hashes.len() - 1];
        records += hashes.len() as u64;
        let update = sqlx::query("UPDATE hot_batch SET hashes = $1 WHERE stream = $2 AND first = $3");
        update.bind(hashes.concat()).bind(SYS_STREAM).bind(row.extent.first as i64).execute(&mut *connection).await.unwrap();
        frontier_hashes.extend(hashes);
    }
    let update = sqlx::query("UPDATE stream SET last_hash = $1 WHERE stream = $2");
    update.bind(&previous[..]).bind(SYS_STREAM).execute(&mut *connection).await.unwrap();
    records
}
