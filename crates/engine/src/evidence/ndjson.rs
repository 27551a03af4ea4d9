//! NDJSON files of records, some lines at a time.

use super::records::{RunChecker, Salts, StreamCheck};
use super::run::{Run, guarded};
use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Decimal128Builder, FixedSizeBinaryBuilder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, SchemaRef};
use muniment_ledger::verify::Finding;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Bytes of lines that are checked together, more or less.
const CHUNK_BYTES: usize = 2 << 20;
/// Longest line.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Consecutive lines to check.
pub(super) struct Lines {
    name: Arc<str>,
    bytes: Vec<u8>,
    range: Range<u64>,
    first: u64,
    short: bool,
    last: bool,
    /// What went wrong with reading on.
    failure: Option<String>,
}

/// Reads a file in runs of lines.
pub(super) struct LineReader {
    name: Arc<str>,
    reader: BufReader<File>,
    range: Range<u64>,
    first: u64,
    short: bool,
    ended: bool,
}

impl LineReader {
    /// Opens a file that should have the records of this range.
    pub(super) fn open(name: &str, path: &Path, range: Range<u64>) -> std::io::Result<Self> {
        let short = count_lines(path)? < range.end - range.start;
        let reader = BufReader::with_capacity(1 << 18, File::open(path)?);
        Ok(Self { name: name.into(), reader, first: range.start, range, short, ended: false })
    }

    fn read(&mut self, bytes: &mut Vec<u8>) -> Result<u64, String> {
        let mut lines = 0;
        while bytes.len() < CHUNK_BYTES {
            let before = bytes.len();
            let read = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', bytes).map_err(|error| error.to_string())?;
            if read == 0 {
                self.ended = true;
                break;
            }
            if bytes.last() != Some(&b'\n') {
                bytes.truncate(before);
                return Err("a line does not end, or is too long".to_owned());
            }
            lines += 1;
        }
        Ok(lines)
    }
}

impl Iterator for LineReader {
    type Item = Lines;

    fn next(&mut self) -> Option<Lines> {
        if self.ended {
            return None;
        }
        let mut bytes = Vec::new();
        let read = self.read(&mut bytes);
        self.ended |= read.is_err();
        let first = self.first;
        self.first += read.as_ref().copied().unwrap_or(0);
        let (name, range, failure) = (self.name.clone(), self.range.clone(), read.err());
        Some(Lines { name, bytes, range, first, short: self.short, last: self.ended, failure })
    }
}

fn count_lines(path: &Path) -> std::io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut lines = 0;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(lines);
        }
        lines += buffer.iter().filter(|byte| **byte == b'\n').count() as u64;
        let read = buffer.len();
        reader.consume(read);
    }
}

impl Lines {
    /// Checks their records.
    pub(super) fn check(self, check: &StreamCheck<'_>, schema: &SchemaRef) -> Run {
        let mut checker = RunChecker::new(check, Salts::Column, &self.name, self.first, self.range.end, self.short);
        let outcome = self.check_lines(&mut checker, schema);
        let mut run = checker.finish(outcome);
        run.file_end = self.last.then_some(self.range.end);
        run
    }

    fn check_lines(&self, checker: &mut RunChecker<'_>, schema: &SchemaRef) -> Result<(), Finding> {
        let parsed = guarded(|| parse(&self.bytes, schema));
        let (batch, failure) = parsed.map_err(|reason| checker.unreadable(reason))?;
        if batch.num_rows() > 0 {
            checker.add(&batch)?;
        }
        match failure.or_else(|| self.failure.clone()) {
            Some(reason) => Err(checker.unreadable(reason)),
            None => Ok(()),
        }
    }
}

/// The records of these lines, up to the first that is not one, and what is wrong with that.
fn parse(bytes: &[u8], schema: &SchemaRef) -> Result<(RecordBatch, Option<String>), String> {
    let columns =
        schema.fields().iter().map(|field| Column::new(field)).collect::<Option<Vec<_>>>().ok_or("a column of an unknown type")?;
    let mut row = Row { names: schema.fields().iter().map(|field| field.name().as_str()).collect(), columns, rows: 0, hint: 0 };
    let mut failure = None;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let mut deserializer = serde_json::Deserializer::from_slice(line);
        let parsed = (&mut row).deserialize(&mut deserializer).and_then(|()| deserializer.end());
        if let Err(error) = parsed {
            failure = Some(error.to_string());
            break;
        }
        row.rows += 1;
        row.columns.iter_mut().for_each(|column| column.fill(row.rows));
    }
    let rows = row.rows;
    let arrays = row.columns.into_iter().map(|column| column.finish().slice(0, rows)).collect();
    let nullable: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let batch = RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(nullable)), arrays).map_err(|error| error.to_string())?;
    Ok((batch, failure))
}

