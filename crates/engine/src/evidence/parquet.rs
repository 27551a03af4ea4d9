//! Parquet files of records, row group by row group.
//!
//! A file is read by its Parquet types alone: an Arrow schema that somebody put into it, its page index and its statistics are not used, because nothing
//! but the file's SHA-256 vouches for them.

use super::records::{RunChecker, Salts, StreamCheck};
use super::run::{Run, guarded};
use super::schema::{check_schema, complete};
use arrow_array::RecordBatch;
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use muniment_ledger::verify::{Finding, Reason, Verdict};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Encoding;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Records decoded at a time: few enough for their columns and payloads to stay in a core's cache.
const BATCH_ROWS: usize = 1024;
/// Most rows of a row group that is read.
const MAX_GROUP_ROWS: u64 = 1 << 24;

/// A file of records whose metadata was read.
pub(super) struct RecordFile {
    /// Name for findings.
    pub(super) name: String,
    path: PathBuf,
    range: Range<u64>,
    rows: u64,
    metadata: ArrowReaderMetadata,
    expected: SchemaRef,
}

impl RecordFile {
    /// Reads the metadata of a file that should have the records of this range and just the expected columns.
    pub(super) fn open(
        name: &str,
        path: &Path,
        range: Range<u64>,
        expected: &SchemaRef,
        check: &StreamCheck<'_>,
    ) -> Result<Self, Box<Finding>> {
        let finding = |verdict, reason| Box::new(check.finding(verdict, reason).file(name).records(range.clone()));
        let metadata = guarded(|| {
            let file = File::open(path).map_err(|error| error.to_string())?;
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let metadata = ArrowReaderMetadata::load(&file, options).map_err(|error| error.to_string())?;
            check_schema(metadata.schema(), expected, check.table)?;
            Ok(with_dictionaries(metadata))
        });
        let metadata = metadata.map_err(|reason| finding(Verdict::Malformed, Reason::Unreadable(reason)))?;
        let groups = metadata.metadata().row_groups().iter();
        let rows = groups.map(|group| u64::try_from(group.num_rows()).ok().filter(|rows| *rows <= MAX_GROUP_ROWS)).sum::<Option<u64>>();
        let too_many = || finding(Verdict::Malformed, Reason::Unreadable("it has a row group of too many rows".to_owned()));
        let rows = rows.ok_or_else(too_many)?;
        let read = |field: &FieldRef| {
            let found = metadata.schema().field_with_name(field.name()).ok();
            let dictionary = found.filter(|found| matches!(found.data_type(), DataType::Dictionary(..)));
            dictionary.map_or(field.clone(), |found| Arc::new(field.as_ref().clone().with_data_type(found.data_type().clone())))
        };
        let expected = Arc::new(Schema::new(expected.fields().iter().map(read).collect::<Vec<_>>()));
        Ok(Self { name: name.to_owned(), path: path.to_owned(), range, rows, metadata, expected })
    }

    /// Its row groups, each with the index of the record that should be its first.
    pub(super) fn groups(self: Arc<Self>) -> Vec<RowGroup> {
        let mut first = self.range.start;
        let count = self.metadata.metadata().num_row_groups();
        if count == 0 {
            return vec![RowGroup { first, group: None, last: true, file: self }];
        }
        (0..count)
            .map(|group| {
                let task = RowGroup { first, group: Some(group), last: group + 1 == count, file: self.clone() };
                first += task.rows();
                task
            })
            .collect()
    }
}

/// Has those texts read as dictionaries whose pages say that they are nothing else: then a text that many records have is decoded and encoded once.
/// If that is not so, the records are the same, only slower to read.
fn with_dictionaries(metadata: ArrowReaderMetadata) -> ArrowReaderMetadata {
    let groups = metadata.metadata().row_groups();
    let is_dictionary = |column: usize| {
        groups.iter().filter_map(|group| group.columns().get(column)).all(|chunk| {
            let only = |encoding| chunk.page_encoding_stats_mask().is_some_and(|mask| mask.is_only(encoding));
            only(Encoding::RLE_DICTIONARY) || only(Encoding::PLAIN_DICTIONARY)
        })
    };
    let schema = metadata.schema();
    let field = |(column, field): (usize, &FieldRef)| {
        if *field.data_type() == DataType::Utf8 && is_dictionary(column) {
            let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            return Arc::new(field.as_ref().clone().with_data_type(dictionary));
        }
        field.clone()
    };
    let fields: Vec<FieldRef> = schema.fields().iter().enumerate().map(field).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let hinted = ArrowReaderMetadata::try_new(metadata.metadata().clone(), ArrowReaderOptions::new().with_schema(schema));
    hinted.unwrap_or(metadata)
}

