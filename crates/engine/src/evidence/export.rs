//! Export of a bundle (format §3): into a folder beside the target, which takes the target's name when everything is written.

mod writer;

use self::writer::{RecordWriter, with_salts};
use super::nodes::Tree;
use super::schema::{bundle_schema, complete};
use crate::{EngineError, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use muniment_ledger::bundle::{self, Column, Manifest, RecordFormat, Scope, Stream};
use muniment_ledger::meta::MetaLeaf;
use muniment_ledger::{NO_HASH, PartitionKey};
use muniment_model::Table;
use muniment_store::catalog::Catalog;
use muniment_store::db::{FileRow, Loaded, StreamRow};
use muniment_store::objects::sync_folder;
use muniment_store::parquet_file::column;
use muniment_store::{Store, StoreError, StreamSnapshot, month_of};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Leaves of the meta-log written at a time.
const LEAVES: u64 = 8192;

/// What to export, and where to.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The folder to make; it must not be there, or be empty.
    pub out: PathBuf,
    /// The kind of the record files.
    pub record_format: RecordFormat,
    /// Only these logs.
    pub logs: Option<Vec<String>>,
    /// Only these streams.
    pub streams: Option<Vec<String>>,
    /// Only records committed at this time or later, µs UTC.
    pub from: Option<i64>,
    /// Only records committed before this time, µs UTC.
    pub to: Option<i64>,
}

impl ExportOptions {
    /// Everything, as Parquet.
    pub fn all(out: impl Into<PathBuf>) -> Self {
        Self { out: out.into(), record_format: RecordFormat::Parquet, logs: None, streams: None, from: None, to: None }
    }

    fn scope(&self) -> Scope {
        let selects = self.logs.is_some() || self.streams.is_some() || self.from.is_some() || self.to.is_some();
        if selects { Scope::Selection } else { Scope::All }
    }

    fn takes(&self, row: &StreamRow) -> bool {
        let log = self.logs.as_ref().is_none_or(|logs| logs.contains(&row.log));
        log && self.streams.as_ref().is_none_or(|streams| streams.contains(&row.stream))
    }
}

/// Exports a bundle and returns its manifest.
///
/// # Errors
///
/// [`EngineError::Parameter`] if the target is there already, [`EngineError::UnknownLog`], or what reading and writing fail with; then nothing
/// is left behind.
pub async fn export(store: &Arc<Store>, options: &ExportOptions) -> Result<Manifest> {
    for log in options.logs.iter().flatten() {
        muniment_model::table(log).filter(|table| table.is_log()).ok_or_else(|| EngineError::UnknownLog(log.clone()))?;
    }
    let scratch = scratch_folder(&options.out)?;
    let exported = write_bundle(store, options, &scratch).await;
    if let Err(error) = exported {
        if let Err(left) = std::fs::remove_dir_all(&scratch) {
            tracing::warn!(folder = %scratch.display(), error = %left, "an unfinished bundle was left behind");
        }
        return Err(error);
    }
    if options.out.exists() {
        std::fs::remove_dir(&options.out).map_err(EngineError::file("replacing", &options.out))?;
    }
    std::fs::rename(&scratch, &options.out).map_err(EngineError::file("creating", &options.out))?;
    if let Some(parent) = scratch.parent() {
        sync_folder(parent)?;
    }
    exported
}

/// A new folder beside the target.
fn scratch_folder(out: &Path) -> Result<PathBuf> {
    let refused = |reason: &str| EngineError::Parameter { name: "out", reason: format!("{} {reason}", out.display()) };
    let name = out.file_name().ok_or_else(|| refused("is not a folder's name"))?;
    match std::fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(refused("is not empty")),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(EngineError::file("reading", out)(error)),
        _ => {}
    }
    let scratch = out.with_file_name(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).map_err(EngineError::file("removing", &scratch))?;
    }
    std::fs::create_dir_all(&scratch).map_err(EngineError::file("creating", &scratch))?;
    Ok(scratch)
}

