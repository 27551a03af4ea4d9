//! Proofs of single records: making them from the store, and checking them for a reader.

use super::nodes::{Tree, with_sources};
use super::schema::complete;
use crate::{EngineError, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use muniment_ledger::bundle::Kind;
use muniment_ledger::checkpoint::VerifierKey;
use muniment_ledger::proof::{self, IncludedLeaf, Proof, ProofError, Rotation};
use muniment_ledger::{PartitionKey, Value};
use muniment_model::{PayloadEncoder, Table};
use muniment_store::parquet_file::{column, to_hash};
use muniment_store::{Store, StoreError, StreamSnapshot, month_of};
use std::sync::Arc;

/// Makes the proof of the record of a log with this id.
///
/// # Errors
///
/// [`EngineError::UnknownLog`]; [`EngineError::NotFound`] if there is no such record, or its payload was erased;
/// [`StoreError::Damaged`] if the record is not what was committed, for which there is no proof.
pub async fn prove(store: &Arc<Store>, log: &str, id: i64) -> Result<Proof> {
    let table = muniment_model::table(log).filter(|table| table.is_log()).ok_or_else(|| EngineError::UnknownLog(log.to_owned()))?;
    let held = store.snapshot_of(log);
    for (name, stream) in &held {
        if let Some(record) = find(store, table, stream, id).await? {
            let proof = Prover { store, name, stream, table }.prove(&record).await?;
            return Ok(proof);
        }
    }
    Err(EngineError::NotFound(format!("record {id} of {log}")))
}

/// `blockchain_hash` of the record of a log with this id.
///
/// # Errors
///
/// [`EngineError::UnknownLog`]; [`EngineError::NotFound`] if there is no such record.
pub(crate) async fn leaf_hash(store: &Arc<Store>, log: &str, id: i64) -> Result<muniment_ledger::Hash> {
    let table = muniment_model::table(log).filter(|table| table.is_log()).ok_or_else(|| EngineError::UnknownLog(log.to_owned()))?;
    for stream in store.snapshot_of(log).values() {
        if let Some(record) = find(store, table, stream, id).await? {
            let hashes = column(&record, "blockchain_hash")?.as_fixed_size_binary_opt().ok_or_else(|| damaged("a hash is not bytes"))?;
            return Ok(to_hash(hashes.value(0))?);
        }
    }
    Err(EngineError::NotFound(format!("record {id} of {log}")))
}

/// The record with this id in a stream, as one row.
async fn find(store: &Arc<Store>, table: &'static Table, stream: &StreamSnapshot, id: i64) -> Result<Option<RecordBatch>> {
    for batch in stream.hot.iter().filter(|batch| (batch.extent.first_id..=batch.extent.last_id).contains(&id)) {
        let batch = store.read_hot(table, batch).await?;
        if let Some(row) = row_of(&batch, id)? {
            return Ok(Some(batch.slice(row, 1)));
        }
    }
    let files: Vec<_> = stream.files.iter().filter(|file| (file.extent.first_id..=file.extent.last_id).contains(&id)).cloned().collect();
    let store = store.clone();
    let search = move || {
        for file in files {
            let mut first = 0;
            for batch in store.open_file(&file, 0..file.extent.records(), Some(&["id"]))? {
                let batch = batch?;
                if let Some(row) = row_of(&batch, id)? {
                    let at = first + row as u64;
                    let mut found = store.open_file(&file, at..at + 1, None)?;
                    return found.next().transpose().map_err(EngineError::from);
                }
                first += batch.num_rows() as u64;
            }
        }
        Ok(None)
    };
    tokio::task::spawn_blocking(search).await.map_err(|_| EngineError::Stopped)?
}

fn row_of(batch: &RecordBatch, id: i64) -> Result<Option<usize>> {
    let ids = column(batch, "id")?.as_primitive_opt::<Int64Type>().ok_or_else(|| damaged("an id is not a number"))?;
    Ok(ids.values().iter().position(|other| *other == id))
}

fn damaged(reason: &str) -> EngineError {
    StoreError::Damaged(reason.to_owned()).into()
}

struct Prover<'a> {
    store: &'a Store,
    name: &'a str,
    stream: &'a StreamSnapshot,
    table: &'static Table,
}

