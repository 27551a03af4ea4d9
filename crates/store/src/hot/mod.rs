//! Hot batches: the columns of committed records as they lie in the commit database until they move to Parquet.
//!
//! A body is `version ‖ XXH3-64 of the rest (u64 LE) ‖ length of what follows when unpacked (u32 LE; 0 if it is not packed) ‖ names ‖ extras ‖ metadata ‖
//! data`, all after that length packed as one Zstandard frame, with the length (u32 LE) before names, extras and metadata: an Arrow IPC record batch
//! message whose schema is implied by the column names (comma separated) and the model. Columns that are null throughout are left out. What is before a column's name says how it is
//! shortened, and the extras have for it, with the length (u32 LE) before each:
//!
//! - `#` or `%`: numbers (Int8 or UInt16) of texts; the texts, of each the length (u16 LE) and the bytes.
//! - `1`, `2` or `4`: integers as UInt8, UInt16 or UInt32; what they are to be added to (see `narrow`).
//! - `~`: nothing; `new_values` are (Binary) the lengths of what each document shares with `old_values` at its start and at its end (LEB128), and the bytes
//!   between.
//!
//! Fixed widths come before texts, so that what is alike lies together. The ledger columns `stream_index`, `recorded_at` and `blockchain_hash` come from the
//! batch's row. The checksum keeps damaged bytes from the IPC decoder, which panics where the lengths that they give don't fit. Bodies of versions 2 and
//! 3, which are read too, are not unpacked as a whole: they begin with the names, and their columns are packed each for itself.

mod dictionary;
mod narrow;
mod pair;

use crate::error::{Result, StoreError};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, new_null_array,
};
use arrow_buffer::Buffer;
use arrow_ipc::reader::read_record_batch;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use muniment_ledger::Hash;
use muniment_model::Table;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::{Compressor, Decompressor};

const VERSION: u8 = 4;
/// Packed column by column.
const VERSION_COLUMNS: [u8; 2] = [2, 3];
const CHECKSUM_BYTES: usize = 8;
/// Bodies smaller than this are not worth compressing.
const COMPRESS_FROM_BYTES: usize = 8 * 1024;
/// Bytes of an unpacked body at most: more than a request's columns have.
const UNPACKED_BYTES: usize = 1 << 30;
/// Bytes that a thread keeps room for.
const ROOM_BYTES: usize = 4 << 20;
const ZSTD_LEVEL: i32 = 1;
/// What data begin at a multiple of, so that columns need not be copied to be read.
const ALIGNMENT: usize = 64;

thread_local! {
    /// The compressor's working memory, a megabyte and more, which is costly to set up for each batch, and room for what it is to compress.
    static PACKING: RefCell<(Option<Compressor<'static>>, Vec<u8>)> = const { RefCell::new((None, Vec::new())) };
}

/// How a column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Numbered,
    ManyNumbered,
    Narrow(u8),
    Cut,
}

impl Form {
    const ALL: [Self; 6] = [Self::Numbered, Self::ManyNumbered, Self::Narrow(1), Self::Narrow(2), Self::Narrow(4), Self::Cut];

    /// What is before the column's name.
    fn mark(self) -> char {
        match self {
            Self::Numbered => '#',
            Self::ManyNumbered => '%',
            Self::Narrow(width) => char::from(b'0' + width),
            Self::Cut => '~',
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Numbered => DataType::Int8,
            Self::ManyNumbered => DataType::UInt16,
            Self::Narrow(1) => DataType::UInt8,
            Self::Narrow(2) => DataType::UInt16,
            Self::Narrow(_) => DataType::UInt32,
            Self::Cut => DataType::Binary,
        }
    }

    /// The form of a stored column, if it has one, and the name.
    fn of(stored: &str) -> (Option<Self>, &str) {
        let form = Self::ALL.into_iter().find_map(|form| Some((form, stored.strip_prefix(form.mark())?)));
        form.map_or((None, stored), |(form, name)| (Some(form), name))
    }
}

