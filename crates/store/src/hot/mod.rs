//! Hot batches: the columns of committed records as they lie in the commit database until they move to Parquet.
//!
//! A body is `version ‖ XXH3-64 of the rest (u64 LE) ‖ names ‖ texts ‖ metadata ‖ data`, with the length (u32 LE) before names, texts and metadata: an
//! Arrow IPC record batch message whose schema is implied by the column names (comma separated) and the model. Columns that are null throughout are
//! left out. A text column with few different texts has `#` before its name and numbers (Int8) instead of texts; the texts section has the length (u32 LE) of
//! its texts, and then of each the length (u16 LE) and the bytes, for one such column after the other. `new_values` with `~` before its name has (Binary) the
//! lengths of what each document shares with `old_values` at its start and at its end (LEB128), and the bytes between. The ledger columns `stream_index`, `recorded_at` and `blockchain_hash` come from the batch's row. The checksum keeps damaged bytes from
//! the IPC decoder, which panics where the lengths that they give don't fit.

mod dictionary;
mod pair;

use crate::error::{Result, StoreError};
use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, new_null_array,
};
use arrow_buffer::Buffer;
use arrow_ipc::CompressionType;
use arrow_ipc::reader::read_record_batch;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use muniment_ledger::Hash;
use muniment_model::Table;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 3;
/// Bodies without documents that are cut.
const VERSION_UNCUT: u8 = 2;
/// Before the name of a column whose texts are numbered.
const NUMBERED: char = '#';
/// Before the name of a column of which what it shares with another is cut.
const CUT: char = '~';
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
    let Shortened { batch, names, texts } = shorten(&batch.project(&present).map_err(fail())?)?;
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
    let mut body =
        Vec::with_capacity(1 + CHECKSUM_BYTES + 12 + names.len() + texts.len() + encoded.ipc_message.len() + encoded.arrow_data.len());
    body.push(VERSION);
    body.extend_from_slice(&[0; CHECKSUM_BYTES]);
    for part in [names.as_bytes(), &texts, &encoded.ipc_message] {
        body.extend_from_slice(&(part.len() as u32).to_le_bytes());
        body.extend_from_slice(part);
    }
    body.extend_from_slice(&encoded.arrow_data);
    let checksum = xxh3_64(&body[1 + CHECKSUM_BYTES..]);
    body[1..=CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(Bytes::from(body))
}

/// A batch whose repetitive texts are numbers, and whose documents are cut.
struct Shortened {
    batch: RecordBatch,
    names: String,
    texts: Vec<u8>,
}

