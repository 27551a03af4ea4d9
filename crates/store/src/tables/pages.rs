//! The pages of a row group, for reading few rows of many row groups. Parquet's own reader makes a compressor and a decompressor for each column of each row
//! group; for a handful of rows that costs more than reading them. Here one decompressor serves all that a thread reads.

use super::reader::read_range;
use bytes::{Buf, Bytes, buf::Reader};
use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use std::cell::RefCell;
use std::fs::File;
use std::sync::Arc;
use zstd::bulk::Decompressor;
use zstd::zstd_safe::get_frame_content_size;

/// Bytes that are read at once where a page's length is not known before.
const READ_AHEAD: u64 = 64 * 1024;
/// Bytes of a page at most, as the format's 32 bits say it.
const MAX_PAGE_BYTES: u64 = i32::MAX as u64;

thread_local! {
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// An open file of the store.
pub(super) struct Pages {
    file: File,
    bytes: u64,
}

impl Pages {
    /// The pages of a file of so many bytes.
    pub(super) fn new(file: File, bytes: u64) -> Self {
        Self { file, bytes }
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Pages {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let length = self.bytes.saturating_sub(start).min(READ_AHEAD);
        Ok(self.get_bytes(start, length as usize)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.saturating_add(length as u64) > self.bytes {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} of a file of {} bytes", self.bytes)));
        }
        read_range(&self.file, start, length)
    }
}

/// One row group of a file. With the page index in the metadata, pages without a wanted row are not read.
pub(super) struct RowGroupPages<'a> {
    pub(super) pages: &'a Arc<Pages>,
    pub(super) metadata: &'a ParquetMetaData,
    pub(super) row_group: usize,
}

impl RowGroups for RowGroupPages<'_> {
    fn num_rows(&self) -> usize {
        self.metadata.row_group(self.row_group).num_rows() as usize
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        let chunk = self.metadata.row_group(self.row_group).column(column);
        let locations = self.metadata.offset_index().and_then(|index| index.get(self.row_group)?.get(column));
        let locations = locations.map(|index| index.page_locations().clone());
        let compressed = matches!(chunk.compression(), Compression::ZSTD(_));
        let pages: Box<dyn PageReader> = if compressed {
            let stored = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
            Box::new(Decompressing(SerializedPageReader::new(self.pages.clone(), &stored, self.num_rows(), locations)?))
        } else {
            Box::new(SerializedPageReader::new(self.pages.clone(), chunk, self.num_rows(), locations)?)
        };
        Ok(Box::new(Chunk(Some(pages))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.metadata.row_group(self.row_group)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.metadata
    }
}

struct Chunk(Option<Box<dyn PageReader>>);

impl Iterator for Chunk {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl PageIterator for Chunk {}

/// Pages that are stored as Zstandard frames, of a chunk that is said to be uncompressed.
struct Decompressing(SerializedPageReader<Pages>);

impl Decompressing {
    fn decompress(page: Page) -> Result<Page> {
        match page {
            Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics } => {
                let buf = decompress(&buf)?;
                Ok(Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics })
            }
            Page::DictionaryPage { buf, num_values, encoding, is_sorted } => {
                Ok(Page::DictionaryPage { buf: decompress(&buf)?, num_values, encoding, is_sorted })
            }
            Page::DataPageV2 { .. } => Err(ParquetError::NYI("data pages of version 2, which the store does not write".to_owned())),
        }
    }
}

fn decompress(frame: &[u8]) -> Result<Bytes> {
    let damaged = |what: &str| ParquetError::General(format!("a compressed page {what}"));
    let content = get_frame_content_size(frame).map_err(|_| damaged("has no frame"))?;
    let content = content.filter(|bytes| *bytes <= MAX_PAGE_BYTES).ok_or_else(|| damaged("does not say its size"))?;
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        Ok(decompressor.decompress(frame, content as usize)?.into())
    })
}