/// A row group to check.
pub(super) struct RowGroup {
    pub(super) file: Arc<RecordFile>,
    group: Option<usize>,
    first: u64,
    last: bool,
}

impl RowGroup {
    fn rows(&self) -> u64 {
        self.group.map_or(0, |group| self.file.metadata.metadata().row_group(group).num_rows().unsigned_abs())
    }

    /// Checks its records.
    pub(super) fn check(&self, check: &StreamCheck<'_>, salts: Salts<'_>) -> Run {
        let RecordFile { name, range, rows, .. } = &*self.file;
        let short = *rows < range.end - range.start;
        let mut checker = RunChecker::new(check, salts, name, self.first, range.end, short);
        let outcome = if self.rows() > 0 { self.check_rows(&mut checker) } else { Ok(()) };
        let mut run = checker.finish(outcome);
        run.file_end = self.last.then_some(range.end);
        run
    }

    fn check_rows(&self, checker: &mut RunChecker<'_>) -> Result<(), Finding> {
        let mut done = 0;
        let read = guarded(|| {
            self.read(0..self.rows(), &mut |batch| {
                let rows = batch.num_rows() as u64;
                let checked = checker.add(&batch);
                if checked.is_ok() {
                    done += rows;
                }
                checked.map_err(Box::new)
            })
        });
        match read {
            Ok(checked) => checked.map_err(|finding| *finding),
            Err(reason) => Err(self.unreadable(checker, done, reason)),
        }
    }

    /// Finds which of the next rows cannot be read, and checks those before them.
    fn unreadable(&self, checker: &mut RunChecker<'_>, done: u64, reason: String) -> Finding {
        let rows = done..self.rows().min(done + BATCH_ROWS as u64);
        let fails = |rows: Range<u64>| guarded(|| self.read(rows, &mut |_| Ok::<(), ()>(()))).is_err();
        let (mut low, mut high) = (rows.start, rows.end);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fails(rows.start..middle) { high = middle } else { low = middle }
        }
        let first = low;
        let (mut low, mut high) = (first, rows.end);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fails(middle..rows.end) { low = middle } else { high = middle }
        }
        if first > done {
            let before = guarded(|| self.read(done..first, &mut |batch| checker.add(&batch).map_err(Box::new)));
            if let Ok(Err(finding)) = before {
                return *finding;
            }
        }
        let index = checker.next_index();
        checker.finding(Verdict::Malformed, Reason::Unreadable(reason)).records(index..index + (high - first).max(1))
    }

    /// Reads rows of the row group. The outer error is of the file, the inner of the one who takes the batches.
    fn read<E>(&self, rows: Range<u64>, take: &mut dyn FnMut(RecordBatch) -> Result<(), E>) -> Result<Result<(), E>, String> {
        let file = File::open(&self.file.path).map_err(|error| error.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.file.metadata.clone());
        let mut builder = builder.with_row_groups(self.group.into_iter().collect()).with_batch_size(BATCH_ROWS);
        if rows.start > 0 || rows.end < self.rows() {
            builder = builder.with_offset(rows.start as usize).with_limit((rows.end - rows.start) as usize);
        }
        let mut count = 0;
        for batch in builder.build().map_err(|error| error.to_string())? {
            let batch = batch.map_err(|error| error.to_string())?;
            count += batch.num_rows() as u64;
            if let Err(error) = take(complete(batch, &self.file.expected)?) {
                return Ok(Err(error));
            }
        }
        if count == rows.end - rows.start {
            Ok(Ok(()))
        } else {
            Err(format!("a row group has {count} rows, not {}", rows.end - rows.start))
        }
    }
}
