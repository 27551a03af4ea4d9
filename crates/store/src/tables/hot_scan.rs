//! Hot batches as a partition of a query, decoded one after the other while the query runs.

use super::df_error;
use crate::Store;
use crate::db::BatchRow;
use arrow_array::RecordBatch;
use arrow_cast::cast;
use arrow_schema::SchemaRef;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::StreamExt;
use muniment_model::Table;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct HotPartition {
    store: Arc<Store>,
    table: &'static Table,
    schema: SchemaRef,
    batches: Vec<Arc<BatchRow>>,
}

impl HotPartition {
    /// `projection` selects columns of the physical schema, which `stored_schema` has in the same order.
    pub(super) fn new(
        store: Arc<Store>,
        table: &'static Table,
        physical: SchemaRef,
        projection: &[usize],
        batches: Vec<Arc<BatchRow>>,
    ) -> Self {
        let fields: Vec<_> = projection.iter().map(|&at| physical.field(at).clone()).collect();
        Self { store, table, schema: Arc::new(arrow_schema::Schema::new(fields)), batches }
    }
}

impl PartitionStream for HotPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (store, table, schema) = (self.store.clone(), self.table, self.schema.clone());
        let stream = futures::stream::iter(self.batches.clone()).then(move |row| {
            let (store, schema) = (store.clone(), schema.clone());
            async move {
                let batch = store.read_hot(table, &row).await.map_err(df_error)?;
                project(&batch, &schema)
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

/// The schema's columns of a batch, by name, in the schema's types.
fn project(batch: &RecordBatch, schema: &SchemaRef) -> datafusion::common::Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        // A batch is as old as its commit, and a log may have got columns since.
        let Some(column) = batch.column_by_name(field.name()) else {
            return Ok(arrow_array::new_null_array(field.data_type(), batch.num_rows()));
        };
        Ok(cast(column, field.data_type())?)
    });
    let columns = columns.collect::<datafusion::common::Result<Vec<_>>>()?;
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
