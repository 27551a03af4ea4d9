//! Writing Parquet files: one stream, one month, in index order.

use crate::db::{Extent, FileRow};
use crate::entity_filter::{ENTITY, FilterBuilder, STRETCH_ROWS};
use crate::error::{Result, StoreError};
use crate::objects::Objects;
use crate::time::month_of;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use muniment_ledger::{Frontier, Hash, Node};
use muniment_model::Table;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// Rows of a row group at most.
pub const ROW_GROUP_ROWS: usize = 64 * 1024;
/// Rows of a data page at most: what a point look-up has to decode.
const PAGE_ROWS: usize = STRETCH_ROWS;

/// Level of Zstandard compression.
const ZSTD_LEVEL: i32 = 3;
/// Level for documents, most of a file, in files that last: an eighth smaller than at level 1, for 0.3 µs a document. (Level 3 is no smaller than level 1 here.)
const ZSTD_LEVEL_DOCUMENTS: i32 = 6;
/// Level for documents in files that are merged soon. Compression was 40 % of the work of moving captured changes to Parquet at level 6.
const ZSTD_LEVEL_PASSING: i32 = 1;
/// A file of so many records is worth the better compression; a smaller one is soon merged with its neighbours.
const LASTING_RECORDS: u64 = 1 << 20;
/// Bytes of a page of documents at most: what a point look-up has to decompress.
const DOCUMENT_PAGE_BYTES: usize = 64 * 1024;
/// Bytes of a dictionary at most. A column with more distinct values continues without one; but every look-up in the row group decompresses the dictionary.
const DICTIONARY_BYTES: usize = 16 * 1024;

fn zstd(level: i32) -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(level).unwrap_or_default())
}

/// Whether the records of a log name entities: they are looked up by table and key together.
pub fn has_entities(table: &Table) -> bool {
    ENTITY.iter().all(|name| table.columns.iter().any(|column| column.name == *name))
}

/// For how long a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is merged with its neighbours: written quickly.
    Passing,
    /// For years: written small.
    Lasting,
}

impl Lifetime {
    /// That of a file with so many records; in a month that is over, whatever is merged lasts.
    pub fn of(records: u64, month_is_over: bool) -> Self {
        if month_is_over || records >= LASTING_RECORDS { Self::Lasting } else { Self::Passing }
    }

    fn documents(self) -> Compression {
        zstd(match self {
            Self::Passing => ZSTD_LEVEL_PASSING,
            Self::Lasting => ZSTD_LEVEL_DOCUMENTS,
        })
    }
}

/// How a log's files are written.
pub fn writer_properties(table: &Table, lifetime: Lifetime) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(zstd(ZSTD_LEVEL))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(1024)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by("muniment".to_owned());
    // Packed integers are hardly smaller compressed (0.2 bytes a record in all), and are read faster.
    for column in ["id", "stream_index", "recorded_at"] {
        builder = builder
            .set_column_dictionary_enabled(ColumnPath::from(column), false)
            .set_column_compression(ColumnPath::from(column), Compression::UNCOMPRESSED)
            .set_column_encoding(ColumnPath::from(column), Encoding::DELTA_BINARY_PACKED);
    }
    for column in ["blockchain_hash", "erased_payload_hash"] {
        builder = builder
            .set_column_dictionary_enabled(ColumnPath::from(column), false)
            .set_column_compression(ColumnPath::from(column), Compression::UNCOMPRESSED)
            .set_column_statistics_enabled(ColumnPath::from(column), EnabledStatistics::None);
    }
    for column in table.columns {
        let path = ColumnPath::from(column.name);
        match column.ty {
            muniment_model::Type::Json { .. } => {
                builder = builder
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_data_page_size_limit(path.clone(), DOCUMENT_PAGE_BYTES)
                    .set_column_compression(path.clone(), lifetime.documents())
                    .set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
            }
            muniment_model::Type::Text { .. } => {
                builder = builder
                    .set_column_dictionary_page_size_limit(path.clone(), DICTIONARY_BYTES)
                    .set_column_encoding(path.clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY);
            }
            muniment_model::Type::Int { .. } => {
                builder = builder
                    .set_column_compression(path.clone(), Compression::UNCOMPRESSED)
                    .set_column_dictionary_page_size_limit(path.clone(), DICTIONARY_BYTES)
                    .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
            }
            muniment_model::Type::Bool | muniment_model::Type::Timestamp => {
                builder = builder.set_column_compression(path.clone(), Compression::UNCOMPRESSED);
            }
            _ => {}
        }
        if matches!(column.ty, muniment_model::Type::Timestamp) {
            builder =
                builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
        }
        if column.lookup && !(has_entities(table) && column.name == "primary_key") {
            builder = builder
                .set_column_bloom_filter_enabled(path.clone(), true)
                .set_column_bloom_filter_max_ndv(path.clone(), ROW_GROUP_ROWS as u64)
                .set_column_bloom_filter_fpp(path, 0.02);
        }
    }
    builder.build()
}