fn shorten(batch: &RecordBatch) -> Result<Shortened> {
    let schema = batch.schema();
    let (mut fields, mut columns, mut names, mut texts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let name = field.name().as_str();
        let base = || pair::base_of(name).and_then(|base| batch.column_by_name(base)?.as_string_opt::<i32>());
        let (mark, stored) = match column.as_string_opt() {
            Some(column) => {
                if let Some(numbered) = dictionary::number(column) {
                    texts.extend_from_slice(&(numbered.texts.len() as u32).to_le_bytes());
                    texts.extend_from_slice(&numbered.texts);
                    (Some(NUMBERED), Arc::new(numbered.numbers) as ArrayRef)
                } else if let Some(base) = base() {
                    (Some(CUT), Arc::new(pair::cut(base, column)) as ArrayRef)
                } else {
                    (None, Arc::new(column.clone()) as ArrayRef)
                }
            }
            None => (None, column.clone()),
        };
        names.push(mark.into_iter().chain(name.chars()).collect::<String>());
        fields.push(Field::new(name, stored.data_type().clone(), field.is_nullable()));
        columns.push(stored);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
    Ok(Shortened { batch: batch.map_err(StoreError::arrow("encoding a batch"))?, names: names.join(","), texts })
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
    let rest = body.split_first().filter(|(version, _)| [VERSION, VERSION_UNCUT].contains(version));
    let (_, rest) = rest.ok_or_else(|| damaged("unknown version"))?;
    let (checksum, rest) = rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged("it is cut off"))?;
    if xxh3_64(rest).to_le_bytes() != *checksum {
        return Err(damaged("its checksum is wrong"));
    }
    let (names, rest) = section(rest).ok_or_else(|| damaged("it is cut off"))?;
    let (mut texts, rest) = section(rest).ok_or_else(|| damaged("it is cut off"))?;
    let (metadata, data) = section(rest).ok_or_else(|| damaged("it is cut off"))?;
    let names = std::str::from_utf8(names).map_err(|_| damaged("column names are not text"))?;
    let stored = table.stored_schema();
    let field = |name: &str| {
        let shortened = [(NUMBERED, DataType::Int8), (CUT, DataType::Binary)];
        match shortened.into_iter().find_map(|(mark, ty)| Some((name.strip_prefix(mark)?, ty))) {
            Some((name, ty)) => stored.field_with_name(name).map(|field| field.clone().with_data_type(ty)),
            None => stored.field_with_name(name).cloned(),
        }
    };
    let fields = names.split(',').map(field).collect::<Result<Vec<_>, _>>();
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
    let mut columns = batch.columns().to_vec();
    for (column, _) in columns.iter_mut().zip(names.split(',')).filter(|(_, name)| name.starts_with(NUMBERED)) {
        let (known, rest) = section(texts).ok_or_else(|| damaged("it is cut off"))?;
        *column = dictionary::texts(column.as_primitive::<Int8Type>(), known).map_err(damaged)?;
        texts = rest;
    }
    let shortened = batch.schema();
    for (at, name) in names.split(',').enumerate().filter_map(|(at, name)| Some((at, name.strip_prefix(CUT)?))) {
        let base = pair::base_of(name).and_then(|base| columns[shortened.index_of(base).ok()?].as_string_opt());
        let base = base.ok_or_else(|| damaged("there is nothing that documents follow from"))?;
        columns[at] = Arc::new(pair::restore(base, columns[at].as_binary()).map_err(damaged)?);
    }
    let fields = shortened
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Arc::new(Field::new(field.name(), column.data_type().clone(), field.is_nullable())));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(schema, columns).map_err(StoreError::arrow("decoding a batch"))?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::StringArray;

    const ROWS: usize = 200;

    /// A body of changes whose documents are cut if there are documents before them.
    fn body(with_old: bool) -> Vec<u8> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
        let document = |state: &str| {
            Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!(r#"{{"case":{n},"state":"{state}"}}"#)))) as ArrayRef
        };
        let mut columns = vec![("id", ids), ("new_values", document("CLOSED"))];
        if with_old {
            columns.push(("old_values", document("OPEN")));
        }
        encode(&RecordBatch::try_from_iter(columns).unwrap()).unwrap().to_vec()
    }

    fn decoded(body: Vec<u8>) -> Result<Vec<String>> {
        let row = Ledgered { first: 0, recorded_at: 0, hashes: &[0; 32 * ROWS] };
        let batch = decode(muniment_model::table("sys_audit_log").unwrap(), &Bytes::from(body), row)?;
        Ok(batch.column_by_name("new_values").unwrap().as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect())
    }

    /// Renames a column in a body and makes its checksum right again.
    fn renamed(body: &[u8], from: &str, to: &str) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let at = body.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
        let mut body = body.to_vec();
        body[at..at + from.len()].copy_from_slice(to.as_bytes());
        let checksum = xxh3_64(&body[1 + CHECKSUM_BYTES..]);
        body[1..=CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
        body
    }

    #[test]
    fn bodies_of_both_versions_are_read() {
        let (cut, mut uncut) = (body(true), body(false));
        let is_cut = |body: &[u8]| body.windows(11).any(|bytes| bytes == b"~new_values");
        assert!(is_cut(&cut) && !is_cut(&uncut));
        uncut[0] = VERSION_UNCUT;
        assert_eq!(decoded(cut).unwrap(), decoded(uncut.clone()).unwrap());
        uncut[0] = VERSION + 1;
        assert!(decoded(uncut).unwrap_err().to_string().contains("unknown version"));
    }

    #[test]
    fn documents_that_follow_from_nothing_are_damage() {
        for (from, to) in [("old_values", "user_agent"), ("~new_values", "~user_agent"), ("~new_values", "#new_values")] {
            let error = decoded(renamed(&body(true), from, to)).unwrap_err().to_string();
            assert!(!error.is_empty(), "{from} as {to}");
        }
        let error = decoded(renamed(&body(true), "old_values", "user_agent")).unwrap_err().to_string();
        assert!(error.contains("nothing that documents follow from"), "{error}");
    }
}
