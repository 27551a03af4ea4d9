//! Hot batches as a partition of a query, decoded one after the other while the query runs.

use super::{df_error, project};
use crate::Store;
use crate::db::BatchRow;
use arrow_schema::SchemaRef;
use datafusion::common::Result;
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
        physical: &SchemaRef,
        projection: &[usize],
        batches: Vec<Arc<BatchRow>>,
    ) -> Result<Self> {
        Ok(Self { store, table, schema: Arc::new(physical.project(projection)?), batches })
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
