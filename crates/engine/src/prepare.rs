//! From a request to what a commit needs: columns with ids, salted payload hashes, encoded bodies. All of it outside the commit's lock, on any core.

use crate::error::{EngineError, Result};
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{Field, Schema};
use bytes::Bytes;
use muniment_ledger::{Hash, PartitionKey, Salt, payload_hashes};
use muniment_model::{ClassBatch, PayloadEncoder, Table};
use muniment_store::{StoreError, hot, parquet_file};
use std::cell::RefCell;
use std::sync::Arc;

/// Batches of at least this many records are encoded here, in parallel; smaller ones are merged by the commit first.
const ENCODE_FROM_RECORDS: usize = 256;

/// Records of one stream, ready but for index and chain.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) table: &'static Table,
    pub(crate) stream: String,
    pub(crate) retention_years: u16,
    /// Month whose partition key salts the payload hashes.
    pub(crate) month: Arc<str>,
    pub(crate) ids: Vec<i64>,
    pub(crate) payload_hashes: Vec<Hash>,
    /// `id` and the data columns.
    pub(crate) batch: RecordBatch,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    /// The encoded batch, if it is large enough to stand alone.
    pub(crate) body: Option<Bytes>,
}

/// Bytes of payloads that a thread keeps room for.
const SCRATCH_BYTES: usize = 4 << 20;

thread_local! {
    /// Salts, payloads and their offsets: megabytes that each batch would otherwise ask the system for.
    static SCRATCH: RefCell<(Vec<Salt>, Vec<u8>, Vec<usize>)> = RefCell::default();
}

/// Name of the stream of a log's retention class.
pub(crate) fn stream_name(log: &str, retention_years: u16) -> String {
    format!("{log}/{retention_years}y")
}

/// Salted payload hashes of a batch's records.
pub(crate) fn hash_payloads(table: &'static Table, batch: &RecordBatch, ids: &[i64], key: &PartitionKey) -> Result<Vec<Hash>> {
    let encoder = PayloadEncoder::new(table, batch).map_err(|error| StoreError::Damaged(error.to_string()))?;
    let mut hashes = Vec::with_capacity(ids.len());
    SCRATCH.with_borrow_mut(|(salts, bytes, offsets)| {
        salts.clear();
        key.salts(ids, salts);
        encoder.encode_all(bytes, offsets);
        payload_hashes(salts, bytes, offsets, &mut hashes);
        bytes.truncate(SCRATCH_BYTES);
        bytes.shrink_to(SCRATCH_BYTES);
    });
    Ok(hashes)
}

/// Prepares the records of one retention class. `first_id` is the request's first id: a record's id follows from its position in the request.
pub(crate) fn prepare(table: &'static Table, class: ClassBatch, first_id: i64, month: Arc<str>, key: &PartitionKey) -> Result<Part> {
    let rows = class.data.num_rows();
    let ids: Vec<i64> = match &class.positions {
        Some(positions) => positions.iter().map(|position| first_id + i64::from(*position)).collect(),
        None => (first_id..first_id + rows as i64).collect(),
    };
    let payload_hashes = hash_payloads(table, &class.data, &ids, key)?;
    let (min_time, max_time) = parquet_file::time_range(&class.data, parquet_file::event_time_column(table))?;
    let batch = with_ids(&class.data, &ids)?;
    let body = if rows >= ENCODE_FROM_RECORDS { Some(hot::encode(&batch)?) } else { None };
    let stream = stream_name(table.name, class.retention_years);
    Ok(Part { table, stream, retention_years: class.retention_years, month, ids, payload_hashes, batch, min_time, max_time, body })
}

fn with_ids(data: &RecordBatch, ids: &[i64]) -> Result<RecordBatch> {
    let id = Field::new("id", arrow_schema::DataType::Int64, false);
    let fields: Vec<_> = std::iter::once(Arc::new(id)).chain(data.schema().fields().iter().cloned()).collect();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids.iter().copied()));
    let columns = std::iter::once(ids).chain(data.columns().iter().cloned()).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

impl Part {
    /// Makes one part of several of the same stream and month.
    pub(crate) fn merge(mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        let batch = arrow_select::concat::concat_batches(&parts[0].batch.schema(), parts.iter().map(|part| &part.batch))?;
        let mut merged = Self {
            table: parts[0].table,
            stream: std::mem::take(&mut parts[0].stream),
            retention_years: parts[0].retention_years,
            month: parts[0].month.clone(),
            ids: Vec::with_capacity(batch.num_rows()),
            payload_hashes: Vec::with_capacity(batch.num_rows()),
            batch,
            min_time: i64::MAX,
            max_time: i64::MIN,
            body: None,
        };
        for part in &parts {
            merged.ids.extend_from_slice(&part.ids);
            merged.payload_hashes.extend_from_slice(&part.payload_hashes);
            merged.min_time = merged.min_time.min(part.min_time);
            merged.max_time = merged.max_time.max(part.max_time);
        }
        Ok(merged)
    }

    /// The encoded batch.
    pub(crate) fn body(&self) -> Result<Bytes, EngineError> {
        match &self.body {
            Some(body) => Ok(body.clone()),
            None => Ok(hot::encode(&self.batch)?),
        }
    }
}