struct Row<'a> {
    names: Vec<&'a str>,
    columns: Vec<Column>,
    rows: usize,
    /// Where the next name probably is.
    hint: usize,
}

impl<'de> DeserializeSeed<'de> for &mut Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(at) = map.next_key_seed(Name { names: &self.names, hint: self.hint })? {
            let column = &mut self.columns[at];
            if column.len() > self.rows {
                return Err(A::Error::custom(format!("column {} is there twice", self.names[at])));
            }
            map.next_value_seed(column)?;
            self.hint = at + 1;
        }
        Ok(())
    }
}

/// Finds the column of a name.
struct Name<'a> {
    names: &'a [&'a str],
    hint: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<usize, E> {
        let expected = self.names.get(self.hint).filter(|expected| **expected == name).map(|_| self.hint);
        let found = expected.or_else(|| self.names.iter().position(|other| *other == name));
        found.ok_or_else(|| E::custom(format!("column {name} does not belong there")))
    }
}

enum Column {
    Text(StringBuilder),
    Int(Int64Builder),
    Time(TimestampMicrosecondBuilder),
    Bool(BooleanBuilder),
    Decimal(Decimal128Builder),
    Bytes(FixedSizeBinaryBuilder, usize),
}

impl Column {
    fn new(field: &Field) -> Option<Self> {
        Some(match field.data_type() {
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Int64 => Self::Int(Int64Builder::new()),
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Timestamp(..) => Self::Time(TimestampMicrosecondBuilder::new().with_data_type(field.data_type().clone())),
            DataType::Decimal128(..) => Self::Decimal(Decimal128Builder::new().with_data_type(field.data_type().clone())),
            DataType::FixedSizeBinary(size) => Self::Bytes(FixedSizeBinaryBuilder::new(*size), *size as usize),
            _ => return None,
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(builder) => builder.len(),
            Self::Int(builder) => builder.len(),
            Self::Time(builder) => builder.len(),
            Self::Bool(builder) => builder.len(),
            Self::Decimal(builder) => builder.len(),
            Self::Bytes(builder, _) => builder.len(),
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Text(builder) => builder.append_null(),
            Self::Int(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Bool(builder) => builder.append_null(),
            Self::Decimal(builder) => builder.append_null(),
            Self::Bytes(builder, _) => builder.append_null(),
        }
    }

    /// A column that the record didn't name is null.
    fn fill(&mut self, rows: usize) {
        if self.len() < rows {
            self.append_null();
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Int(mut builder) => Arc::new(builder.finish()),
            Self::Time(mut builder) => Arc::new(builder.finish()),
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::Decimal(mut builder) => Arc::new(builder.finish()),
            Self::Bytes(mut builder, _) => Arc::new(builder.finish()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Column {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for &mut Column {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the column's kind")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.append_null();
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match self {
            Column::Bool(builder) => builder.append_value(value),
            other => return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &other)),
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        match self {
            Column::Int(builder) => builder.append_value(value),
            Column::Time(builder) => builder.append_value(value),
            other => return Err(E::invalid_type(serde::de::Unexpected::Signed(value), &other)),
        }
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let signed = i64::try_from(value).map_err(|_| E::custom("a number beyond 64 bits"))?;
        self.visit_i64(signed)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        match self {
            Column::Text(builder) => builder.append_value(text),
            Column::Decimal(builder) => {
                let value = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
                builder.append_value(value.ok_or_else(|| E::custom("a decimal is not in its one form"))?.into());
            }
            Column::Bytes(builder, size) => {
                let upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
                let bytes = hex::decode(text).ok().filter(|bytes| bytes.len() == *size && !upper);
                let bytes = bytes.ok_or_else(|| E::custom(format!("not {size} bytes in lower-case hexadecimal")))?;
                builder.append_value(bytes).map_err(E::custom)?;
            }
            other => return Err(E::invalid_type(serde::de::Unexpected::Str(text), &other)),
        }
        Ok(())
    }
}
