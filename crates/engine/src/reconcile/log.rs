//! The rows of a table according to the log, in the order of keys, as the transactions of one instant left them.

use crate::error::Result;
use crate::history::{LogRow, RowDocument, known_sources, of_source};
use crate::query::{QueryEngine, QueryStream};
use arrow_array::RecordBatch;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use muniment_capture::live::LiveTable;
use std::collections::VecDeque;

/// A row.
#[derive(Debug)]
pub(super) struct LoggedRow {
    pub key: String,
    pub row: RowDocument,
    /// How often it is there: more than once only in a table without a key.
    pub count: u64,
}

/// What the records of one key add up to.
#[derive(Default)]
struct Fold {
    row: Option<RowDocument>,
    count: u64,
    /// The last baseline that had the key.
    baseline: Option<String>,
}

/// Whether a change belongs to the instant.
type Includes<'a> = &'a (dyn Fn(Option<&str>, Option<&str>) -> bool + Send + Sync);

/// The rows as they come.
pub(super) struct LogRows<'a> {
    changes: QueryStream,
    includes: Includes<'a>,
    has_key: bool,
    current: Option<(String, Fold)>,
    ready: VecDeque<LoggedRow>,
}

/// Columns that are asked for.
const COLUMNS: [&str; 5] = ["primary_key", "operation", "new_values", "transaction_id", "source_position"];

fn text(value: &str) -> ScalarValue {
    ScalarValue::Utf8View(Some(value.to_owned()))
}

impl<'a> LogRows<'a> {
    pub(super) async fn open(query: &QueryEngine, source: &str, table: &LiveTable, includes: Includes<'a>) -> Result<Self> {
        let mut parameters = vec![text(&table.name)];
        let of_source = of_source(source, &known_sources(query).await?, &mut parameters);
        let of_table = format!("table_name = $1 AND {of_source}");
        let emptied = format!(
            "SELECT recorded_at, stream_index, transaction_id, source_position FROM audit.sys_audit_log WHERE {of_table} AND primary_key IN ('', '*') \
             AND operation = 'TRUNCATE' ORDER BY recorded_at DESC, stream_index DESC"
        );
        let mut conditions = format!("{of_table} AND operation IN ('INSERT', 'UPDATE', 'DELETE', 'SNAPSHOT')");
        let mut emptied = query.sql(&emptied, parameters.clone()).await?;
        'search: while let Some(batch) = emptied.try_next().await? {
            for row in LogRow::all(&batch) {
                if includes(row.text("transaction_id")?, row.text("source_position")?) {
                    parameters.push(ScalarValue::TimestampMicrosecond(Some(row.time("recorded_at")?), Some("UTC".into())));
                    parameters.push(ScalarValue::from(row.number("stream_index")?));
                    let (time, index) = (parameters.len() - 1, parameters.len());
                    conditions.push_str(&format!(" AND recorded_at >= ${time} AND (recorded_at > ${time} OR stream_index > ${index})"));
                    break 'search;
                }
            }
        }
        // Sorting mixes rows of all batches. Texts that are views would keep whole batches in memory; these are copied.
        let copied = COLUMNS.map(|name| format!("arrow_cast({name}, 'Utf8') AS {name}")).join(", ");
        let sql = format!(
            "SELECT {} FROM (SELECT {copied}, recorded_at, stream_index FROM audit.sys_audit_log WHERE {conditions}) \
             ORDER BY primary_key, recorded_at, stream_index",
            COLUMNS.join(", ")
        );
        let changes = query.sql(&sql, parameters).await?;
        Ok(Self { changes, includes, has_key: table.has_key, current: None, ready: VecDeque::new() })
    }

    /// The next row that exists.
    pub(super) async fn next(&mut self) -> Result<Option<LoggedRow>> {
        loop {
            if let Some(row) = self.ready.pop_front() {
                return Ok(Some(row));
            }
            match self.changes.try_next().await? {
                Some(batch) => self.take(&batch)?,
                None => {
                    let last = self.current.take();
                    return Ok(last.and_then(finished));
                }
            }
        }
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        for row in LogRow::all(batch) {
            let (key, operation) = (row.required("primary_key")?, row.required("operation")?);
            // A baseline's rows are older than the instant, whatever they name as their position.
            if operation != "SNAPSHOT" && !(self.includes)(row.text("transaction_id")?, row.text("source_position")?) {
                continue;
            }
            if self.current.as_ref().is_none_or(|(current, _)| current != key)
                && let Some(done) = self.current.replace((key.to_owned(), Fold::default()))
            {
                self.ready.extend(finished(done));
            }
            if let Some((_, fold)) = &mut self.current {
                fold.apply(operation, row, self.has_key)?;
            }
        }
        Ok(())
    }
}

fn finished((key, fold): (String, Fold)) -> Option<LoggedRow> {
    let row = fold.row.filter(|_| fold.count > 0)?;
    Some(LoggedRow { key, row, count: fold.count })
}

impl Fold {
    fn apply(&mut self, operation: &str, row: LogRow<'_>, has_key: bool) -> Result<()> {
        match operation {
            "INSERT" | "SNAPSHOT" => {
                // A baseline tells anew what is there: its position is that of the baseline, with the row's place behind it.
                let baseline =
                    row.text("source_position")?.filter(|_| operation == "SNAPSHOT").and_then(|position| position.rsplitn(3, '/').nth(2));
                let begins = baseline.is_some_and(|baseline| self.baseline.as_deref() != Some(baseline));
                self.count = if has_key || begins { 1 } else { self.count + 1 };
                if begins {
                    self.baseline = baseline.map(str::to_owned);
                }
                self.row = row.document("new_values")?;
            }
            "UPDATE" => {
                let Some(new) = row.document("new_values")? else { return Ok(()) };
                self.count = self.count.max(1);
                self.row = Some(match self.row.take() {
                    Some(before) => before.changed(None, new),
                    None => new,
                });
            }
            _ => {
                self.count = if has_key { 0 } else { self.count.saturating_sub(1) };
                if self.count == 0 {
                    self.row = None;
                }
            }
        }
        Ok(())
    }
}
