//! Compares what the log says a database holds with what it does hold, row by row: the proof that capture is complete.
//!
//! Both are brought to one instant. The database is read in one snapshot, of which it is known which transactions it includes; as soon as all of them
//! are in the log, the log's records of exactly these transactions are replayed. Both sides come in the order of keys and are merged, so that memory
//! grows with neither: the database sorts its side, and the log's is sorted on disk.
//!
//! Columns that a table no longer has are not compared, since what is left of them in the log is history.

mod compare;
mod log;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::query::QueryEngine;
use compare::TableComparer;
use log::LogRows;
use muniment_capture::live::{self, Live, LiveTable};
use muniment_capture::open::SourceSpec;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::Instant;

/// Differences that are listed unless told otherwise; all are counted.
pub const DEFAULT_LISTED: usize = 1000;
/// How often it is looked how far capture is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The same for baselines.
const BASELINE_EVERY: Duration = Duration::from_millis(500);
/// Rows after which progress is told.
const TELL_EVERY: u64 = 10_000;

/// What to compare.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconcileOptions {
    /// Tables, by name; all that are attached if empty.
    pub tables: Vec<String>,
    /// Differences that are listed.
    pub listed: usize,
    /// Longest wait for capture to reach the instant, in seconds.
    pub wait_seconds: u64,
}

impl Default for ReconcileOptions {
    fn default() -> Self {
        Self { tables: Vec::new(), listed: DEFAULT_LISTED, wait_seconds: 600 }
    }
}

/// How far a comparison is.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Capture has not stored yet what the database's snapshot includes.
    Waiting {
        /// How far it is.
        position: &'a str,
    },
    /// A table is being compared.
    Comparing {
        /// The table.
        table: &'a str,
        /// Rows compared so far.
        rows: u64,
    },
}

/// In which way a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// The database has the row, the log doesn't.
    Missing,
    /// The log has the row, the database doesn't.
    Extra,
    /// Both have it, with different values.
    Different,
}

/// A column that differs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ColumnDifference {
    /// Name.
    pub column: String,
    /// Its value in the database.
    pub live: Box<RawValue>,
    /// Its value according to the log; absent if the log has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub logged: Option<Box<RawValue>>,
}

/// A row that differs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Difference {
    /// Table.
    pub table: String,
    /// Key of the row.
    pub key: String,
    /// How it differs.
    pub kind: DifferenceKind,
    /// For tables without a key: how many rows with this key are missing, or are there too often.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub count: u64,
    /// Columns that differ.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub columns: Vec<ColumnDifference>,
}

fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}

/// What was found in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSummary {
    /// Table.
    pub table: String,
    /// Rows in the database.
    pub live_rows: u64,
    /// Rows according to the log.
    pub logged_rows: u64,
    /// Rows that the log lacks.
    pub missing: u64,
    /// Rows that only the log has.
    pub extra: u64,
    /// Rows with different values.
    pub different: u64,
}

/// The outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reconciliation {
    /// The source.
    pub source: String,
    /// The instant of the database that was compared.
    pub instant: String,
    /// How far capture was then, at least.
    pub position: String,
    /// Each table.
    pub tables: Vec<TableSummary>,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// Number of all differences.
    pub total: u64,
    /// Tables that the source's patterns take in and of which nothing is captured.
    #[serde(default)]
    pub uncaptured: Vec<String>,
}

impl Reconciliation {
    /// Whether the log has all that the database has, and nothing else.
    pub fn is_clean(&self) -> bool {
        self.total == 0 && self.uncaptured.is_empty()
    }
}