impl Iterator for Decompressing {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Decompressing {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.0.get_next_page()?.map(Self::decompress).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.skip_next_page()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection};
    use parquet::arrow::{ArrowWriter, ProjectionMask, parquet_to_arrow_field_levels};
    use parquet::basic::ZstdLevel;
    use parquet::file::metadata::PageIndexPolicy;
    use parquet::file::properties::WriterProperties;
    use std::io::Write;
    use tempfile::tempfile;

    const ROWS: usize = 10_000;
    const GROUP: usize = 4_000;

    fn rows() -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..ROWS as i64).map(|n| (n % 7 != 0).then_some(n * n))));
        let few: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!("kind {}", n % 5))));
        let many: ArrayRef =
            Arc::new(StringArray::from_iter((0..ROWS).map(|n| (n % 3 != 0).then(|| format!("value {n} of many").repeat(n % 20)))));
        RecordBatch::try_from_iter_with_nullable([("numbers", numbers, true), ("few", few, false), ("many", many, true)]).unwrap()
    }

    /// A file of three row groups, compressed but for one column.
    fn written() -> Vec<u8> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_column_compression("numbers".into(), Compression::UNCOMPRESSED)
            .set_max_row_group_row_count(Some(GROUP))
            .set_data_page_row_count_limit(512)
            .set_write_batch_size(64)
            .build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, rows().schema(), Some(properties)).unwrap();
        writer.write(&rows()).unwrap();
        writer.close().unwrap();
        bytes
    }

    fn metadata(file: &File, index: PageIndexPolicy) -> Arc<ParquetMetaData> {
        let options = ArrowReaderOptions::new().with_page_index_policy(index);
        ArrowReaderMetadata::load(file, options).unwrap().metadata().clone()
    }

    fn read(file: &File, metadata: &ParquetMetaData, row_group: usize, selection: Option<RowSelection>) -> Result<Vec<RecordBatch>> {
        let levels = parquet_to_arrow_field_levels(metadata.file_metadata().schema_descr(), ProjectionMask::all(), None)?;
        let pages = Arc::new(Pages::new(file.try_clone()?, file.metadata()?.len()));
        let pages = RowGroupPages { pages: &pages, metadata, row_group };
        ParquetRecordBatchReader::try_new_with_row_groups(&levels, &pages, ROWS, selection)?.map(|batch| Ok(batch?)).collect()
    }

    fn stored(bytes: &[u8]) -> File {
        let mut file = tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn row_groups_and_single_rows_are_what_was_written() {
        let (file, all) = (stored(&written()), rows());
        for index in [PageIndexPolicy::Required, PageIndexPolicy::Skip] {
            let metadata = metadata(&file, index);
            for row_group in 0..3 {
                let (start, length) = (row_group * GROUP, GROUP.min(ROWS - row_group * GROUP));
                assert_eq!(read(&file, &metadata, row_group, None).unwrap(), [all.slice(start, length)]);
                let row = length - 500;
                let one = RowSelection::from_consecutive_ranges(std::iter::once(row..row + 1), length);
                assert_eq!(read(&file, &metadata, row_group, Some(one)).unwrap(), [all.slice(start + row, 1)]);
            }
        }
    }

    #[test]
    fn damaged_pages_are_errors_or_other_values() {
        let bytes = written();
        let sound = stored(&bytes);
        let metadata = metadata(&sound, PageIndexPolicy::Required);
        let chunks = metadata.row_group(0).compressed_size() as usize;
        let mut refused = 0;
        for at in (4..chunks).step_by(97) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            let read = read(&stored(&damaged), &metadata, 0, None);
            refused += usize::from(read.is_err());
            assert!(read.is_err() || read.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>() == GROUP);
        }
        assert!(refused > 0);
    }

    #[test]
    fn frames_without_a_size_are_refused() {
        let mut stream = zstd::Encoder::new(Vec::new(), 1).unwrap();
        stream.write_all(b"of a size that was not known before").unwrap();
        let error = decompress(&stream.finish().unwrap()).unwrap_err();
        assert!(error.to_string().contains("does not say its size"), "{error}");
        assert!(decompress(b"no frame").unwrap_err().to_string().contains("has no frame"));
    }
}
