//! Columns that are made while a query reads, such as the ledger's in SQL: `blockchain_hash` and `previous_hash` as hexadecimal text, and `signature`, the first checkpoint that covers a record. Only
//! `blockchain_hash` is stored; the others are looked up when a query asks for them.

use super::casework::{self, Cases};
use super::df_error;
use crate::parquet_file::to_hash;
use crate::{Snapshot, Store, StoreError};
use arrow_array::builder::StringViewBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;
use muniment_model::Table;
use std::sync::Arc;

/// Columns of a log's table that are not read as they are stored.
pub(super) const DERIVED: [&str; 3] = ["blockchain_hash", "previous_hash", "signature"];

/// Partitions that add the ledger's columns to those of a plan.
pub(super) fn partitions(
    store: &Arc<Store>,
    table: &'static Table,
    snapshot: Arc<Snapshot>,
    (inner, cases): (&Arc<dyn ExecutionPlan>, Arc<Cases>),
    wanted: &SchemaRef,
) -> Vec<Arc<dyn PartitionStream>> {
    let partition = |partition| {
        let (store, cases) = (store.clone(), cases.clone());
        let lookup = Arc::new(Lookup { store, table, snapshot: snapshot.clone(), cases, wanted: wanted.clone() });
        Arc::new(Derived { inner: inner.clone(), partition, lookup }) as Arc<dyn PartitionStream>
    };
    (0..inner.output_partitioning().partition_count()).map(partition).collect()
}

#[derive(Debug)]
struct Derived {
    inner: Arc<dyn ExecutionPlan>,
    partition: usize,
    lookup: Arc<Lookup>,
}

#[derive(Debug)]
struct Lookup {
    store: Arc<Store>,
    table: &'static Table,
    snapshot: Arc<Snapshot>,
    cases: Arc<Cases>,
    wanted: SchemaRef,
}

impl PartitionStream for Derived {
    fn schema(&self) -> &SchemaRef {
        &self.lookup.wanted
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let lookup = self.lookup.clone();
        let inner = match self.inner.execute(self.partition, context) {
            Ok(inner) => inner,
            Err(error) => {
                let failed = futures::stream::once(async move { Err(error) });
                return Box::pin(RecordBatchStreamAdapter::new(lookup.wanted.clone(), failed));
            }
        };
        let schema = lookup.wanted.clone();
        let stream = inner.then(move |batch| {
            let lookup = lookup.clone();
            async move { lookup.complete(&batch?).await }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, stream))
    }
}

impl Lookup {
    async fn complete(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.wanted.fields().len());
        for field in self.wanted.fields() {
            columns.push(match field.name().as_str() {
                "blockchain_hash" => hashes(batch)?,
                "previous_hash" => self.previous_hashes(batch).await?,
                "signature" => self.signatures(batch).await?,
                name if casework::shows(self.table, name) => self.cases.column(batch, name)?,
                name => column(batch, name)?.clone(),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.wanted.clone(), columns, &options)?)
    }

    /// Stream name and index of each record.
    fn places(&self, batch: &RecordBatch) -> Result<Vec<(String, u64)>> {
        let indexes = column(batch, "stream_index")?.as_primitive::<Int64Type>();
        let years = column(batch, "retention_years")?.as_primitive::<Int64Type>();
        let place = |row| (format!("{}/{}y", self.table.name, years.value(row)), indexes.value(row) as u64);
        Ok((0..batch.num_rows()).map(place).collect())
    }

    async fn previous_hashes(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let stored = column(batch, "blockchain_hash")?.as_fixed_size_binary();
        let places = self.places(batch)?;
        let mut texts = StringViewBuilder::with_capacity(places.len());
        for (row, (stream, index)) in places.iter().enumerate() {
            let follows = row > 0 && places[row - 1].0 == *stream && places[row - 1].1 + 1 == *index;
            let previous = if follows {
                to_hash(stored.value(row - 1)).map_err(df_error)?
            } else {
                let snapshot = self.snapshot.get(stream).ok_or_else(|| unknown(stream))?;
                self.store.previous_hash(stream, snapshot, *index).await.map_err(df_error)?
            };
            texts.append_value(hex::encode(previous));
        }
        Ok(Arc::new(texts.finish()))
    }

    async fn signatures(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let places = self.places(batch)?;
        let mut texts = StringViewBuilder::with_capacity(places.len());
        let mut known: Option<(String, u64, u64, String)> = None;
        for (stream, index) in &places {
            let covered = known.as_ref().is_some_and(|(name, from, to, _)| name == stream && (*from..*to).contains(index));
            if !covered {
                let commit = self.store.db().covering_commit(stream, *index).await.map_err(df_error)?;
                let (size, number) = commit.ok_or_else(|| unknown(stream))?;
                let checkpoint = self.store.db().checkpoint_from(number + 1).await.map_err(df_error)?;
                let (_, note) = checkpoint.ok_or_else(|| unknown(stream))?;
                known = Some((stream.clone(), *index, size, note));
            }
            texts.append_option(known.as_ref().map(|(.., note)| note));
        }
        Ok(Arc::new(texts.finish()))
    }
}

fn hashes(batch: &RecordBatch) -> Result<ArrayRef> {
    let stored = column(batch, "blockchain_hash")?.as_fixed_size_binary();
    let mut texts = StringViewBuilder::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        texts.append_value(hex::encode(stored.value(row)));
    }
    Ok(Arc::new(texts.finish()))
}

pub(super) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| DataFusionError::Internal(format!("there is no column {name}")))
}

fn unknown(stream: &str) -> DataFusionError {
    df_error(StoreError::Damaged(format!("no commit covers a record of {stream}")))
}
