//! Reading records back: a hot batch by its row, a range of a file, single hashes.

use crate::db::{BatchRow, FileRow};
use crate::error::{Result, StoreError};
use crate::hot::{Ledgered, decode};
use crate::parquet_file::{column, to_hash};
use crate::{Store, StreamSnapshot};
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use muniment_ledger::{Hash, NO_HASH};
use muniment_model::Table;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Records decoded at a time.
pub const READ_BATCH_ROWS: usize = 8192;

impl Store {
    /// A hot batch with its ledger columns.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is gone: a process that only reads may find that the writer moved it to a file.
    pub async fn read_hot(&self, table: &'static Table, row: &BatchRow) -> Result<RecordBatch> {
        let extent = &row.extent;
        let stream: Arc<str> = Arc::from(extent.stream.as_str());
        if let Some(batch) = self.cache.get(&stream, extent.first) {
            return Ok(batch);
        }
        let gone = || StoreError::Damaged(format!("the batch of {} at {} is gone", extent.stream, extent.first));
        let (hashes, body) = self.db.hot_body(&extent.stream, extent.first).await?.ok_or_else(gone)?;
        let batch = decode(table, &body, Ledgered { first: extent.first, recorded_at: extent.recorded_to, hashes: &hashes })?;
        self.cache.put(stream, extent.first, batch.clone());
        Ok(batch)
    }

    /// Opens rows of a file, counted from the file's first. `columns` restricts what is read. Blocking.
    pub fn open_file(&self, file: &FileRow, rows: Range<u64>, columns: Option<&[&str]>) -> Result<ParquetRecordBatchReader> {
        let path = self.objects.local_path(&file.path);
        let opened = File::open(&path).map_err(StoreError::file("opening", &path))?;
        open_parquet(opened, rows, columns).map_err(StoreError::parquet(&file.path))
    }

    /// Stored hashes of records `[first, end)` of a stream, in order. The range must lie within the snapshot.
    pub async fn hashes(&self, name: &str, stream: &StreamSnapshot, first: u64, end: u64) -> Result<Vec<Hash>> {
        let mut hashes = Vec::with_capacity((end - first) as usize);
        for file in stream.files.iter().filter(|file| file.extent.first < end && file.extent.end > first) {
            let extent = &file.extent;
            let rows = first.max(extent.first) - extent.first..end.min(extent.end) - extent.first;
            let reader = self.open_file(file, rows, Some(&["blockchain_hash"]))?;
            for batch in reader {
                let batch = batch.map_err(StoreError::arrow("reading hashes"))?;
                let column = column(&batch, "blockchain_hash")?.as_fixed_size_binary();
                for row in 0..batch.num_rows() {
                    hashes.push(to_hash(column.value(row))?);
                }
            }
        }
        for batch in stream.hot.iter().filter(|batch| batch.extent.first < end && batch.extent.end > first) {
            let extent = &batch.extent;
            let body = self.db.hot_body(name, extent.first).await?;
            let (bytes, _) = body.ok_or_else(|| StoreError::Damaged(format!("the batch of {name} at {} is gone", extent.first)))?;
            let rows = (first.max(extent.first) - extent.first) as usize..(end.min(extent.end) - extent.first) as usize;
            let (all, _) = bytes.as_chunks::<32>();
            hashes.extend_from_slice(all.get(rows).unwrap_or_default());
        }
        if hashes.len() as u64 != end - first {
            return Err(StoreError::Damaged(format!("{name}: records between {first} and {end} are missing")));
        }
        Ok(hashes)
    }

    /// `previous_hash` of a record: the hash of the one before it.
    pub async fn previous_hash(&self, name: &str, stream: &StreamSnapshot, index: u64) -> Result<Hash> {
        if index == 0 {
            return Ok(NO_HASH);
        }
        if let Some(file) = stream.files.iter().find(|file| file.extent.first == index) {
            return Ok(file.previous_hash);
        }
        let hashes = self.hashes(name, stream, index - 1, index).await?;
        hashes.first().copied().ok_or_else(|| StoreError::Damaged(format!("{name}: record {} is missing", index - 1)))
    }
}

/// Opens rows of a Parquet file in batches of [`READ_BATCH_ROWS`].
pub fn open_parquet(
    file: File,
    rows: Range<u64>,
    columns: Option<&[&str]>,
) -> Result<ParquetRecordBatchReader, parquet::errors::ParquetError> {
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    if let Some(columns) = columns {
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        builder = builder.with_projection(mask);
    }
    builder
        .with_batch_size(READ_BATCH_ROWS)
        .with_offset(rows.start as usize)
        .with_limit(rows.end.saturating_sub(rows.start) as usize)
        .build()
}
