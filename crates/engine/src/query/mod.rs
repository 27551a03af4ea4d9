//! SQL over the logs and registers, read-only by construction and within limits of memory, time and rows.

mod date_trunc;
mod masked;
pub mod output;
mod session;
mod statement;

use crate::error::{EngineError, Result};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use muniment_access::Views;
use muniment_store::Store;
use session::Session;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Stack of the thread that plans a query. Planning recurses over the statement, whose depth is limited, with large frames.
const PLANNER_STACK_BYTES: usize = 64 << 20;

/// Longest run of a query for the product's own work.
const BULK_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Views whose sessions are kept. There are few roles, but each unmasking has views of its own.
const KEPT_VIEWS: usize = 64;

/// What one query may use.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    /// Bytes that the operators of a query may hold. Nothing is spilled to disk.
    pub memory_bytes: usize,
    /// Time from the start to the last row.
    pub time: Duration,
    /// Rows of a result.
    pub rows: u64,
    /// Partitions that run in parallel: the number of cores. Four times as many queries may run at once; others wait.
    pub partitions: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        let partitions = std::thread::available_parallelism().map_or(1, usize::from);
        Self { memory_bytes: 256 << 20, time: Duration::from_secs(60), rows: 1_000_000, partitions }
    }
}

/// Answers SQL from a store. Cheap to clone; clones share their caches and limits.
#[derive(Clone, Debug)]
pub struct QueryEngine {
    store: Arc<Store>,
    session: Arc<Session>,
    limits: QueryLimits,
    running: Arc<Semaphore>,
    others: Arc<Mutex<HashMap<Views, Arc<Session>>>>,
}

impl QueryEngine {
    /// An engine over this store.
    ///
    /// # Errors
    /// If the tables can't be set up, which would be a defect of the schema.
    pub fn new(store: Arc<Store>, limits: QueryLimits) -> Result<Self> {
        Self::with_spilling(store, limits, false)
    }

    /// An engine over the same store for the product's own work: it may take as long and return as many rows as it needs, and sorts what doesn't fit in
    /// memory on disk. It has one partition: of several, each would sort in a share of the memory.
    ///
    /// # Errors
    /// As [`QueryEngine::new`].
    pub(crate) fn for_bulk_work(&self) -> Result<Self> {
        let limits = QueryLimits { time: BULK_TIME, rows: u64::MAX, partitions: 1, ..self.limits };
        Self::with_spilling(self.store.clone(), limits, true)
    }

    fn with_spilling(store: Arc<Store>, limits: QueryLimits, spills: bool) -> Result<Self> {
        let session = Session::new(&store, &limits, spills).map_err(|error| EngineError::Query(Box::new(error)))?;
        let running = Arc::new(Semaphore::new(4 * limits.partitions.max(1)));
        Ok(Self { store, session: Arc::new(session), limits, running, others: Arc::default() })
    }

    /// The same engine as somebody with these views sees it: tables that are forbidden are not there, masked columns hold their masks. What such an engine answers is
    /// all that anybody may be told; engines that were not made here see everything.
    ///
    /// # Errors
    /// If the tables can't be set up, which would be a defect of the schema.
    pub fn seen_with(&self, views: &Views) -> Result<Self> {
        Ok(Self { session: self.session_of(views)?, ..self.clone() })
    }

    fn session_of(&self, views: &Views) -> Result<Arc<Session>> {
        if views.hide_only_secrets() {
            return Ok(self.session.clone());
        }
        if let Some(session) = self.others.lock().unwrap_or_else(PoisonError::into_inner).get(views) {
            return Ok(session.clone());
        }
        let session = self.session.seen_with(&self.limits, views).map_err(|error| EngineError::Query(Box::new(error)))?;
        let session = Arc::new(session);
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() >= KEPT_VIEWS {
            others.clear();
        }
        others.insert(views.clone(), session.clone());
        Ok(session)
    }

    /// The store it reads.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The limits of each query.
    pub fn limits(&self) -> &QueryLimits {
        &self.limits
    }

    /// Starts a query; `parameters` are the values of `$1`, `$2` and so on, see [`parameter`]. Dropping the stream stops the query.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] if the text is not one reading statement, [`EngineError::Query`] if it is not valid, [`EngineError::QueryLimit`]
    /// at a limit (also from the stream), [`EngineError::Busy`] if too many queries are running.
    pub async fn sql(&self, text: &str, parameters: Vec<ScalarValue>) -> Result<QueryStream> {
        let deadline = Instant::now() + self.limits.time;
        let permit = timeout_at(deadline, self.running.clone().acquire_owned()).await;
        let busy = EngineError::Busy { reason: "too many queries at once", retry_after: 1 };
        let Ok(Ok(permit)) = permit else { return Err(busy) };
        let stream = timeout_at(deadline, self.plan(text, parameters)).await.map_err(|_| self.too_slow())??;
        Ok(self.limited(stream, deadline, permit))
    }