async fn write_bundle(store: &Arc<Store>, options: &ExportOptions, folder: &Path) -> Result<Manifest> {
    // Held until the end: as long as somebody holds a snapshot, this process removes no batch that it has flushed.
    let _held = store.snapshot();
    let loaded = store.db().load().await?;
    let snapshot = Catalog::from_loaded(&loaded).snapshot();
    let exporter = Exporter { store, options, folder, loaded: &loaded };
    let size = exporter.write_checkpoints().await?;
    exporter.write_meta_log(size).await?;
    let signed = exporter.columns(size).await?;
    let mut columns = BTreeMap::new();
    let mut streams = Vec::new();
    for row in loaded.streams.iter().filter(|row| options.takes(row)) {
        let damaged = || StoreError::Damaged(format!("{} is not in the catalog", row.stream));
        let of_log = signed.get(&row.log).ok_or_else(|| StoreError::Damaged(format!("no schema leaf has the columns of {}", row.log)))?;
        columns.insert(row.log.clone(), of_log.clone());
        streams.push(exporter.write_stream(row, snapshot.get(&row.stream).ok_or_else(damaged)?).await?);
    }
    streams.sort_by(|a, b| a.stream.cmp(&b.stream));
    let keys = store.db().landmarks("key").await?;
    let vkey = keys.into_iter().rfind(|(number, _)| *number < size).map(|(_, vkey)| vkey);
    let manifest = Manifest {
        format: bundle::FORMAT.to_owned(),
        origin: loaded.origin.clone(),
        created_at: crate::now(),
        vkey: vkey.ok_or_else(|| StoreError::Damaged("there is no key".to_owned()))?,
        scope: options.scope(),
        record_format: options.record_format,
        columns,
        streams,
    };
    let mut json = serde_json::to_vec_pretty(&manifest).map_err(muniment_ledger::Error::Json)?;
    json.push(b'\n');
    exporter.write_file(bundle::MANIFEST, &json)?;
    sync_folder(folder)?;
    Ok(manifest)
}

struct Exporter<'a> {
    store: &'a Arc<Store>,
    options: &'a ExportOptions,
    folder: &'a Path,
    loaded: &'a Loaded,
}

