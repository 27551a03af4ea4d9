//! Logs and registers as DataFusion tables. A log's table unites its Parquet files with its hot batches, from one snapshot.

mod casework;
mod derived;
mod hot_scan;
mod lookup;
mod pages;
mod prune;
mod reader;
mod slices;

use crate::Store;
use crate::flush::log_table;
use crate::parquet_file::has_entities;
use crate::{Snapshot, StoreError};
use arrow_array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use casework::Cases;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, DataFusionError, Result, Statistics};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use derived::DERIVED;
use lookup::Entities;
use muniment_model::Table;
use reader::LocalFiles;
use std::sync::Arc;

/// Where DataFusion finds the files of the store.
pub const OBJECTS_URL: &str = "muniment://objects";

pub(crate) fn df_error(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The snapshot that all scans of one query share, as an extension of its session: a join of two logs, or of a log with itself, sees one instant (P6).
#[derive(Debug)]
pub struct QuerySnapshot(pub Snapshot);

impl QuerySnapshot {
    fn of_log(&self, log: &str) -> Snapshot {
        self.0.iter().filter(|(_, stream)| stream.log == log).map(|(name, stream)| (name.clone(), stream.clone())).collect()
    }
}

/// One log in SQL: `id`, `stream_index`, `recorded_at`, the data columns, and the ledger's columns as hexadecimal text.
#[derive(Debug)]
pub struct LogTable {
    store: Arc<Store>,
    table: &'static Table,
    /// What is stored, texts as views.
    physical: SchemaRef,
    /// What a query sees.
    schema: SchemaRef,
}

impl LogTable {
    /// The table of a log.
    ///
    /// # Errors
    /// If there is no log of this name.
    pub fn new(store: Arc<Store>, log: &str) -> Result<Self, StoreError> {
        let table = log_table(log)?;
        let physical = with_views(&table.stored_schema());
        let mut fields: Vec<Arc<Field>> =
            physical.fields().iter().filter(|field| !matches!(field.data_type(), DataType::FixedSizeBinary(_))).cloned().collect();
        fields.extend(DERIVED.iter().map(|name| Arc::new(Field::new(*name, DataType::Utf8View, *name == "signature"))));
        fields.extend(casework::fields(table));
        Ok(Self { store, table, physical, schema: Arc::new(Schema::new(fields)) })
    }

    /// Whether a condition is on columns that are not read as they are stored.
    fn is_computed(&self, filter: &Expr) -> bool {
        filter.column_refs().iter().any(|column| DERIVED.contains(&column.name.as_str()) || casework::shows(self.table, &column.name))
    }

    fn predicate(&self, state: &dyn Session, filters: &[Expr]) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let usable = filters.iter().filter(|filter| !self.is_computed(filter)).cloned();
        let Some(filter) = conjunction(usable) else { return Ok(None) };
        let schema = DFSchema::try_from(self.physical.as_ref().clone())?;
        state.create_physical_expr(filter, &schema).map(Some)
    }

    /// The files and hot batches that a query needs, columns by position in the physical schema. The planner pushes filters down to the files by itself, unless
    /// the plan will be `opaque` to it.
    async fn physical_scan(
        &self,
        state: &dyn Session,
        snapshot: &Snapshot,
        projection: &[usize],
        predicate: Option<&Arc<dyn PhysicalExpr>>,
        opaque: bool,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut plans = Vec::with_capacity(2);
        let files = prune::files(self.table, snapshot, &self.physical, predicate)?;
        if !files.is_empty() {
            plans.extend(self.file_scan(state, &files, projection, predicate, opaque).await?);
        }
        let hot = prune::batches(self.table, snapshot, &self.physical, predicate)?;
        if !hot.is_empty() {
            let partition = hot_scan::HotPartition::new(self.store.clone(), self.table, &self.physical, projection, hot)?;
            let schema = partition.schema().clone();
            plans.push(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, [], false, None)?));
        }
        match plans.len() {
            0 => Ok(Arc::new(EmptyExec::new(Arc::new(self.physical.project(projection)?)))),
            1 => Ok(plans.remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }

    async fn file_scan(
        &self,
        state: &dyn Session,
        files: &[Arc<crate::db::FileRow>],
        projection: &[usize],
        predicate: Option<&Arc<dyn PhysicalExpr>>,
        opaque: bool,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let partitions = state.config().target_partitions().max(1);
        let reader = Arc::new(LocalFiles::new(self.store.objects(), state.runtime_env().cache_manager.get_file_metadata_cache()));
        let entities = predicate.filter(|_| has_entities(self.table)).and_then(Entities::of);
        let looked_up = match entities {
            Some(entities) => {
                let within = (self.store.objects(), reader.as_ref(), &self.physical);
                lookup::partitions(entities, files, within, (projection, partitions)).await?
            }
            None => None,
        };
        if let Some(found) = looked_up {
            let Some(schema) = found.first().map(|partition| partition.schema().clone()) else { return Ok(None) };
            return Ok(Some(Arc::new(StreamingTableExec::try_new(schema, found, None, [], false, None)?)));
        }
        let mut source = ParquetSource::new(self.physical.clone())
            .with_parquet_file_reader_factory(reader)
            .with_pushdown_filters(true)
            .with_reorder_filters(true)
            .with_bloom_filter_on_read(true)
            .with_enable_page_index(true);
        if let Some(predicate) = predicate.filter(|_| opaque) {
            source = source.with_predicate(predicate.clone());
        }
        let records: u64 = files.iter().map(|file| file.extent.records()).sum();
        let mut statistics = Statistics::new_unknown(&self.physical);
        statistics.num_rows = datafusion::common::stats::Precision::Exact(records as usize);
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(OBJECTS_URL)?, Arc::new(source))
            .with_file_groups(slices::groups(files, partitions))
            .with_statistics(statistics)
            .with_projection_indices(Some(projection.to_vec()))?
            // A plan that the planner doesn't see it can't reset, and partitions that share their work begin with what an earlier execution left: nothing.
            .with_preserve_order(opaque)
            .build();
        Ok(Some(DataSourceExec::from_data_source(config)))
    }
}