impl Prover<'_> {
    async fn prove(&self, record: &RecordBatch) -> Result<Proof> {
        let db = self.store.db();
        let record = complete(record.clone(), &self.table.stored_schema()).map_err(|reason| damaged(&reason))?;
        if !column(&record, "erased_payload_hash")?.is_null(0) {
            return Err(EngineError::NotFound("the payload of the record, which was erased,".to_owned()));
        }
        let id = column(&record, "id")?.as_primitive::<Int64Type>().value(0);
        let stream_index = column(&record, "stream_index")?.as_primitive::<Int64Type>().value(0) as u64;
        let recorded_at = column(&record, "recorded_at")?.as_primitive::<TimestampMicrosecondType>().value(0);
        let mut payload = Vec::new();
        let encoder = PayloadEncoder::new(self.table, &record).map_err(|error| damaged(&error.to_string()))?;
        encoder.encode(0, &mut payload);
        let key = db.partition_key(self.name, &month_of(recorded_at)).await?;
        let key = key.ok_or_else(|| damaged("the partition key of the record's month is gone"))?;
        let loaded = db.load().await?;
        let (meta_size, note) = loaded.checkpoint.ok_or_else(|| damaged("there is no checkpoint"))?;
        let (size, number) = db.covering_commit(self.name, stream_index).await?.ok_or_else(|| damaged("no commit covers the record"))?;
        let rotations = self.rotations(meta_size).await?;
        let proof = Proof {
            format: proof::FORMAT.to_owned(),
            origin: loaded.origin,
            log: self.table.name.to_owned(),
            stream: self.name.to_owned(),
            stream_index,
            id,
            recorded_at,
            payload,
            salt: PartitionKey::new(&key).salt(id),
            previous_hash: self.store.previous_hash(self.name, self.stream, stream_index).await?,
            blockchain_hash: to_hash(column(&record, "blockchain_hash")?.as_fixed_size_binary().value(0))?,
            stream_path: Tree::Stream(self.store, self.name, self.stream).inclusion_path(stream_index, size).await?,
            commit: self.leaf(number, meta_size).await?,
            schema: self.leaf(self.schema_number(number).await?, meta_size).await?,
            checkpoint: note,
            rotations,
        };
        self.check_own(&proof).await?;
        Ok(proof)
    }

    /// A proof that doesn't hold is never handed out.
    async fn check_own(&self, proof: &Proof) -> Result<()> {
        let keys = self.store.db().landmarks("key").await?;
        let (_, vkey) = keys.first().ok_or_else(|| damaged("there is no key"))?;
        let checked = proof::check(proof, &vkey.parse()?);
        checked.map(|_| ()).map_err(|error| damaged(&format!("no proof of record {} holds: {}", proof.id, with_sources(&error))))
    }

    async fn schema_number(&self, commit: u64) -> Result<u64> {
        let schemas = self.store.db().landmarks("schema").await?;
        let newest = schemas.into_iter().filter(|(number, log)| log == self.table.name && *number < commit).map(|(number, _)| number).max();
        newest.ok_or_else(|| damaged("no schema leaf comes before the commit"))
    }

    async fn leaf(&self, number: u64, size: u64) -> Result<IncludedLeaf> {
        let leaf = self.store.db().meta_leaves(number, number + 1).await?.into_iter().next();
        let leaf = leaf.ok_or_else(|| damaged("a leaf of the meta-log is missing"))?;
        Ok(IncludedLeaf { number, leaf, path: Tree::Meta(self.store).inclusion_path(number, size).await? })
    }

    async fn rotations(&self, meta_size: u64) -> Result<Vec<Rotation>> {
        let db = self.store.db();
        let mut rotations = Vec::new();
        for (number, _) in db.landmarks("key").await? {
            if number == 0 || number >= meta_size {
                continue;
            }
            let found = db.checkpoint_from(number + 1).await?.filter(|(size, _)| *size == number + 1);
            let (size, checkpoint) = found.ok_or_else(|| damaged("the checkpoint of a key rotation is missing"))?;
            let IncludedLeaf { leaf, path, .. } = self.leaf(number, size).await?;
            rotations.push(Rotation { checkpoint, number, leaf, path });
        }
        Ok(rotations)
    }
}

