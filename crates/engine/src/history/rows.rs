//! Records of `sys_audit_log` as a query returns them.

use super::document::Document;
use crate::error::{EngineError, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use muniment_store::StoreError;

/// One row of a batch, columns by name.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    batch: &'a RecordBatch,
    row: usize,
}

impl<'a> Row<'a> {
    /// The rows of a batch.
    pub(crate) fn all(batch: &'a RecordBatch) -> impl Iterator<Item = Self> {
        (0..batch.num_rows()).map(move |row| Self { batch, row })
    }

    fn column(self, name: &str) -> Result<&'a dyn Array> {
        let column = self.batch.column_by_name(name).ok_or_else(|| damaged(format!("a record without {name}")))?;
        Ok(&**column)
    }

    pub(crate) fn text(self, name: &str) -> Result<Option<&'a str>> {
        let column = self.column(name)?;
        let text = match column.as_string_view_opt() {
            Some(texts) => texts.value(self.row),
            None => column.as_string_opt::<i32>().ok_or_else(|| damaged(format!("{name} is not text")))?.value(self.row),
        };
        Ok(column.is_valid(self.row).then_some(text))
    }

    pub(crate) fn some_text(self, name: &str) -> Result<Option<String>> {
        Ok(self.text(name)?.map(ToOwned::to_owned))
    }

    pub(crate) fn required(self, name: &str) -> Result<&'a str> {
        self.text(name)?.ok_or_else(|| damaged(format!("a record without {name}")))
    }

    pub(crate) fn int(self, name: &str) -> Result<Option<i64>> {
        let column = self.column(name)?;
        let numbers = column.as_primitive_opt::<Int64Type>().ok_or_else(|| damaged(format!("{name} is not a number")))?;
        Ok(numbers.is_valid(self.row).then(|| numbers.value(self.row)))
    }

    pub(crate) fn number(self, name: &str) -> Result<i64> {
        self.int(name)?.ok_or_else(|| damaged(format!("a record without {name}")))
    }

    /// A time, µs UTC.
    pub(crate) fn time(self, name: &str) -> Result<i64> {
        let column = self.column(name)?;
        let times = column.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| damaged(format!("{name} is not a time")))?;
        if times.is_null(self.row) {
            return Err(damaged(format!("a record without {name}")));
        }
        Ok(times.value(self.row))
    }

    pub(crate) fn document(self, name: &str) -> Result<Option<Document>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        Document::parse(text).map(Some).map_err(|error| damaged(format!("{name} is not JSON: {error}")))
    }
}

pub(crate) fn damaged(what: String) -> EngineError {
    EngineError::Store(StoreError::Damaged(what))
}
