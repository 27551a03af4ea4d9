//! Results as text or bytes: CSV, JSON, NDJSON, an Arrow IPC stream, and a table for a terminal.
//!
//! Times are RFC 3339 in UTC with a `Z`, binary values hexadecimal, decimals keep all their digits. JSON writes null columns as `null`; CSV leaves
//! them empty.

use crate::error::{EngineError, Result};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_cast::cast;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_cast::pretty::pretty_format_batches_with_schema;
use arrow_json::writer::{JsonArray, LineDelimited};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use std::str::FromStr;
use std::sync::Arc;

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// A table drawn with lines, for people. All rows are held until the end.
    Table,
    /// CSV with a header line (RFC 4180, lines end with LF).
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// An Arrow IPC stream.
    Arrow,
}

impl OutputFormat {
    /// The media type of what is written.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Table => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

impl FromStr for OutputFormat {
    type Err = EngineError;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "table" => Self::Table,
            "csv" => Self::Csv,
            "json" => Self::Json,
            "ndjson" => Self::Ndjson,
            "arrow" => Self::Arrow,
            _ => {
                return Err(EngineError::Parameter {
                    name: "format",
                    reason: format!("{name} is none of table, csv, json, ndjson, arrow"),
                });
            }
        })
    }
}

/// Writes the batches of one result, one after the other.
pub struct Encoder {
    schema: SchemaRef,
    writer: Writer,
}

enum Writer {
    Table(Vec<RecordBatch>),
    Csv(Box<arrow_csv::Writer<Vec<u8>>>),
    Json(arrow_json::Writer<Vec<u8>, JsonArray>),
    Ndjson(arrow_json::Writer<Vec<u8>, LineDelimited>),
    Arrow(Box<arrow_ipc::writer::StreamWriter<Vec<u8>>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Encoder").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder for batches of this schema.
    ///
    /// # Errors
    /// If a column's type can't be written in this format.
    pub fn new(format: OutputFormat, schema: &SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_data_type(written_type(format, field)));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        let json = || arrow_json::WriterBuilder::new().with_explicit_nulls(true);
        let writer = match format {
            OutputFormat::Table => Writer::Table(Vec::new()),
            OutputFormat::Csv => {
                let mut writer = arrow_csv::WriterBuilder::new().with_header(true).build(Vec::new());
                writer.write(&RecordBatch::new_empty(schema.clone()))?;
                Writer::Csv(Box::new(writer))
            }
            OutputFormat::Json => Writer::Json(json().build(Vec::new())),
            OutputFormat::Ndjson => Writer::Ndjson(json().build(Vec::new())),
            OutputFormat::Arrow => Writer::Arrow(Box::new(arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &schema)?)),
        };
        Ok(Self { schema, writer })
    }

    /// Takes a batch and returns the bytes that are ready, which may be none.
    ///
    /// # Errors
    /// If the batch is not of the encoder's schema or a value can't be written.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<Bytes> {
        let batch = written(batch, &self.schema)?;
        Ok(match &mut self.writer {
            Writer::Table(batches) => {
                batches.push(batch);
                Bytes::new()
            }
            Writer::Csv(writer) => {
                writer.write(&batch)?;
                let ready = std::mem::replace(&mut **writer, arrow_csv::WriterBuilder::new().with_header(false).build(Vec::new()));
                Bytes::from(ready.into_inner())
            }
            Writer::Json(writer) => {
                writer.write(&batch)?;
                take(writer.get_mut())
            }
            Writer::Ndjson(writer) => {
                writer.write(&batch)?;
                take(writer.get_mut())
            }
            Writer::Arrow(writer) => {
                writer.write(&batch)?;
                take(writer.get_mut())
            }
        })
    }

    /// Ends the result and returns the rest of its bytes. Without it, JSON and Arrow results are visibly cut off.
    ///
    /// # Errors
    /// If a value can't be written.
    pub fn finish(self) -> Result<Bytes> {
        Ok(match self.writer {
            Writer::Table(batches) => Bytes::from(format!("{}\n", pretty_format_batches_with_schema(self.schema, &batches)?)),
            Writer::Csv(writer) => Bytes::from(writer.into_inner()),
            Writer::Json(mut writer) => {
                writer.finish()?;
                Bytes::from(writer.into_inner())
            }
            Writer::Ndjson(mut writer) => {
                writer.finish()?;
                Bytes::from(writer.into_inner())
            }
            Writer::Arrow(mut writer) => {
                writer.finish()?;
                Bytes::from(writer.into_inner()?)
            }
        })
    }
}

fn take(buffer: &mut Vec<u8>) -> Bytes {
    Bytes::from(std::mem::take(buffer))
}

/// The type that a column has when it is written: times in UTC, no views (older Arrow readers lack them), and no nested values in CSV.
fn written_type(format: OutputFormat, field: &Field) -> DataType {
    match field.data_type() {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, Some("UTC".into())),
        nested if nested.is_nested() && format == OutputFormat::Csv => DataType::Utf8,
        other => other.clone(),
    }
}

fn written(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type().is_nested() && *field.data_type() == DataType::Utf8 {
            as_text(column)
        } else {
            cast(column, field.data_type())
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_, _>>()?, &options)
}

fn as_text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let text = |row| column.is_valid(row).then(|| formatter.value(row).to_string());
    Ok(Arc::new((0..column.len()).map(text).collect::<arrow_array::StringArray>()))
}
