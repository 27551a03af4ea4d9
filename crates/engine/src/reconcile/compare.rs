//! Two rows side by side, and the sum of what was found in a table.

use super::log::LoggedRow;
use super::{ColumnDifference, Difference, DifferenceKind, TableSummary};
use crate::error::{EngineError, Result};
use crate::history::{JSON_NULL, RowDocument, same_value, unwrapped};
use muniment_capture::live::{LiveRow, LiveTable};
use muniment_store::StoreError;
use serde_json::value::RawValue;

/// Collects the differences of one table.
pub(super) struct TableComparer<'a> {
    table: &'a LiveTable,
    listed: usize,
    summary: TableSummary,
    differences: Vec<Difference>,
}

impl<'a> TableComparer<'a> {
    /// `listed` is how many differences are kept.
    pub(super) fn new(table: &'a LiveTable, listed: usize) -> Self {
        let summary = TableSummary { table: table.name.clone(), ..TableSummary::default() };
        Self { table, listed, summary, differences: Vec::new() }
    }

    /// A key that the database has, in so many rows, and the log's row of that key.
    pub(super) fn live(&mut self, live: LiveRow, count: u64, logged: Option<LoggedRow>) -> Result<()> {
        let logged_count = logged.as_ref().map_or(0, |logged| logged.count);
        self.summary.live_rows += count;
        self.summary.logged_rows += logged_count;
        if count > logged_count {
            self.note(DifferenceKind::Missing, &live.key, count - logged_count, Vec::new());
        } else if count < logged_count {
            self.note(DifferenceKind::Extra, &live.key, logged_count - count, Vec::new());
        }
        let Some(logged) = logged else { return Ok(()) };
        let row = RowDocument::parse(&live.row)
            .map_err(|error| EngineError::Store(StoreError::Damaged(format!("a row of {}: {error}", self.table.name))))?;
        let columns = columns(&row, &logged.row, &self.table.optional);
        if !columns.is_empty() {
            self.note(DifferenceKind::Different, &live.key, 1, columns);
        }
        Ok(())
    }

    /// A key that only the log has.
    pub(super) fn only_logged(&mut self, logged: LoggedRow) {
        self.summary.logged_rows += logged.count;
        self.note(DifferenceKind::Extra, &logged.key, logged.count, Vec::new());
    }

    fn note(&mut self, kind: DifferenceKind, key: &str, count: u64, columns: Vec<ColumnDifference>) {
        match kind {
            DifferenceKind::Missing => self.summary.missing += count,
            DifferenceKind::Extra => self.summary.extra += count,
            DifferenceKind::Different => self.summary.different += count,
        }
        if self.differences.len() < self.listed {
            self.differences.push(Difference { table: self.table.name.clone(), key: key.to_owned(), kind, count, columns });
        }
    }

    pub(super) fn finish(self) -> (TableSummary, Vec<Difference>) {
        (self.summary, self.differences)
    }
}

/// The columns of the live row in which the log's row differs. One that the log doesn't know is the same as NULL, as it is after a column was added.
fn columns(live: &RowDocument, logged: &RowDocument, optional: &[String]) -> Vec<ColumnDifference> {
    let mut found = Vec::new();
    for (name, value) in live.fields() {
        let known = logged.get(name);
        let is_same = match known {
            Some(known) => is_same_column(known, value),
            None => value.get() == "null" || optional.iter().any(|column| column == name),
        };
        if !is_same {
            found.push(ColumnDifference { column: name.to_owned(), live: value.to_owned(), logged: known.map(ToOwned::to_owned) });
        }
    }
    found
}

/// Whether the log has a live value. A queue's triggers don't tell a JSON null from NULL.
fn is_same_column(logged: &RawValue, live: &RawValue) -> bool {
    same_value(logged, live) || same_value(logged, &unwrapped(live)) || (logged.get() == "null" && live.get() == JSON_NULL)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(live: &str, logged: &str, expected: &[&str]) {
        let (live, logged) = (RowDocument::parse(live).unwrap(), RowDocument::parse(logged).unwrap());
        let found = columns(&live, &logged, &["area".to_owned()]);
        assert_eq!(found.iter().map(|column| column.column.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn columns_that_differ() {
        check(r#"{"a":1,"b":{"x":[1, 2]}}"#, r#"{"b": {"x":[1,2]},"a":1}"#, &[]);
        check(r#"{"a":1.0}"#, r#"{"a":1.00}"#, &["a"]);
        check(r#"{"a":null,"b":null}"#, r#"{"a":""}"#, &["a"]);
        check(r#"{"a":1,"area":7}"#, r#"{"a":1,"dropped":2}"#, &[]);
        check(r#"{"a":1,"area":7}"#, r#"{"a":1,"area":8}"#, &["area"]);
        check(r#"{"a":"1"}"#, r#"{"a":1}"#, &["a"]);
        check(r#"{"a":"x"}"#, r#"{"a":{"$unchanged":true}}"#, &["a"]);
        check(r#"{"a":{"$json":"null"}}"#, r#"{"a":{"$json":"null"}}"#, &[]);
        check(r#"{"a":{"$json":"null"}}"#, r#"{"a":null}"#, &[]);
        check(r#"{"a":null}"#, r#"{"a":{"$json":"null"}}"#, &["a"]);
        check(r#"{"a":{"$json":"{\"$hex\": 1}"}}"#, r#"{"a":{"$hex":1}}"#, &[]);
        check(r#"{"a":{"$json":"{\"$hex\": 1}"}}"#, r#"{"a":{"$json":"{\"$hex\": 2}"}}"#, &["a"]);
    }

    #[test]
    fn rows_without_a_key_are_counted() {
        let table = LiveTable { name: "t".into(), has_key: false, optional: Vec::new() };
        let mut comparer = TableComparer::new(&table, 1);
        let logged = |count| LoggedRow { key: "k".into(), row: RowDocument::parse("{}").unwrap(), count };
        let live = || LiveRow { key: "k".into(), row: "{}".into() };
        comparer.live(live(), 3, Some(logged(3))).unwrap();
        comparer.live(live(), 3, Some(logged(1))).unwrap();
        comparer.live(live(), 1, Some(logged(4))).unwrap();
        comparer.live(live(), 2, None).unwrap();
        comparer.only_logged(logged(5));
        let (summary, differences) = comparer.finish();
        assert_eq!((summary.missing, summary.extra, summary.different), (4, 8, 0));
        assert_eq!((summary.live_rows, summary.logged_rows, differences.len()), (9, 13, 1));
    }
}
