//! Hot batches: the columns of committed records as they lie in the commit database until they move to Parquet.
//!
//! A body is `version ‖ XXH3-64 of the rest (u64 LE) ‖ length of names (u32 LE) ‖ names ‖ length of metadata (u32 LE) ‖ metadata ‖ data`: an
//! Arrow IPC record batch message whose schema is implied by the column names (comma separated) and the model. Columns that are null throughout are
//! left out. The ledger columns `stream_index`, `recorded_at` and `blockchain_hash` come from the batch's row. The checksum keeps damaged bytes from
//! the IPC decoder, which panics where the lengths that they give don't fit.

use crate::error::{Result, StoreError};
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow_buffer::Buffer;
use arrow_ipc::CompressionType;
use arrow_ipc::reader::read_record_batch;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::{Schema, SchemaRef};
use bytes::Bytes;
use muniment_ledger::Hash;
use muniment_model::Table;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
/// Bodies smaller than this are not worth compressing.
const COMPRESS_FROM_BYTES: usize = 8 * 1024;
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    /// The compressor's working memory, a megabyte and more, which is costly to set up for each batch.
    static CONTEXT: RefCell<IpcWriteContext> = RefCell::default();
}

/// Encodes the id and data columns of a batch. Columns are found by name; those that are null throughout are left out.
pub fn encode(batch: &RecordBatch) -> Result<Bytes> {
    let fail = || StoreError::arrow("encoding a batch");
    let present: Vec<usize> = (0..batch.num_columns()).filter(|&at| batch.column(at).null_count() < batch.num_rows()).collect();
    let batch = batch.project(&present).map_err(fail())?;
    let names = batch.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(",");
    let mut options = IpcWriteOptions::try_new(8, false, arrow_ipc::MetadataVersion::V5).map_err(fail())?;
    if batch.get_array_memory_size() >= COMPRESS_FROM_BYTES {
        options = options
            .try_with_compression(Some(CompressionType::ZSTD))
            .and_then(|options| options.try_with_compression_level(Some(ZSTD_LEVEL)))
            .map_err(fail())?;
    }
    let mut dictionaries = DictionaryTracker::new(true);
    let generator = IpcDataGenerator::default();
    let (_, encoded) = CONTEXT.with_borrow_mut(|context| generator.encode(&batch, &mut dictionaries, &options, context)).map_err(fail())?;
    let mut body = Vec::with_capacity(1 + CHECKSUM_BYTES + 8 + names.len() + encoded.ipc_message.len() + encoded.arrow_data.len());
    body.push(VERSION);
    body.extend_from_slice(&[0; CHECKSUM_BYTES]);
    for part in [names.as_bytes(), &encoded.ipc_message] {
        body.extend_from_slice(&(part.len() as u32).to_le_bytes());
        body.extend_from_slice(part);
    }
    body.extend_from_slice(&encoded.arrow_data);
    let checksum = xxh3_64(&body[1 + CHECKSUM_BYTES..]);
    body[1..=CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(Bytes::from(body))
}

/// What a batch's row says of its records.
#[derive(Clone, Copy, Debug)]
pub struct Ledgered<'a> {
    /// Index of the first record.
    pub first: u64,
    /// Time of the commit, µs UTC.
    pub recorded_at: i64,
    /// `blockchain_hash` of each record, 32 bytes each.
    pub hashes: &'a [u8],
}

/// Decodes a body into a batch of the log's stored schema.
pub fn decode(table: &Table, body: &Bytes, row: Ledgered<'_>) -> Result<RecordBatch> {
    let damaged = |what: &str| StoreError::Damaged(format!("a batch of {} at {}: {what}", table.name, row.first));
    let rest = body.strip_prefix(&[VERSION]).ok_or_else(|| damaged("unknown version"))?;
    let (checksum, rest) = rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged("it is cut off"))?;
    if xxh3_64(rest).to_le_bytes() != *checksum {
        return Err(damaged("its checksum is wrong"));
    }
    let (names, rest) = section(rest).ok_or_else(|| damaged("it is cut off"))?;
    let (metadata, data) = section(rest).ok_or_else(|| damaged("it is cut off"))?;
    let names = std::str::from_utf8(names).map_err(|_| damaged("column names are not text"))?;
    let stored = table.stored_schema();
    let fields = names.split(',').map(|name| stored.field_with_name(name).cloned()).collect::<Result<Vec<_>, _>>();
    let schema = Arc::new(Schema::new(fields.map_err(StoreError::arrow("decoding a batch"))?));
    let message = arrow_ipc::root_as_message(metadata).map_err(|error| damaged(&error.to_string()))?;
    let header = message.header_as_record_batch().ok_or_else(|| damaged("not a record batch"))?;
    let offset = body.len() - data.len();
    let buffer = Buffer::from(body.slice(offset..));
    let batch = read_record_batch(&buffer, header, schema, &HashMap::new(), None, &message.version())
        .map_err(StoreError::arrow("decoding a batch"))?;
    if row.hashes.len() != 32 * batch.num_rows() {
        return Err(damaged("the hashes do not match the records"));
    }
    complete(&stored, &batch, row)
}

/// Adds the ledger columns, and the columns that were left out, to a batch of id and data columns.
pub fn complete(stored: &SchemaRef, batch: &RecordBatch, row: Ledgered<'_>) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let columns = stored.fields().iter().map(|field| -> Result<ArrayRef> {
        Ok(match field.name().as_str() {
            "stream_index" => Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|n| row.first as i64 + n))),
            "recorded_at" => Arc::new(TimestampMicrosecondArray::from_value(row.recorded_at, rows).with_timezone("UTC")),
            "blockchain_hash" => Arc::new(
                FixedSizeBinaryArray::try_new(32, Buffer::from(row.hashes.to_vec()), None)
                    .map_err(StoreError::arrow("decoding a batch"))?,
            ),
            name => batch.column_by_name(name).cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows)),
        })
    });
    RecordBatch::try_new(stored.clone(), columns.collect::<Result<_>>()?).map_err(StoreError::arrow("decoding a batch"))
}

/// Hashes in the form a batch's row has them.
pub fn hash_bytes(hashes: &[Hash]) -> Bytes {
    Bytes::from(hashes.concat())
}

fn section(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}