impl Exporter<'_> {
    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        let written = File::create(&path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        written.map_err(EngineError::file("writing", &path))
    }

    /// Writes the newest checkpoint and those of key rotations. Returns the newest one's size.
    async fn write_checkpoints(&self) -> Result<u64> {
        let (size, note) = self.loaded.checkpoint.clone().ok_or_else(|| EngineError::NotFound("a checkpoint".to_owned()))?;
        self.write_file(bundle::CHECKPOINT, note.as_bytes())?;
        let folder = self.folder.join(bundle::CHECKPOINTS);
        std::fs::create_dir(&folder).map_err(EngineError::file("creating", &folder))?;
        let db = self.store.db();
        for (number, _) in db.landmarks("key").await?.into_iter().filter(|(number, _)| *number > 0 && *number < size) {
            let found = db.checkpoint_from(number + 1).await?.filter(|(size, _)| *size == number + 1);
            let (size, note) = found.ok_or_else(|| StoreError::Damaged("the checkpoint of a key rotation is missing".to_owned()))?;
            self.write_file(&format!("{}/{size}", bundle::CHECKPOINTS), note.as_bytes())?;
        }
        Ok(size)
    }

    async fn write_meta_log(&self, size: u64) -> Result<()> {
        let path = self.folder.join(bundle::META);
        let fail = || EngineError::file("writing", &path);
        let mut file = std::io::BufWriter::new(File::create(&path).map_err(fail())?);
        for first in (0..size).step_by(LEAVES as usize) {
            for leaf in self.store.db().meta_leaves(first, size.min(first + LEAVES)).await? {
                file.write_all(&leaf).map_err(fail())?;
            }
        }
        let file = file.into_inner().map_err(|error| fail()(error.into_error()))?;
        file.sync_all().map_err(fail())
    }

    /// The data columns of each log, by its newest schema leaf.
    async fn columns(&self, size: u64) -> Result<BTreeMap<String, Vec<Column>>> {
        let db = self.store.db();
        let landmarks = db.landmarks("schema").await?.into_iter().filter(|(number, _)| *number < size);
        let newest: BTreeMap<String, u64> = landmarks.map(|(number, log)| (log, number)).collect();
        let mut columns = BTreeMap::new();
        for number in newest.into_values() {
            for leaf in db.meta_leaves(number, number + 1).await? {
                if let MetaLeaf::Schema { log, columns: signed, .. } = MetaLeaf::decode(&leaf)? {
                    columns.insert(log, signed);
                }
            }
        }
        Ok(columns)
    }

    async fn write_stream(&self, row: &StreamRow, stream: &StreamSnapshot) -> Result<Stream> {
        let table = muniment_model::table(&row.log).ok_or_else(|| EngineError::UnknownLog(row.log.clone()))?;
        let Range { start: first, end } = self.range(row, stream).await?;
        let writer = RecordWriter::new(self.folder, &row.stream, table, self.options.record_format);
        let files = self.write_records(table, row, stream, first..end, writer).await?;
        let tree = Tree::Stream(self.store, &row.stream, stream);
        let previous_hash = if first == 0 { NO_HASH } else { self.store.previous_hash(&row.stream, stream, first).await? };
        Ok(Stream {
            stream: row.stream.clone(),
            log: row.log.clone(),
            size: row.size,
            first,
            end,
            previous_hash,
            left: tree.range(0, first).await?,
            right: tree.range(end, row.size).await?,
            files,
        })
    }

    /// The indexes of the records that were committed in the selected time.
    async fn range(&self, row: &StreamRow, stream: &StreamSnapshot) -> Result<Range<u64>> {
        let first = match self.options.from {
            Some(time) => self.index_of(row, stream, time).await?,
            None => stream.first(),
        };
        let end = match self.options.to {
            Some(time) => self.index_of(row, stream, time).await?,
            None => row.size,
        };
        Ok(first..end.max(first))
    }

    /// The index of the first record that was committed at this time or later.
    async fn index_of(&self, row: &StreamRow, stream: &StreamSnapshot, time: i64) -> Result<u64> {
        if let Some(file) = stream.files.iter().find(|file| file.extent.recorded_to >= time) {
            let mut index = file.extent.first;
            for batch in self.store.open_file(file, 0..file.extent.records(), Some(&["recorded_at"]))? {
                let batch = batch?;
                let times = column(&batch, "recorded_at")?.as_primitive::<TimestampMicrosecondType>();
                let before = times.values().partition_point(|recorded_at| *recorded_at < time);
                index += before as u64;
                if before < batch.num_rows() {
                    break;
                }
            }
            return Ok(index);
        }
        let batch = stream.hot.iter().find(|batch| batch.extent.recorded_to >= time);
        Ok(batch.map_or(row.size, |batch| batch.extent.first))
    }

    async fn write_records(
        &self,
        table: &'static Table,
        row: &StreamRow,
        stream: &StreamSnapshot,
        range: Range<u64>,
        mut writer: RecordWriter,
    ) -> Result<Vec<bundle::File>> {
        let overlaps = |first: u64, end: u64| first < range.end && end > range.start;
        for file in stream.files.iter().filter(|file| overlaps(file.extent.first, file.extent.end)) {
            let key = self.key(row, file.extent.recorded_from).await?;
            let (store, file, range) = (self.store.clone(), file.clone(), range.clone());
            writer = blocking(move || write_file(&store, table, &file, range, key.as_ref(), writer)).await?;
        }
        for batch in stream.hot.iter().filter(|batch| overlaps(batch.extent.first, batch.extent.end)) {
            let key = self.key(row, batch.extent.recorded_from).await?;
            let records = self.store.read_hot(table, batch).await?;
            let from = range.start.max(batch.extent.first) - batch.extent.first;
            let to = range.end.min(batch.extent.end) - batch.extent.first;
            let records = with_salts(&records.slice(from as usize, (to - from) as usize), &bundle_schema(table), key.as_ref())?;
            writer = blocking(move || writer.write(&records).map(|()| writer)).await?;
        }
        blocking(move || writer.finish(&range)).await
    }

    async fn key(&self, row: &StreamRow, recorded_at: i64) -> Result<Option<PartitionKey>> {
        let key = self.store.db().partition_key(&row.stream, &month_of(recorded_at)).await?;
        Ok(key.map(|key| PartitionKey::new(&key)))
    }
}

/// Copies the records of a range from a file of the store.
fn write_file(
    store: &Store,
    table: &'static Table,
    file: &FileRow,
    range: Range<u64>,
    key: Option<&PartitionKey>,
    mut writer: RecordWriter,
) -> Result<RecordWriter> {
    let extent = &file.extent;
    let rows = range.start.max(extent.first) - extent.first..range.end.min(extent.end) - extent.first;
    for batch in store.open_file(file, rows, None)? {
        let batch = complete(batch?, &table.stored_schema()).map_err(StoreError::Damaged)?;
        writer.write(&with_salts(&batch, &bundle_schema(table), key)?)?;
    }
    Ok(writer)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Stopped)?
}
