//! Which database a table is of. Tables of one name may be captured from several; a record's `source_position` begins with the name of its source.

use super::rows::Row;
use super::text;
use crate::capture::position_name;
use crate::error::{EngineError, Result};
use crate::query::QueryEngine;
use datafusion::common::ScalarValue;
use muniment_capture::envelope::{Format, is_source_name};

/// An audited table.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Its name with its schema, such as `case.hoso`.
    pub name: &'a str,
    /// The source that it is captured from. Without one, all records of the name count, and a table that comes from several sources is refused.
    pub source: Option<&'a str>,
}

impl<'a> From<&'a str> for Table<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, source: None }
    }
}

/// Tables of the log whose names, schema aside, are like this one but for case and quotes: what somebody may have meant. At most six, in order.
///
/// # Errors
/// As a query, see [`QueryEngine::sql`].
pub async fn tables_like(query: &QueryEngine, name: &str) -> Result<Vec<String>> {
    let plain = name.replace('"', "").to_lowercase();
    let last = plain.rsplit('.').next().unwrap_or_default();
    let sql = "SELECT DISTINCT table_name FROM audit.sys_audit_log WHERE lower(table_name) = $1 OR ends_with(lower(table_name), $2) \
               ORDER BY table_name LIMIT 6";
    let batches = query.collect(sql, vec![text(last), text(&format!(".{last}"))]).await?;
    batches.iter().flat_map(Row::all).map(|row| Ok(row.required("table_name")?.to_owned())).collect()
}

/// The sources that the log has had, attached or sending envelopes; longer names first, since one may be the beginning of another.
pub(crate) async fn known_sources(query: &QueryEngine) -> Result<Vec<String>> {
    let prefixes = [position_name(""), format!("{}:", Format::Debezium.name()), format!("{}:", Format::Wal2Json.name())];
    let names = query.store().db().position_names().await?;
    let of_source = |name: &String| {
        let name = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix))?;
        // What is read from a file has the file's name behind it.
        let name = name.split('@').next().unwrap_or_default();
        is_source_name(name).then(|| name.to_owned())
    };
    let mut sources: Vec<String> = names.iter().filter_map(of_source).collect();
    sources.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    sources.dedup();
    Ok(sources)
}

/// The source of a position.
pub(super) fn source_of<'a>(position: &str, known: &'a [String]) -> Option<&'a str> {
    known.iter().map(String::as_str).find(|name| position.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))
}

fn add(parameters: &mut Vec<ScalarValue>, source: &str) -> usize {
    parameters.push(text(&format!("{source}:")));
    parameters.len()
}

/// The condition that a record is of a source; its parameters are appended.
pub(crate) fn of_source(source: &str, known: &[String], parameters: &mut Vec<ScalarValue>) -> String {
    let mut condition = format!("starts_with(source_position, ${})", add(parameters, source));
    for longer in known.iter().filter(|name| name.strip_prefix(source).is_some_and(|rest| rest.starts_with(':'))) {
        condition.push_str(&format!(" AND NOT starts_with(source_position, ${})", add(parameters, longer)));
    }
    condition
}

/// Adds the condition that the records are of the table's source to conditions on `sys_audit_log`.
///
/// # Errors
/// [`EngineError::Parameter`] if none is named, and the records come from several.
pub(super) async fn narrow(
    query: &QueryEngine,
    table: Table<'_>,
    conditions: &mut String,
    parameters: &mut Vec<ScalarValue>,
) -> Result<()> {
    let known = known_sources(query).await?;
    if let Some(source) = table.source {
        if !known.iter().any(|name| name == source) {
            must_have(query, source, &known).await?;
        }
        let condition = of_source(source, &known, parameters);
        conditions.push_str(&format!(" AND {condition}"));
        return Ok(());
    }
    if known.len() < 2 {
        return Ok(());
    }
    let (mut sql, mut given) = ("SELECT DISTINCT CASE".to_owned(), parameters.clone());
    for (number, source) in known.iter().enumerate() {
        sql.push_str(&format!(" WHEN starts_with(source_position, ${}) THEN {number}", add(&mut given, source)));
    }
    sql.push_str(&format!(" END AS source FROM audit.sys_audit_log WHERE {conditions} AND source_position IS NOT NULL"));
    let mut found = Vec::new();
    for row in query.collect(&sql, given).await?.iter().flat_map(Row::all) {
        found.extend(row.int("source")?.and_then(|number| known.get(usize::try_from(number).ok()?)).map(String::as_str));
    }
    found.sort_unstable();
    one_of(&found, table.name)
}

/// Refuses the name of a source of which the log has nothing.
async fn must_have(query: &QueryEngine, source: &str, known: &[String]) -> Result<()> {
    let mut parameters = Vec::new();
    let condition = of_source(source, known, &mut parameters);
    let sql = format!("SELECT id FROM audit.sys_audit_log WHERE {condition} LIMIT 1");
    if query.collect(&sql, parameters).await?.iter().any(|batch| batch.num_rows() > 0) {
        return Ok(());
    }
    let known = if known.is_empty() { "no source".to_owned() } else { known.join(", ") };
    Err(EngineError::Parameter { name: "source", reason: format!("the log has nothing of {source}; it knows {known}") })
}

/// Refuses several sources.
pub(super) fn one_of(sources: &[&str], what: &str) -> Result<()> {
    if sources.len() < 2 {
        return Ok(());
    }
    let reason = format!("{what} is of several sources; name one of {}", sources.join(", "));
    Err(EngineError::Parameter { name: "source", reason })
}