/// Encodes the id and data columns of a batch. Columns are found by name; those that are null throughout are left out.
pub fn encode(batch: &RecordBatch) -> Result<Bytes> {
    let fail = || StoreError::arrow("encoding a batch");
    let present: Vec<usize> = (0..batch.num_columns()).filter(|&at| batch.column(at).null_count() < batch.num_rows()).collect();
    let batch = batch.project(&present).map_err(fail())?;
    let worth_packing = batch.get_array_memory_size() >= COMPRESS_FROM_BYTES;
    let Shortened { batch, names, extras } = shorten(&batch)?;
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, arrow_ipc::MetadataVersion::V5).map_err(fail())?;
    let mut dictionaries = DictionaryTracker::new(true);
    let mut context = IpcWriteContext::default();
    let (_, mut encoded) = IpcDataGenerator::default().encode(&batch, &mut dictionaries, &options, &mut context).map_err(fail())?;
    let unaligned = 12 + names.len() + extras.len() + encoded.ipc_message.len();
    encoded.ipc_message.resize(encoded.ipc_message.len() + unaligned.next_multiple_of(ALIGNMENT) - unaligned, 0);
    PACKING.with_borrow_mut(|(compressor, plain)| {
        plain.clear();
        for part in [names.as_bytes(), &extras, &encoded.ipc_message] {
            plain.extend_from_slice(&(part.len() as u32).to_le_bytes());
            plain.extend_from_slice(part);
        }
        plain.extend_from_slice(&encoded.arrow_data);
        let packs = worth_packing && plain.len() <= UNPACKED_BYTES;
        let packed = if packs { Cow::Owned(pack(compressor, plain)?) } else { Cow::Borrowed(plain.as_slice()) };
        let mut body = Vec::with_capacity(1 + CHECKSUM_BYTES + 4 + packed.len());
        body.push(VERSION);
        body.extend_from_slice(&[0; CHECKSUM_BYTES]);
        body.extend_from_slice(&(if packs { plain.len() as u32 } else { 0 }).to_le_bytes());
        body.extend_from_slice(&packed);
        let checksum = xxh3_64(&body[1 + CHECKSUM_BYTES..]);
        body[1..=CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
        plain.truncate(ROOM_BYTES);
        plain.shrink_to(ROOM_BYTES);
        Ok(Bytes::from(body))
    })
}

fn pack(compressor: &mut Option<Compressor<'static>>, plain: &[u8]) -> Result<Vec<u8>> {
    let fail = |error: std::io::Error| StoreError::Damaged(format!("a batch can't be packed: {error}"));
    let compressor = match compressor {
        Some(compressor) => compressor,
        None => compressor.insert(Compressor::new(ZSTD_LEVEL).map_err(fail)?),
    };
    compressor.compress(plain).map_err(fail)
}

/// A batch with shorter columns.
struct Shortened {
    batch: RecordBatch,
    names: String,
    extras: Vec<u8>,
}

/// A column as it is stored.
struct Stored {
    name: String,
    column: ArrayRef,
    nullable: bool,
    extra: Option<Vec<u8>>,
}