/// A record that a proof has shown, in words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ProvenRecord {
    /// The ledger's name.
    pub origin: String,
    /// The log.
    pub log: String,
    /// The stream.
    pub stream: String,
    /// Its position in the stream.
    pub stream_index: u64,
    /// Its number in the log.
    pub id: i64,
    /// When it was committed, RFC 3339.
    pub recorded_at: String,
    /// Position of its commit leaf in the meta-log.
    pub commit: u64,
    /// Leaves of the meta-log at the checkpoint that vouches for it.
    pub checkpoint_size: u64,
    /// Its `blockchain_hash`, in hexadecimal.
    pub blockchain_hash: String,
    /// Name and value of each column that is not null, in the log's column order: times in RFC 3339, decimals with their point.
    pub fields: Vec<(String, String)>,
}

/// Checks a proof file against a key that the caller trusts.
///
/// # Errors
///
/// The first thing that does not hold.
pub fn check(json: &[u8], trusted: &VerifierKey) -> Result<ProvenRecord, ProofError> {
    let proof = Proof::parse(json)?;
    let record = proof::check(&proof, trusted)?;
    let field = |column: &muniment_ledger::bundle::Column| {
        let (name, value) = record.payload.iter().find(|(name, _)| *name == column.name)?;
        Some((name.clone(), text_of(value, column.kind, column.scale.unwrap_or(0))))
    };
    Ok(ProvenRecord {
        fields: record.columns.iter().filter_map(field).collect(),
        origin: record.origin,
        log: proof.log,
        stream: record.stream,
        stream_index: record.stream_index,
        id: record.id,
        recorded_at: time_of(record.recorded_at.into()),
        commit: record.commit,
        checkpoint_size: record.checkpoint.size,
        blockchain_hash: hex::encode(record.blockchain_hash),
    })
}

fn text_of(value: &Value, kind: Kind, scale: u8) -> String {
    match (value, kind) {
        (Value::Text(text), _) => text.clone(),
        (Value::Bool(flag), _) => flag.to_string(),
        (Value::Int(number), Kind::Timestamp) => time_of(*number),
        (Value::Int(number), Kind::Decimal) if scale > 0 => {
            let digits = format!("{:0width$}", number.unsigned_abs(), width = usize::from(scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            format!("{}{whole}.{fraction}", if *number < 0 { "-" } else { "" })
        }
        (Value::Int(number), _) => number.to_string(),
    }
}

/// A time in RFC 3339; the number itself if no calendar has it.
fn time_of(micros: i128) -> String {
    let time = i64::try_from(micros).ok().and_then(chrono::DateTime::<chrono::Utc>::from_timestamp_micros);
    time.map_or_else(|| micros.to_string(), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_by_their_kind() {
        let cases = [
            (Value::Int(-5), Kind::Decimal, 2, "-0.05"),
            (Value::Int(123_456), Kind::Decimal, 3, "123.456"),
            (Value::Int(0), Kind::Decimal, 6, "0.000000"),
            (Value::Int(7), Kind::Decimal, 0, "7"),
            (Value::Int(1_767_225_600_000_001), Kind::Timestamp, 0, "2026-01-01T00:00:00.000001Z"),
            (Value::Int(i128::MAX), Kind::Timestamp, 0, "170141183460469231731687303715884105727"),
            (Value::Int(-3), Kind::Int, 0, "-3"),
            (Value::Bool(true), Kind::Bool, 0, "true"),
            (Value::Text("x".to_owned()), Kind::Json, 0, "x"),
        ];
        for (value, kind, scale, expected) in cases {
            assert_eq!(text_of(&value, kind, scale), expected);
        }
    }
}