#[async_trait]
impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| {
            if self.is_computed(filter) { TableProviderFilterPushDown::Unsupported } else { TableProviderFilterPushDown::Inexact }
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let snapshot = match state.config().get_extension::<QuerySnapshot>() {
            Some(shared) => shared.of_log(self.table.name),
            None => self.store.snapshot_of(self.table.name),
        };
        let predicate = self.predicate(state, filters)?;
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted: SchemaRef = Arc::new(self.schema.project(projection.unwrap_or(&all))?);
        let physical = |name: &str| self.physical.index_of(name);
        let columns = || wanted.fields().iter().map(|field| field.name().as_str());
        let investigated = columns().any(|name| casework::shows(self.table, name));
        let cases = if investigated { Cases::read(self.store.db()).await.map_err(df_error)? } else { Cases::default() };
        if cases.leave(columns()) && !columns().any(|name| DERIVED.contains(&name)) {
            let indices = wanted.fields().iter().map(|field| physical(field.name())).collect::<Result<Vec<_>, _>>()?;
            return self.physical_scan(state, &snapshot, &indices, predicate.as_ref(), false).await;
        }
        let mut names: Vec<&str> = columns().filter(|name| physical(name).is_ok() && !DERIVED.contains(name)).collect();
        let ledger = ["stream_index", "retention_years", "blockchain_hash"];
        let ledger = ledger.into_iter().filter(|_| columns().any(|name| DERIVED.contains(&name)));
        for needed in ledger.chain(casework::needed(self.table, columns())) {
            if !names.contains(&needed) {
                names.push(needed);
            }
        }
        let indices = names.iter().map(|name| physical(name)).collect::<Result<Vec<_>, _>>()?;
        let inner = self.physical_scan(state, &snapshot, &indices, predicate.as_ref(), true).await?;
        let partitions = derived::partitions(&self.store, self.table, Arc::new(snapshot), (&inner, Arc::new(cases)), &wanted);
        Ok(Arc::new(StreamingTableExec::try_new(wanted, partitions, None, [], false, None)?))
    }
}

/// The schema's columns of a batch, by name, in the schema's types.
fn project(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        // What is stored is as old as its commit, and a log may have got columns since.
        let Some(column) = batch.column_by_name(field.name()) else {
            return Ok(new_null_array(field.data_type(), batch.num_rows()));
        };
        Ok(cast(column, field.data_type())?)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// A schema with its texts as views, which DataFusion filters and groups faster.
fn with_views(schema: &Schema) -> SchemaRef {
    let view = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(view).collect::<Fields>()))
}

/// One register in SQL, as it is when the query begins.
#[derive(Debug)]
pub struct RegisterTable {
    store: Arc<Store>,
    table: &'static Table,
    schema: SchemaRef,
}

impl RegisterTable {
    /// The table of a register.
    pub fn new(store: Arc<Store>, table: &'static Table) -> Self {
        Self { store, table, schema: table.data_schema() }
    }
}

#[async_trait]
impl TableProvider for RegisterTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.store.db().read_register(self.table).await.map_err(df_error)?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], self.schema.clone(), projection.cloned())?)
    }
}