/// A file that is still being written. It goes when the value does, unless it was moved to its place.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), error = &error as &dyn std::error::Error, "removing a scratch file");
        }
    }
}

/// Writes one file, batch by batch, into a scratch place.
pub struct FileWriter {
    writer: ArrowWriter<File>,
    scratch: Scratch,
    stream: String,
    event_time: &'static str,
    extent: Option<Extent>,
    nodes: Vec<Node>,
    filters: Option<FilterBuilder>,
    previous_hash: Hash,
}

impl FileWriter {
    /// Starts a file of this stream; `previous_hash` is that of the record before the first.
    pub fn create(
        objects: &Objects,
        table: &'static Table,
        stream: &str,
        previous_hash: Hash,
        lifetime: Lifetime,
        unique: u64,
    ) -> Result<Self> {
        let scratch = Scratch(objects.scratch()?.join(format!("{}-{unique}.parquet", std::process::id())));
        let file = File::create(&scratch.0).map_err(StoreError::file("creating", &scratch.0))?;
        let writer = ArrowWriter::try_new(file, table.stored_schema(), Some(writer_properties(table, lifetime)))
            .map_err(StoreError::parquet(&scratch.0.to_string_lossy()))?;
        Ok(Self {
            writer,
            scratch,
            stream: stream.to_owned(),
            event_time: event_time_column(table),
            extent: None,
            nodes: Vec::new(),
            filters: has_entities(table).then(|| FilterBuilder::new(ROW_GROUP_ROWS)),
            previous_hash,
        })
    }

    /// Appends records, which must follow on those already written.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let extent = extent_of(&self.stream, self.event_time, batch)?;
        match &mut self.extent {
            None => self.extent = Some(extent.clone()),
            Some(whole) if whole.end == extent.first => {
                whole.end = extent.end;
                whole.first_id = whole.first_id.min(extent.first_id);
                whole.last_id = whole.last_id.max(extent.last_id);
                whole.recorded_to = extent.recorded_to;
                whole.min_time = whole.min_time.min(extent.min_time);
                whole.max_time = whole.max_time.max(extent.max_time);
            }
            Some(whole) => {
                return Err(StoreError::Damaged(format!("{}: index {} is followed by {}", self.stream, whole.end, extent.first)));
            }
        }
        let stored = column(batch, "blockchain_hash")?.as_fixed_size_binary();
        let hashes = stored.iter().map(|hash| to_hash(hash.unwrap_or_default())).collect::<Result<Vec<_>>>()?;
        append_nodes(&mut self.nodes, muniment_ledger::compact_range(extent.first, &hashes));
        if let Some(filters) = &mut self.filters {
            filters.add(batch);
        }
        self.writer.write(batch).map_err(StoreError::parquet(&self.scratch.0.to_string_lossy()))
    }

    /// Records written so far.
    pub fn records(&self) -> u64 {
        self.extent.as_ref().map_or(0, Extent::records)
    }

    /// Finishes the file and moves it to its place; `None` if nothing was written.
    pub fn finish(mut self, objects: &Objects) -> Result<Option<FileRow>> {
        let name = self.scratch.0.to_string_lossy().into_owned();
        self.writer.flush().map_err(StoreError::parquet(&name))?;
        if let Some(filters) = self.filters.take()
            && let Some((bytes, entry)) = filters.finish(self.writer.bytes_written() as u64)?
        {
            self.writer.write_all(&bytes).map_err(StoreError::file("writing", &self.scratch.0))?;
            self.writer.append_key_value_metadata(entry);
        }
        self.writer.close().map_err(StoreError::parquet(&name))?;
        let Some(extent) = self.extent else { return Ok(None) };
        let (sha256, bytes) = hash_file(&self.scratch.0)?;
        let month = month_of(extent.recorded_from);
        let path =
            format!("logs/{}/{month}/{:012}-{:012}-{}.parquet", self.stream, extent.first, extent.end - 1, hex::encode(&sha256[..8]));
        objects.publish(&self.scratch.0, &path)?;
        let nodes = nodes_to_bytes(&self.nodes);
        Ok(Some(FileRow { path, extent, month, bytes, sha256, previous_hash: self.previous_hash, nodes }))
    }
}

/// Appends a compact range to the one before it: two sibling nodes become their parent.
fn append_nodes(nodes: &mut Vec<Node>, following: Vec<Node>) {
    for mut node in following {
        while let Some(left) = nodes.last().filter(|left| left.level == node.level && left.index % 2 == 0 && left.index + 1 == node.index) {
            node = Node { level: node.level + 1, index: node.index / 2, hash: muniment_ledger::node_hash(&left.hash, &node.hash) };
            nodes.pop();
        }
        nodes.push(node);
    }
}

