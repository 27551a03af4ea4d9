//! Measurements that become critical, as findings in `security_audit_log`: once when it begins, and again if it begins anew after a while.

use super::LOG;
use super::amount::Amount;
use super::rules::reached;
use crate::engine::Engine;
use crate::error::Result;
use crate::follow::{Consumer, Following, Outcome};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch, StringArray};
use async_trait::async_trait;
use muniment_store::StoreError;
use muniment_store::register::ChangedBy;
use std::collections::BTreeMap;

const COLUMNS: &[&str] = &[
    "metric_name",
    "metric_value",
    "metric_unit",
    "component_name",
    "operation_name",
    "threshold_warning",
    "threshold_critical",
    "measured_at",
];
/// What is measured for which there has been a finding, at most; beyond it the oldest findings are forgotten.
const REMEMBERED: usize = 10_000;
/// No second finding comes within this time of event time, so that a value that goes up and down is one finding.
const QUIET: i64 = 600_000_000;

/// The follower.
pub(crate) fn following() -> Result<Following> {
    Ok(Following {
        name: "thresholds",
        log: crate::ingest::log_named(LOG)?,
        columns: COLUMNS,
        slice: crate::follow::SLICE_RECORDS,
        by: ChangedBy { username: "muniment:thresholds".to_owned(), ..ChangedBy::default() },
        consumer: Box::<Watch>::default(),
    })
}

/// Metric, component and operation; when the last finding was, and whether it is critical still.
#[derive(Default)]
struct Watch {
    critical: BTreeMap<String, (i64, bool)>,
}

#[async_trait]
impl Consumer for Watch {
    fn restore(&mut self, state: &str) -> Result<()> {
        self.critical = match state {
            "" => BTreeMap::new(),
            state => serde_json::from_str(state).map_err(|error| StoreError::Damaged(format!("critical measurements: {error}")))?,
        };
        Ok(())
    }

    async fn take(&mut self, _: &Engine, records: &[RecordBatch]) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for batch in records {
            self.look(batch, &mut outcome)?;
        }
        while self.critical.len() > REMEMBERED {
            let oldest = self.critical.iter().min_by_key(|(_, (at, _))| *at).map(|(subject, _)| subject.clone());
            oldest.and_then(|subject| self.critical.remove(&subject));
        }
        outcome.state = serde_json::to_string(&self.critical).map_err(|error| StoreError::Damaged(error.to_string()))?;
        Ok(outcome)
    }
}

impl Watch {
    fn look(&mut self, batch: &RecordBatch, outcome: &mut Outcome) -> Result<()> {
        let damaged = |name: &str| StoreError::Damaged(format!("{name} of a measurement is not as it should be"));
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| damaged(name));
        let texts = |name: &str| column(name)?.as_string_opt::<i32>().ok_or_else(|| damaged(name));
        let decimals = |name: &str| column(name)?.as_primitive_opt::<Decimal128Type>().ok_or_else(|| damaged(name));
        let (names, units, components, operations) =
            (texts("metric_name")?, texts("metric_unit")?, texts("component_name")?, texts("operation_name")?);
        let (values, warnings, criticals) = (decimals("metric_value")?, decimals("threshold_warning")?, decimals("threshold_critical")?);
        let times = column("measured_at")?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| damaged("measured_at"))?;
        for row in 0..batch.num_rows() {
            if values.is_null(row) || criticals.is_null(row) {
                continue;
            }
            let text = |column: &StringArray| if column.is_valid(row) { column.value(row).to_owned() } else { String::new() };
            let subject = [text(names), text(components), text(operations)].join(" ").trim_end().to_owned();
            let warning = warnings.is_valid(row).then(|| warnings.value(row));
            let (value, critical, at) = (values.value(row), criticals.value(row), times.value(row));
            let is_critical = reached(value, Some(critical), warning, Some(critical));
            if self.begins(&subject, is_critical, at) {
                let amount = |value: i128| Amount(i64::try_from(value).unwrap_or(i64::MAX));
                let unit = text(units);
                let reason = format!("{} is {} {unit}; it is critical from {} {unit} on", text(names), amount(value), amount(critical));
                outcome.records.push(("security_audit_log", finding(&subject, &reason, at)));
            }
        }
        Ok(())
    }

    /// Whether a finding is due.
    fn begins(&mut self, subject: &str, is_critical: bool, at: i64) -> bool {
        match self.critical.get_mut(subject) {
            Some((last, still)) => {
                let again = is_critical && !*still && at >= *last + QUIET;
                *still = is_critical && (*still || again);
                if again {
                    *last = at;
                }
                again
            }
            None if is_critical => {
                self.critical.insert(subject.to_owned(), (at, true));
                true
            }
            None => false,
        }
    }
}

/// A line of `security_audit_log`.
fn finding(subject: &str, reason: &str, at: i64) -> String {
    let cut = |text: &str, chars: usize| text.chars().take(chars).collect::<String>();
    serde_json::json!({
        "event_type": "METRIC_CRITICAL", "event_category": "SYSTEM", "severity": 4, "username": "muniment:thresholds", "ip_address": "0.0.0.0",
        "resource_accessed": cut(subject, 500), "failure_reason": cut(reason.trim_end(), 1000), "event_time": at, "requires_investigation": true,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_comes_when_it_begins_and_again_only_after_a_while() {
        let mut watch = Watch::default();
        let minute = 60_000_000;
        let steps = [(0, false), (1, true), (2, true), (3, false), (4, true), (12, true), (13, false), (14, true), (15, true)];
        let found: Vec<i64> = steps.iter().filter(|(at, critical)| watch.begins("m", *critical, at * minute)).map(|(at, _)| *at).collect();
        assert_eq!(found, [1, 12]);
    }
}