impl Engine {
    /// Compares a source's tables with the log. `progress` is told how far it is.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such source or table, [`EngineError::Busy`] if capture doesn't reach the database's state in time; or if
    /// the database or the log can't be read.
    pub async fn reconcile(
        &self,
        query: &QueryEngine,
        name: &str,
        options: &ReconcileOptions,
        progress: &(dyn Fn(Progress<'_>) + Send + Sync),
    ) -> Result<Reconciliation> {
        let row = self.store().db().capture_sources().await?.into_iter().find(|row| row.name == name);
        let row = row.ok_or_else(|| EngineError::NotFound(format!("source {name}")))?;
        let spec = SourceSpec { name: &row.name, kind: &row.kind, url: &row.url, options: &row.options };
        let deadline = Instant::now() + Duration::from_secs(options.wait_seconds);
        while !live::is_complete(&spec).await? {
            pause(deadline, BASELINE_EVERY).await?;
            progress(Progress::Waiting { position: "baseline" });
        }
        let mut live = live::open(&spec).await?;
        let tables = chosen(live.tables(), &options.tables)?;
        let position = self.wait_until_reached(name, live.as_mut(), deadline, progress).await?;
        let query = query.for_bulk_work()?;
        let mut outcome = Reconciliation {
            source: name.to_owned(),
            instant: live.instant(),
            position,
            tables: Vec::new(),
            differences: Vec::new(),
            total: 0,
            uncaptured: if options.tables.is_empty() { live.uncaptured().to_vec() } else { Vec::new() },
        };
        for table in tables {
            let mut comparer = TableComparer::new(&table, options.listed.saturating_sub(outcome.differences.len()));
            compare(&query, name, live.as_mut(), &table, &mut comparer, progress).await?;
            let (summary, differences) = comparer.finish();
            outcome.total += summary.missing + summary.extra + summary.different;
            outcome.differences.extend(differences);
            outcome.tables.push(summary);
        }
        Ok(outcome)
    }

    async fn wait_until_reached(
        &self,
        name: &str,
        live: &mut dyn Live,
        deadline: Instant,
        progress: &(dyn Fn(Progress<'_>) + Send + Sync),
    ) -> Result<String> {
        loop {
            let position = self.store().db().position(&crate::capture::position_name(name)).await?.unwrap_or_default();
            if live.is_reached(&position).await? {
                return Ok(position);
            }
            progress(Progress::Waiting { position: &position });
            pause(deadline, LOOK_EVERY).await?;
        }
    }
}

async fn pause(deadline: Instant, pause: Duration) -> Result<()> {
    if Instant::now() > deadline {
        return Err(EngineError::Busy { reason: "capture has not reached the present state of the database in time", retry_after: 60 });
    }
    tokio::time::sleep(pause).await;
    Ok(())
}

fn chosen(attached: &[LiveTable], wanted: &[String]) -> Result<Vec<LiveTable>> {
    if wanted.is_empty() {
        return Ok(attached.to_vec());
    }
    let find = |name: &String| {
        let found = attached.iter().find(|table| table.name == *name).cloned();
        found.ok_or_else(|| EngineError::NotFound(format!("table {name} among those that are attached")))
    };
    wanted.iter().map(find).collect()
}

async fn compare(
    query: &QueryEngine,
    source: &str,
    live: &mut dyn Live,
    table: &LiveTable,
    comparer: &mut TableComparer<'_>,
    progress: &(dyn Fn(Progress<'_>) + Send + Sync),
) -> Result<()> {
    use futures::TryStreamExt;
    let includes = live.includes();
    let mut logged = LogRows::open(query, source, table, includes.as_ref()).await?;
    let mut rows = live.rows(&table.name)?;
    let mut next_live = rows.try_next().await?;
    let mut next_logged = logged.next().await?;
    let mut compared = 0u64;
    loop {
        let order = match (&next_live, &next_logged) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(live), Some(logged)) => live.key.as_bytes().cmp(logged.key.as_bytes()),
        };
        // Rows of the same key come one after the other on the live side, and as one with their number from the log.
        if order.is_le()
            && let Some(first) = next_live.take()
        {
            let mut count = 1;
            loop {
                next_live = rows.try_next().await?;
                if next_live.as_ref().is_none_or(|next| next.key != first.key) {
                    break;
                }
                count += 1;
            }
            let same = if order.is_eq() { next_logged.take() } else { None };
            comparer.live(first, count, same)?;
            if order.is_eq() {
                next_logged = logged.next().await?;
            }
        } else if let Some(only) = next_logged.take() {
            comparer.only_logged(only);
            next_logged = logged.next().await?;
        }
        compared += 1;
        if compared.is_multiple_of(TELL_EVERY) {
            progress(Progress::Comparing { table: &table.name, rows: compared });
        }
    }
}
