//! Reads ranges of local files where the query runs: a hop to another thread for each small range would cost more than the reading itself.

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileMetrics;
use datafusion::datasource::physical_plan::parquet::{CachedParquetFileReaderFactory, ParquetFileReaderFactory};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ParquetMetaData;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::objects::Objects;

/// Ranges of more bytes in all are read on a thread of their own.
const READ_HERE_BYTES: u64 = 1 << 20;

/// Makes readers of the store's files; footers come from DataFusion's cache.
#[derive(Debug)]
pub(super) struct LocalFiles {
    objects: Objects,
    metadata: CachedParquetFileReaderFactory,
}

impl LocalFiles {
    pub(super) fn new(objects: &Objects, cache: Arc<FileMetadataCache>) -> Self {
        Self { objects: objects.clone(), metadata: CachedParquetFileReaderFactory::new(objects.object_store(), cache) }
    }

    /// Footer and page index of a file.
    pub(super) async fn metadata(&self, file: PartitionedFile) -> Result<Arc<ParquetMetaData>> {
        let metrics = ExecutionPlanMetricsSet::new();
        let mut reader = self.metadata.create_reader(0, file, None, &metrics)?;
        Ok(reader.get_metadata(None).await?)
    }
}

impl ParquetFileReaderFactory for LocalFiles {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let path = file.object_meta.location.to_string();
        let counted = ParquetFileMetrics::new(partition, &path, metrics);
        let opened = Arc::new(File::open(self.objects.local_path(&path))?);
        let metadata = self.metadata.create_reader(partition, file, hint, &ExecutionPlanMetricsSet::new())?;
        Ok(Box::new(LocalReader { file: opened, metadata, counted }))
    }
}

struct LocalReader {
    file: Arc<File>,
    metadata: Box<dyn AsyncFileReader + Send>,
    counted: ParquetFileMetrics,
}

/// The bytes of a file from an offset on.
pub(super) fn read_range(file: &File, start: u64, length: usize) -> ParquetResult<Bytes> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes.into())
}

fn read(file: &File, ranges: &[Range<u64>]) -> ParquetResult<Vec<Bytes>> {
    ranges.iter().map(|range| read_range(file, range.start, (range.end - range.start) as usize)).collect()
}

impl AsyncFileReader for LocalReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let mut bytes = self.get_byte_ranges(vec![range]).await?;
            bytes.pop().ok_or_else(|| ParquetError::General("nothing was read".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        self.counted.bytes_scanned.add(wanted as usize);
        let file = self.file.clone();
        async move {
            if wanted <= READ_HERE_BYTES {
                return read(&file, &ranges);
            }
            let reading = tokio::task::spawn_blocking(move || read(&file, &ranges));
            reading.await.map_err(|error| ParquetError::External(Box::new(error)))?
        }
        .boxed()
    }

    fn get_metadata<'a>(&'a mut self, options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        self.metadata.get_metadata(options)
    }
}