/// SHA-256 and length of a file.
pub fn hash_file(path: &std::path::Path) -> Result<(Hash, u64)> {
    let mut file = File::open(path).map_err(StoreError::file("opening", path))?;
    let (mut hasher, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 18], 0);
    loop {
        let read = file.read(&mut buffer).map_err(StoreError::file("reading", path))?;
        if read == 0 {
            return Ok((hasher.finalize().into(), bytes));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// The column that says when an event of this log happened.
pub fn event_time_column(table: &'static Table) -> &'static str {
    let event_time = table
        .columns
        .iter()
        .find(|column| matches!(column.ty, muniment_model::Type::Timestamp) && column.default == muniment_model::DefaultValue::Now);
    event_time.map_or("recorded_at", |column| column.name)
}

/// Where the records of a stored batch lie. It must not be empty.
pub fn extent_of(stream: &str, event_time: &str, batch: &RecordBatch) -> Result<Extent> {
    let indexes = column(batch, "stream_index")?.as_primitive::<Int64Type>().values();
    let ids = column(batch, "id")?.as_primitive::<Int64Type>();
    let recorded = column(batch, "recorded_at")?.as_primitive::<TimestampMicrosecondType>().values();
    let (min_time, max_time) = time_range(batch, event_time)?;
    let (Some(first), Some(last)) = (indexes.first(), indexes.last()) else {
        return Err(StoreError::Damaged(format!("an empty batch of {stream}")));
    };
    Ok(Extent {
        stream: stream.to_owned(),
        first: *first as u64,
        end: *last as u64 + 1,
        first_id: ids.values().iter().copied().min().unwrap_or_default(),
        last_id: ids.values().iter().copied().max().unwrap_or_default(),
        recorded_from: recorded[0],
        recorded_to: recorded[recorded.len() - 1],
        min_time,
        max_time,
    })
}

/// Smallest and largest event time of a batch, µs UTC.
pub fn time_range(batch: &RecordBatch, event_time: &str) -> Result<(i64, i64)> {
    let times = column(batch, event_time)?.as_primitive::<TimestampMicrosecondType>();
    Ok((times.iter().flatten().min().unwrap_or(i64::MIN), times.iter().flatten().max().unwrap_or(i64::MAX)))
}

/// A column that must be there.
pub fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow_array::ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| StoreError::Damaged(format!("there is no column {name}")))
}

/// A 32-byte value as a hash.
pub fn to_hash(bytes: &[u8]) -> Result<Hash> {
    bytes.try_into().map_err(|_| StoreError::Damaged("a hash does not have 32 bytes".to_owned()))
}

/// Nodes as a catalog row keeps them: level, index (u64), hash, one after the other.
pub fn nodes_to_bytes(nodes: &[Node]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(nodes.len() * 41);
    for node in nodes {
        bytes.push(node.level);
        bytes.extend_from_slice(&node.index.to_be_bytes());
        bytes.extend_from_slice(&node.hash);
    }
    bytes
}

/// The reverse of [`nodes_to_bytes`].
pub fn nodes_from_bytes(bytes: &[u8]) -> Result<Vec<Node>> {
    let damaged = || StoreError::Damaged("the nodes of a file".to_owned());
    let (chunks, rest) = bytes.as_chunks::<41>();
    if !rest.is_empty() {
        return Err(damaged());
    }
    chunks
        .iter()
        .map(|chunk| {
            let index = chunk[1..9].try_into().map_err(|_| damaged())?;
            Ok(Node { level: chunk[0], index: u64::from_be_bytes(index), hash: to_hash(&chunk[9..])? })
        })
        .collect()
}

/// Root of a stream's frontier as a catalog row keeps it.
pub fn frontier_from_bytes(bytes: &[u8], what: &str) -> Result<Frontier> {
    Frontier::from_bytes(bytes).map_err(|error| StoreError::Damaged(format!("the frontier of {what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_appended_in_pieces_are_the_range_of_the_whole() {
        let hashes: Vec<Hash> = (0..200u8).map(|n| [n; 32]).collect();
        for first in [0, 1, 5, 64, 77] {
            for step in [1, 3, 16, 63] {
                let mut nodes = Vec::new();
                for (n, piece) in hashes.chunks(step).enumerate() {
                    append_nodes(&mut nodes, muniment_ledger::compact_range(first + (n * step) as u64, piece));
                }
                assert_eq!(nodes, muniment_ledger::compact_range(first, &hashes), "from {first} in steps of {step}");
            }
        }
    }
}
