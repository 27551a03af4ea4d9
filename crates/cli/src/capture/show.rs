//! Plans and sources as people read them.

use muniment_capture::plan::{Level, Plan};
use muniment_engine::capture::{SourceState, SourceStatus};
use std::fmt::Write;

/// Most tables that are listed.
const TABLES: usize = 50;

/// What was found, gravest first.
pub fn findings(plan: &Plan) -> String {
    let mut findings: Vec<_> = plan.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let mut text = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Refusal => "refused",
            Level::Warning => "warning",
            Level::Note => "note",
        };
        let _ = writeln!(text, "{level}: {}: {}", finding.subject, finding.text);
    }
    text
}

/// The tables that a plan takes in.
pub fn tables(plan: &Plan) -> String {
    let mut text = format!("{} tables:\n", plan.tables.len());
    for table in plan.tables.iter().take(TABLES) {
        let _ = writeln!(text, "  {table}");
    }
    if plan.tables.len() > TABLES {
        let _ = writeln!(text, "  and {} more", plan.tables.len() - TABLES);
    }
    text
}

/// Sources as a table.
pub fn sources(sources: &[SourceStatus]) -> String {
    let head = ["name", "kind", "state", "behind", "age", "changes", "restarts", "place"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(sources.iter().map(row));
    let mut text = String::new();
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
            let _ = match at + 1 == row.len() {
                true => writeln!(text, "{cell}"),
                false => write!(text, "{cell:width$}  "),
            };
        }
    }
    for source in sources {
        if let Some(error) = &source.error {
            let _ = writeln!(text, "{}: {error}", source.name);
        }
        for complaint in &source.health.complaints {
            let _ = writeln!(text, "{}: {complaint}", source.name);
        }
    }
    text
}

fn row(source: &SourceStatus) -> [String; 8] {
    let state = match source.state {
        SourceState::Attaching => "attaching",
        SourceState::Detaching => "detaching",
        SourceState::Stopped => "stopped",
        SourceState::Starting => "starting",
        SourceState::Running => "running",
        SourceState::Waiting => "waiting",
    };
    let unknown = || "?".to_owned();
    [
        source.name.clone(),
        source.kind.clone(),
        state.to_owned(),
        source.health.lag_bytes.map_or_else(unknown, bytes),
        source.health.lag_seconds.map_or_else(unknown, |seconds| format!("{seconds:.1} s")),
        source.changes.to_string(),
        source.restarts.to_string(),
        source.place.clone(),
    ]
}

fn bytes(bytes: i64) -> String {
    let units = [("GiB", 1_i64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536), bytes(5 << 30)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