fn shorten(batch: &RecordBatch) -> Result<Shortened> {
    let schema = batch.schema();
    let mut columns: Vec<Stored> =
        schema.fields().iter().zip(batch.columns()).map(|(field, column)| shortened(batch, field, column)).collect();
    columns.sort_by_key(|stored| stored.column.data_type().primitive_width().is_none());
    let mut extras = Vec::new();
    for extra in columns.iter().filter_map(|stored| stored.extra.as_ref()) {
        extras.extend_from_slice(&(extra.len() as u32).to_le_bytes());
        extras.extend_from_slice(extra);
    }
    let names = columns.iter().map(|stored| stored.name.as_str()).collect::<Vec<_>>().join(",");
    let fields: Vec<_> =
        columns.iter().map(|stored| Field::new(&stored.name, stored.column.data_type().clone(), stored.nullable)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = columns.into_iter().map(|stored| stored.column).collect();
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
    Ok(Shortened { batch: batch.map_err(StoreError::arrow("encoding a batch"))?, names, extras })
}

fn shortened(batch: &RecordBatch, field: &Field, column: &ArrayRef) -> Stored {
    let stored = |form: Form, column: ArrayRef, extra| {
        let name = format!("{}{}", form.mark(), field.name());
        Stored { name, column, nullable: field.is_nullable(), extra }
    };
    if let Some(texts) = column.as_string_opt::<i32>() {
        let base = pair::base_of(field.name()).and_then(|base| batch.column_by_name(base)?.as_string_opt::<i32>());
        let most = if base.is_some() { dictionary::FEW } else { dictionary::MANY };
        if let Some(numbered) = dictionary::number(texts, most) {
            let few = numbered.numbers.data_type() == &DataType::Int8;
            return stored(if few { Form::Numbered } else { Form::ManyNumbered }, numbered.numbers, Some(numbered.texts));
        }
        if let Some(base) = base {
            return stored(Form::Cut, Arc::new(pair::cut(base, texts)), None);
        }
    }
    if let Some(integers) = integers(column)
        && let Some(narrowed) = narrow::narrow(integers, column.nulls())
    {
        return stored(Form::Narrow(narrowed.width), narrowed.values, Some(narrowed.base));
    }
    Stored { name: field.name().clone(), column: column.clone(), nullable: field.is_nullable(), extra: None }
}

fn integers(column: &ArrayRef) -> Option<&[i64]> {
    let integers = column.as_primitive_opt::<Int64Type>().map(|column| &**column.values());
    integers.or_else(|| column.as_primitive_opt::<TimestampMicrosecondType>().map(|column| &**column.values()))
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
    let (version, rest) = body.split_first().ok_or_else(|| damaged("it is empty"))?;
    if *version != VERSION && !VERSION_COLUMNS.contains(version) {
        return Err(damaged("unknown version"));
    }
    let (checksum, rest) = rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged("it is cut off"))?;
    if xxh3_64(rest).to_le_bytes() != *checksum {
        return Err(damaged("its checksum is wrong"));
    }
    let plain = if *version == VERSION { unpacked(body.slice_ref(rest)).map_err(damaged)? } else { body.slice_ref(rest) };
    let (names, rest) = section(&plain).ok_or_else(|| damaged("it is cut off"))?;
    let (mut extras, rest) = section(rest).ok_or_else(|| damaged("it is cut off"))?;
    let (metadata, data) = section(rest).ok_or_else(|| damaged("it is cut off"))?;
    let names = std::str::from_utf8(names).map_err(|_| damaged("column names are not text"))?;
    let stored = table.stored_schema();
    let forms: Vec<_> = names.split(',').map(Form::of).collect();
    let fields = forms.iter().map(|(form, name)| {
        let field = stored.field_with_name(name)?.clone();
        Ok(form.map_or(field.clone(), |form| field.with_data_type(form.data_type())))
    });
    let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>, _>>().map_err(StoreError::arrow("decoding a batch"))?));
    let message = arrow_ipc::root_as_message(metadata).map_err(|error| damaged(&error.to_string()))?;
    let header = message.header_as_record_batch().ok_or_else(|| damaged("not a record batch"))?;
    let buffer = Buffer::from(plain.slice_ref(data));
    let batch = read_record_batch(&buffer, header, schema, &HashMap::new(), None, &message.version())
        .map_err(StoreError::arrow("decoding a batch"))?;
    if row.hashes.len() != 32 * batch.num_rows() {
        return Err(damaged("the hashes do not match the records"));
    }
    let mut columns = batch.columns().iter().map(own).collect::<Result<Vec<_>, _>>().map_err(StoreError::arrow("decoding a batch"))?;
    for (column, (form, name)) in columns.iter_mut().zip(&forms) {
        let Some(form) = form.filter(|form| *form != Form::Cut) else { continue };
        let (extra, rest) = section(extras).ok_or_else(|| damaged("it is cut off"))?;
        extras = rest;
        *column = match form {
            Form::Narrow(_) => {
                let integers = narrow::widen(column, extra).map_err(damaged)?;
                let integers = Int64Array::new(integers.into(), column.nulls().cloned());
                match stored.field_with_name(name).map(Field::data_type) {
                    Ok(DataType::Timestamp(..)) => Arc::new(integers.reinterpret_cast::<TimestampMicrosecondType>().with_timezone("UTC")),
                    _ => Arc::new(integers),
                }
            }
            _ => dictionary::texts(column, extra).map_err(damaged)?,
        };
    }
    for (at, (_, name)) in forms.iter().enumerate().filter(|(_, (form, _))| *form == Some(Form::Cut)) {
        let base = pair::base_of(name).and_then(|base| forms.iter().position(|(_, name)| *name == base));
        let base =
            base.and_then(|base| columns[base].as_string_opt()).ok_or_else(|| damaged("there is nothing that documents follow from"))?;
        columns[at] = Arc::new(pair::restore(base, columns[at].as_binary()).map_err(damaged)?);
    }
    let fields = forms.iter().zip(&columns).map(|((_, name), column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(schema, columns).map_err(StoreError::arrow("decoding a batch"))?;
    complete(&stored, &batch, row)
}

/// A column with memory of its own. Those just read are parts of the whole body, and each that is kept would keep, and be counted as, all of it.
fn own(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    // Of a single array no copy would be made.
    arrow_select::concat::concat(&[column, &column.slice(0, 0)])
}

/// What a body has after its checksum, unpacked.
fn unpacked(rest: Bytes) -> Result<Bytes, &'static str> {
    let (length, packed) = rest.split_first_chunk::<4>().ok_or("it is cut off")?;
    match u32::from_le_bytes(*length) as usize {
        0 => Ok(rest.slice_ref(packed)),
        length if length <= UNPACKED_BYTES => {
            let plain =
                Decompressor::new().and_then(|mut unpacking| unpacking.decompress(packed, length)).map_err(|_| "it can't be unpacked")?;
            Ok(Bytes::from(plain))
        }
        _ => Err("it is too large"),
    }
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

    const ROWS: usize = 300;

    /// A body of changes whose documents are cut if there are documents before them.
    fn body(with_old: bool) -> Vec<u8> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|n| n * n % 1009)));
        let document = |state: &str| {
            Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!(r#"{{"case":{n},"state":"{state}","due":null}}"#))))
                as ArrayRef
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

    /// The same without a frame around it.
    fn plain(body: &[u8], version: u8) -> Vec<u8> {
        let plain = unpacked(Bytes::copy_from_slice(&body[1 + CHECKSUM_BYTES..])).unwrap();
        [&[version], &xxh3_64(&plain).to_le_bytes()[..], &plain].concat()
    }

    /// Bodies as version 3 had them: few texts numbered, documents cut, each column packed for itself.
    fn by_columns(batch: &RecordBatch) -> Vec<u8> {
        let Shortened { batch, names, extras } = shorten(batch).unwrap();
        assert!(!names.contains(['%', '1', '2', '4']), "{names}");
        let options = IpcWriteOptions::default().try_with_compression(Some(arrow_ipc::CompressionType::ZSTD)).unwrap();
        let (_, encoded) = IpcDataGenerator::default()
            .encode(&batch, &mut DictionaryTracker::new(true), &options, &mut IpcWriteContext::default())
            .unwrap();
        let mut rest = Vec::new();
        for part in [names.as_bytes(), &extras, &encoded.ipc_message] {
            rest.extend_from_slice(&(part.len() as u32).to_le_bytes());
            rest.extend_from_slice(part);
        }
        rest.extend_from_slice(&encoded.arrow_data);
        [&[3], &xxh3_64(&rest).to_le_bytes()[..], &rest].concat()
    }

    #[test]
    fn bodies_of_earlier_versions_are_read() {
        let document = |state: &str| (0..ROWS).map(|n| format!(r#"{{"case":{n},"state":"{state}"}}"#)).collect::<Vec<_>>();
        let columns = [
            ("id", Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|n| (n * n) << 40))) as ArrayRef),
            ("operation", Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| if n % 3 == 0 { "INSERT" } else { "UPDATE" })))),
            ("old_values", Arc::new(StringArray::from(document("OPEN")))),
            ("new_values", Arc::new(StringArray::from(document("CLOSED")))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut earlier = by_columns(&batch);
        assert!([&b"#operation"[..], b"~new_values"].iter().all(|name| earlier.windows(name.len()).any(|bytes| bytes == *name)));
        assert_eq!(decoded(earlier.clone()).unwrap(), document("CLOSED"));
        earlier[0] = VERSION + 1;
        assert!(decoded(earlier).unwrap_err().to_string().contains("unknown version"));
        let without = by_columns(&batch.project(&[0, 1, 3]).unwrap());
        assert_eq!(decoded([&[2], &without[1..]].concat()).unwrap(), document("CLOSED"));
    }

    #[test]
    fn columns_are_counted_as_what_they_are() {
        let body = body(true);
        let hashes = [0; 32 * ROWS];
        let row = Ledgered { first: 0, recorded_at: 0, hashes: &hashes };
        let batch = decode(muniment_model::table("sys_audit_log").unwrap(), &Bytes::from(body), row).unwrap();
        let counted = |name: &str| batch.column_by_name(name).unwrap().get_array_memory_size();
        assert!(counted("id") < 8 * ROWS + 1000, "{}", counted("id"));
        assert!(counted("old_values") < 64 * ROWS, "{}", counted("old_values"));
    }

    #[test]
    fn documents_that_follow_from_nothing_are_damage() {
        let earlier = plain(&body(true), VERSION_COLUMNS[1]);
        for (from, to) in [("old_values", "user_agent"), ("~new_values", "~user_agent"), ("~new_values", "#new_values"), ("2id", "%id")] {
            let error = decoded(renamed(&earlier, from, to)).unwrap_err().to_string();
            assert!(!error.is_empty(), "{from} as {to}");
        }
        let error = decoded(renamed(&earlier, "old_values", "user_agent")).unwrap_err().to_string();
        assert!(error.contains("nothing that documents follow from"), "{error}");
    }

    #[test]
    fn bodies_that_do_not_unpack_are_damage() {
        let body = body(true);
        let length = |length: u32| {
            let mut body = body.clone();
            body[1 + CHECKSUM_BYTES..][..4].copy_from_slice(&length.to_le_bytes());
            let checksum = xxh3_64(&body[1 + CHECKSUM_BYTES..]);
            body[1..=CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
            decoded(body).unwrap_err().to_string()
        };
        assert!(length(100).contains("can't be unpacked"));
        assert!(length(u32::MAX).contains("too large"));
        assert!(!length(0).is_empty());
    }
}
