//! What all queries share: the tables, the functions, the settings and the caches of the query planner.

use super::date_trunc::DateTrunc;
use super::masked::MaskedTable;
use super::{QueryLimits, statement};
use crate::error::{EngineError, Result};
use datafusion::catalog::memory::{MemoryCatalogProvider, MemorySchemaProvider};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionConfig, SessionContext};
use muniment_access::{View, Views};
use muniment_model::Table;
use muniment_store::Store;
use muniment_store::tables::{LogTable, OBJECTS_URL, QuerySnapshot, RegisterTable};
use std::sync::Arc;

const CATALOG: &str = "muniment";
/// The schema that holds every table, and that a name without a schema means.
const SCHEMA: &str = "audit";
/// Rows of a batch between operators.
const BATCH_ROWS: usize = 8192;
/// Footers and page indexes of Parquet files kept in memory.
const METADATA_CACHE_BYTES: usize = 64 << 20;
/// Functions that make a value of any size from a few bytes, outside the memory that is counted.
const LEFT_OUT: [&str; 7] = ["array_repeat", "array_resize", "generate_series", "lpad", "range", "repeat", "rpad"];

pub(super) struct Session {
    store: Arc<Store>,
    state: SessionState,
    runtime: Arc<RuntimeEnv>,
    memory_bytes: usize,
    spills: bool,
    /// Whether something beside secrets is masked.
    masks: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// `spills` tells whether what doesn't fit in memory may go to the system's folder for temporary files.
    pub(super) fn new(store: &Arc<Store>, limits: &QueryLimits, spills: bool) -> Result<Self, DataFusionError> {
        Self::with_runtime(store, limits, runtime(store, spills)?, (spills, &Views::everything()))
    }

    /// A session for somebody with other views, with the same caches.
    pub(super) fn seen_with(&self, limits: &QueryLimits, views: &Views) -> Result<Self, DataFusionError> {
        Self::with_runtime(&self.store, limits, self.runtime.clone(), (self.spills, views))
    }

    fn with_runtime(
        store: &Arc<Store>,
        limits: &QueryLimits,
        runtime: Arc<RuntimeEnv>,
        (spills, views): (bool, &Views),
    ) -> Result<Self, DataFusionError> {
        let state = SessionStateBuilder::new_with_default_features()
            .with_config(config(limits))
            .with_runtime_env(runtime.clone())
            .with_file_formats(Vec::new())
            .with_table_factories(std::collections::HashMap::new())
            .build();
        let context = SessionContext::new_with_state(state);
        context.register_catalog(CATALOG, Arc::new(catalog(store, views)?));
        for name in LEFT_OUT {
            context.deregister_udf(name);
        }
        context.register_udf(ScalarUDF::new_from_impl(DateTrunc::new()));
        let masks = views.mask_contents();
        Ok(Self { store: store.clone(), state: context.state(), runtime, memory_bytes: limits.memory_bytes, spills, masks })
    }

    /// Plans a statement and starts it, with memory of its own.
    pub(super) async fn start(&self, text: &str, parameters: Vec<ScalarValue>) -> Result<SendableRecordBatchStream> {
        let failed = |error| EngineError::Query(Box::new(error));
        let statement = statement::parse(text)?;
        if self.masks {
            statement::refuse_explaining(&statement)?;
        }
        let mut state = self.state.clone();
        state.mark_start_execution();
        state.config_mut().set_extension(Arc::new(QuerySnapshot(self.store.snapshot())));
        let mut plan = state.statement_to_plan(statement).await.map_err(failed)?;
        let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan).map_err(failed)?;
        if !parameters.is_empty() {
            plan = plan.with_param_values(parameters).map_err(failed)?;
        }
        let plan = state.create_physical_plan(&plan).await.map_err(failed)?;
        execute_stream(plan, self.task(&state).map_err(failed)?).map_err(failed)
    }

    fn task(&self, state: &SessionState) -> Result<Arc<TaskContext>, DataFusionError> {
        // Operators that can spill share what there is, so that none of them starves another.
        let pool: Arc<dyn MemoryPool> =
            if self.spills { Arc::new(FairSpillPool::new(self.memory_bytes)) } else { Arc::new(GreedyMemoryPool::new(self.memory_bytes)) };
        let runtime = RuntimeEnvBuilder::from_runtime_env(&self.runtime).with_memory_pool(pool).build_arc()?;
        Ok(Arc::new(TaskContext::from(state).with_runtime(runtime)))
    }
}

fn runtime(store: &Arc<Store>, spills: bool) -> Result<Arc<RuntimeEnv>, DataFusionError> {
    let disk = if spills { DiskManagerMode::OsTmpDirectory } else { DiskManagerMode::Disabled };
    let runtime = RuntimeEnvBuilder::new()
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(disk))
        .with_metadata_cache_limit(METADATA_CACHE_BYTES)
        .build_arc()?;
    runtime.register_object_store(ObjectStoreUrl::parse(OBJECTS_URL)?.as_ref(), store.objects().object_store());
    runtime.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref())?;
    Ok(runtime)
}

fn config(limits: &QueryLimits) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(limits.partitions.max(1))
        .with_batch_size(BATCH_ROWS)
        .with_collect_statistics(false)
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA);
    config.options_mut().execution.planning_concurrency = limits.partitions.max(1);
    config
}

fn catalog(store: &Arc<Store>, views: &Views) -> Result<MemoryCatalogProvider, DataFusionError> {
    use datafusion::catalog::CatalogProvider;
    let schema = MemorySchemaProvider::new();
    for &table in muniment_model::tables() {
        let provider = match views.of(table.name) {
            View::Forbidden => continue,
            View::Clear => whole(store, table)?,
            View::Masked(mask) => Arc::new(MaskedTable::new(whole(store, table)?, table, mask.clone())),
        };
        schema.register_table(table.name.to_owned(), provider)?;
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(SCHEMA, Arc::new(schema))?;
    Ok(catalog)
}

/// A table with all that it has.
fn whole(store: &Arc<Store>, table: &'static Table) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    if !table.is_log() {
        return Ok(Arc::new(RegisterTable::new(store.clone(), table)));
    }
    let log = LogTable::new(store.clone(), table.name).map_err(|error| DataFusionError::External(Box::new(error)))?;
    Ok(Arc::new(log))
}
