//! Record files of a bundle.

use super::super::schema::{SALT, bundle_schema};
use crate::{EngineError, Result};
use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use muniment_ledger::PartitionKey;
use muniment_ledger::bundle::{self, RecordFormat};
use muniment_model::Table;
use muniment_store::StoreError;
use muniment_store::parquet_file::{Lifetime, column, hash_file, writer_properties};
use parquet::arrow::ArrowWriter;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most records of a file.
const FILE_RECORDS: u64 = 1 << 20;

/// The stored columns with the salts that follow from the partition key; erased records have none.
pub(super) fn with_salts(batch: &RecordBatch, schema: &SchemaRef, key: Option<&PartitionKey>) -> Result<RecordBatch> {
    let erased = column(batch, "erased_payload_hash")?;
    let ids = column(batch, "id")?.as_primitive::<Int64Type>().values();
    let mut salts = Vec::new();
    if let Some(key) = key {
        key.salts(ids, &mut salts);
    }
    let mut builder = FixedSizeBinaryBuilder::with_capacity(ids.len(), 16);
    for row in 0..ids.len() {
        match salts.get(row) {
            _ if erased.is_valid(row) => builder.append_null(),
            Some(salt) => builder.append_value(salt)?,
            None => return Err(StoreError::Damaged(format!("the partition key of record {} is gone", ids[row])).into()),
        }
    }
    let salts: ArrayRef = Arc::new(builder.finish());
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        SALT => Ok(salts.clone()),
        name => column(batch, name).cloned(),
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, StoreError>>()?)?)
}

enum Output {
    Parquet(Box<ArrowWriter<File>>),
    Ndjson(BufWriter<File>),
}

/// Writes the records of a stream to as many files as they need.
pub(super) struct RecordWriter {
    folder: PathBuf,
    stream: String,
    table: &'static Table,
    schema: SchemaRef,
    format: RecordFormat,
    /// The file that is being written and how many records it has.
    current: Option<(Output, u64)>,
    counts: Vec<u64>,
}

impl RecordWriter {
    pub(super) fn new(folder: &Path, stream: &str, table: &'static Table, format: RecordFormat) -> Self {
        let (folder, stream, schema) = (folder.to_owned(), stream.to_owned(), bundle_schema(table));
        Self { folder, stream, table, schema, format, current: None, counts: Vec::new() }
    }

    fn stream_folder(&self) -> PathBuf {
        self.folder.join(bundle::STREAMS).join(&self.stream)
    }

    fn scratch(&self, file: usize) -> PathBuf {
        self.stream_folder().join(format!(".{file}.partial"))
    }

    /// Appends records, which must follow on those already written.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut at = 0;
        while at < batch.num_rows() {
            let (mut output, count) = match self.current.take() {
                Some(current) => current,
                None => (self.create()?, 0),
            };
            let rows = (batch.num_rows() - at).min((FILE_RECORDS - count) as usize);
            let part = batch.slice(at, rows);
            let path = self.scratch(self.counts.len());
            match &mut output {
                Output::Parquet(writer) => writer.write(&part).map_err(|error| parquet_error(&path, error))?,
                Output::Ndjson(writer) => write_lines(writer, &part).map_err(EngineError::file("writing", &path))?,
            }
            at += rows;
            self.current = Some((output, count + rows as u64));
            if count + rows as u64 == FILE_RECORDS {
                self.close()?;
            }
        }
        Ok(())
    }

    fn create(&self) -> Result<Output> {
        let folder = self.stream_folder();
        std::fs::create_dir_all(&folder).map_err(EngineError::file("creating", &folder))?;
        let path = self.scratch(self.counts.len());
        let file = File::create(&path).map_err(EngineError::file("creating", &path))?;
        Ok(match self.format {
            RecordFormat::Ndjson => Output::Ndjson(BufWriter::with_capacity(1 << 18, file)),
            RecordFormat::Parquet => {
                let writer = ArrowWriter::try_new(file, self.schema.clone(), Some(writer_properties(self.table, Lifetime::Lasting)));
                Output::Parquet(Box::new(writer.map_err(|error| parquet_error(&path, error))?))
            }
        })
    }

    fn close(&mut self) -> Result<()> {
        let Some((output, count)) = self.current.take() else { return Ok(()) };
        let path = self.scratch(self.counts.len());
        let fail = || EngineError::file("writing", &path);
        let file = match output {
            Output::Parquet(writer) => writer.into_inner().map_err(|error| parquet_error(&path, error))?,
            Output::Ndjson(writer) => writer.into_inner().map_err(|error| fail()(error.into_error()))?,
        };
        file.sync_all().map_err(fail())?;
        self.counts.push(count);
        Ok(())
    }

    /// Finishes and names the files, which must hold just the records of this range.
    pub(super) fn finish(mut self, range: &Range<u64>) -> Result<Vec<bundle::File>> {
        self.close()?;
        let mut first = range.start;
        let mut files = Vec::new();
        for (file, count) in self.counts.iter().enumerate() {
            let (scratch, end) = (self.scratch(file), first + count);
            let (sha256, bytes) = hash_file(&scratch)?;
            let path = bundle::file_path(&self.stream, first, end, self.format);
            let target = self.folder.join(&path);
            std::fs::rename(&scratch, &target).map_err(EngineError::file("moving", &scratch))?;
            files.push(bundle::File { path, first, end, bytes, sha256 });
            first = end;
        }
        if first == range.end {
            return Ok(files);
        }
        let Range { start, end } = range;
        Err(StoreError::Damaged(format!("{}: records between {start} and {end} are missing", self.stream)).into())
    }
}

fn parquet_error(path: &Path, source: parquet::errors::ParquetError) -> EngineError {
    StoreError::Parquet { path: path.display().to_string(), source }.into()
}

/// Writes records as lines of JSON: null columns are left out.
fn write_lines(out: &mut impl Write, batch: &RecordBatch) -> std::io::Result<()> {
    let schema = batch.schema();
    let columns: Vec<(&str, &ArrayRef)> = schema.fields().iter().map(|field| field.name().as_str()).zip(batch.columns()).collect();
    for row in 0..batch.num_rows() {
        let mut separator = '{';
        for (name, values) in columns.iter().filter(|(_, values)| values.is_valid(row)) {
            write!(out, "{separator}\"{name}\":")?;
            write_value(out, values, row)?;
            separator = ',';
        }
        out.write_all(b"}\n")?;
    }
    Ok(())
}

fn write_value(out: &mut impl Write, values: &ArrayRef, row: usize) -> std::io::Result<()> {
    match values.data_type() {
        DataType::Int64 => write!(out, "{}", values.as_primitive::<Int64Type>().value(row)),
        DataType::Timestamp(..) => write!(out, "{}", values.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Boolean => write!(out, "{}", values.as_boolean().value(row)),
        DataType::Decimal128(..) => write!(out, "\"{}\"", values.as_primitive::<Decimal128Type>().value(row)),
        DataType::FixedSizeBinary(_) => write!(out, "\"{}\"", hex::encode(values.as_fixed_size_binary().value(row))),
        _ => serde_json::to_writer(out, values.as_string::<i32>().value(row)).map_err(std::io::Error::from),
    }
}
