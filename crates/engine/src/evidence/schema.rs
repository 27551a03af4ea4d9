//! Which columns record files have, and whether a file has just these.

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use muniment_ledger::bundle::Column;
use muniment_model::Table;
use std::sync::Arc;

/// Name of the column of salts in a bundle.
pub(super) const SALT: &str = "salt";

/// The stored columns of a log and, before the hashes, the salts.
pub(super) fn bundle_schema(table: &Table) -> SchemaRef {
    let stored = table.stored_schema();
    let at = stored.index_of("blockchain_hash").unwrap_or(stored.fields().len());
    let mut fields = stored.fields().to_vec();
    fields.insert(at, Arc::new(Field::new(SALT, DataType::FixedSizeBinary(16), true)));
    Arc::new(Schema::new(fields))
}

/// The log's table, if its first data columns are these. A log of a later version has columns that this one cannot read.
pub(super) fn table_of(log: &str, columns: &[Column]) -> Option<&'static Table> {
    let table = muniment_model::table(log).filter(|table| table.is_log())?;
    crate::engine::signed_columns(table).starts_with(columns).then_some(table)
}

/// Checks that a file has the ledger columns, no column but the expected, each once and of its type. Data columns may be absent.
pub(super) fn check_schema(found: &Schema, expected: &Schema, table: &Table) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for field in found.fields() {
        let name = field.name();
        let wanted = expected.field_with_name(name).map_err(|_| format!("column {name} does not belong there"))?;
        if !seen.insert(name) {
            return Err(format!("column {name} is there twice"));
        }
        if field.data_type() != wanted.data_type() {
            return Err(format!("column {name} is {}, not {}", field.data_type(), wanted.data_type()));
        }
    }
    let is_data = |name: &str| table.columns.iter().any(|column| column.name == name);
    match expected.fields().iter().find(|field| !is_data(field.name()) && !seen.contains(field.name())) {
        Some(field) => Err(format!("there is no column {}", field.name())),
        None => Ok(()),
    }
}

/// The batch with all expected columns, those that it lacks null.
pub(super) fn complete(batch: RecordBatch, expected: &SchemaRef) -> Result<RecordBatch, String> {
    if batch.schema_ref().fields() == expected.fields() {
        return Ok(batch);
    }
    let rows = batch.num_rows();
    let column = |field: &Arc<Field>| -> ArrayRef {
        batch.column_by_name(field.name()).cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows))
    };
    let columns = expected.fields().iter().map(column).collect();
    let nullable = expected.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| error.to_string())
}