    /// Runs a query to its end.
    ///
    /// # Errors
    /// As [`QueryEngine::sql`].
    pub async fn collect(&self, text: &str, parameters: Vec<ScalarValue>) -> Result<Vec<RecordBatch>> {
        self.sql(text, parameters).await?.try_collect().await
    }

    /// Plans on a thread of its own, whose stack is large enough for the deepest statement, and which does not keep other tasks waiting.
    async fn plan(&self, text: &str, parameters: Vec<ScalarValue>) -> Result<SendableRecordBatchStream> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (runtime, session, text) = (tokio::runtime::Handle::current(), self.session.clone(), text.to_owned());
        std::thread::Builder::new()
            .name("query-planner".to_owned())
            .stack_size(PLANNER_STACK_BYTES)
            .spawn(move || {
                let planned = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(session.start(&text, parameters))));
                let _ = sender.send(planned.unwrap_or_else(|_| Err(panicked())));
            })
            .map_err(EngineError::file("starting", "query-planner"))?;
        let planned = receiver.await.unwrap_or_else(|_| Err(panicked()));
        planned.map_err(|error| self.told(error))
    }

    fn limited(&self, stream: SendableRecordBatchStream, deadline: Instant, permit: OwnedSemaphorePermit) -> QueryStream {
        let schema = stream.schema();
        let running = Running { stream, engine: self.clone(), deadline, rows: 0, _permit: permit };
        let batches = futures::stream::try_unfold(running, |mut running| async move {
            let batch = running.next().await?;
            Ok(batch.map(|batch| (batch, running)))
        });
        QueryStream { schema, stream: batches.boxed() }
    }

    fn too_slow(&self) -> EngineError {
        EngineError::QueryLimit(format!("it ran longer than {} s", self.limits.time.as_secs_f64()))
    }

    /// An error with running out of memory told apart.
    fn told(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Query(error) if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) => {
                tracing::info!(error = error.as_ref() as &dyn std::error::Error, "a query was stopped at its limit of memory");
                EngineError::QueryLimit(format!("it needs more than {} bytes of memory", self.limits.memory_bytes))
            }
            error => error,
        }
    }
}

struct Running {
    stream: SendableRecordBatchStream,
    engine: QueryEngine,
    deadline: Instant,
    rows: u64,
    _permit: OwnedSemaphorePermit,
}

impl Running {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let next = AssertUnwindSafe(self.stream.next()).catch_unwind();
        let next = timeout_at(self.deadline, next).await.map_err(|_| self.engine.too_slow())?;
        let Some(batch) = next.map_err(|_| panicked())? else { return Ok(None) };
        let batch = batch.map_err(|error| self.engine.told(EngineError::Query(Box::new(error))))?;
        self.rows += batch.num_rows() as u64;
        let limit = self.engine.limits.rows;
        if self.rows > limit {
            return Err(EngineError::QueryLimit(format!("its result has more than {limit} rows; add a LIMIT or a narrower condition")));
        }
        Ok(Some(batch))
    }
}

fn panicked() -> EngineError {
    EngineError::Query(Box::new(DataFusionError::Internal("a query failed in an unforeseen way".to_owned())))
}

/// The rows of a query as they come.
pub struct QueryStream {
    /// Columns of every batch.
    pub schema: SchemaRef,
    /// The batches. Ends after its first error.
    pub stream: BoxStream<'static, Result<RecordBatch>>,
}

impl std::fmt::Debug for QueryStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("QueryStream").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(context)
    }
}

/// A JSON value as a parameter of a query: null, a truth value, a number or a text.
///
/// # Errors
/// [`EngineError::Parameter`] for an array or an object.
pub fn parameter(value: &serde_json::Value) -> Result<ScalarValue> {
    use serde_json::Value;
    Ok(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(value) => ScalarValue::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => ScalarValue::from(whole),
            (None, Some(whole)) => ScalarValue::from(whole),
            (None, None) => ScalarValue::Float64(number.as_f64()),
        },
        Value::String(text) => ScalarValue::Utf8View(Some(text.clone())),
        Value::Array(_) | Value::Object(_) => {
            let reason = "a parameter is null, true, false, a number or a text".to_owned();
            return Err(EngineError::Parameter { name: "parameters", reason });
        }
    })
}
