//! Which thresholds a measurement is held against.

use super::amount::Amount;
use super::units::convert;
use crate::error::{EngineError, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use arrow_array::{Array, ArrayRef, BooleanArray, Decimal128Array, RecordBatch, StringArray};
use muniment_store::StoreError;
use muniment_store::register::{RegisterRow, Value, Values};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Thresholds of a metric, or of a category.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Its number; given by the register.
    #[serde(default)]
    pub id: Option<i64>,
    /// The metric it is for, or the beginning of its name and `*`.
    #[serde(default)]
    pub metric_name: Option<String>,
    /// The category it is for.
    #[serde(default)]
    pub metric_category: Option<String>,
    /// The component it is for.
    #[serde(default)]
    pub component_name: Option<String>,
    /// Unit of the values.
    #[serde(default)]
    pub metric_unit: Option<String>,
    /// Value from which on to warn.
    #[serde(default)]
    pub threshold_warning: Option<Amount>,
    /// Value from which on it is critical; below the other one, small values are the bad ones.
    #[serde(default)]
    pub threshold_critical: Option<Amount>,
    /// Whether it is in force.
    #[serde(default = "yes")]
    pub is_active: bool,
}

fn yes() -> bool {
    true
}

/// A measurement as far as it decides about its thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Subject<'a> {
    name: &'a str,
    category: &'a str,
    component: Option<&'a str>,
    unit: Option<&'a str>,
}

/// Warning and critical, in the unit of a measurement.
type Pair = (Option<i64>, Option<i64>);

/// A value has reached a threshold. If being critical takes less than being worth a warning, small values are the bad ones.
pub(super) fn reached(value: i128, threshold: Option<i128>, warning: Option<i128>, critical: Option<i128>) -> bool {
    let downwards = matches!((warning, critical), (Some(warning), Some(critical)) if critical < warning);
    threshold.is_some_and(|threshold| if downwards { value <= threshold } else { value >= threshold })
}

impl Threshold {
    pub(super) fn of_row(row: &RegisterRow) -> Self {
        let text = |name| row.text(name).map(str::to_owned);
        Self {
            id: Some(row.id()),
            metric_name: text("metric_name"),
            metric_category: text("metric_category"),
            component_name: text("component_name"),
            metric_unit: text("metric_unit"),
            threshold_warning: row.int("threshold_warning").map(Amount),
            threshold_critical: row.int("threshold_critical").map(Amount),
            is_active: row.bool("is_active"),
        }
    }

    /// What it is for, which no other one is for.
    pub(super) fn subject(&self) -> Values {
        vec![
            ("metric_name", self.metric_name.clone().into()),
            ("metric_category", self.metric_category.clone().into()),
            ("component_name", self.component_name.clone().into()),
        ]
    }

    pub(super) fn values(&self, now: i64) -> Values {
        vec![
            ("metric_unit", self.metric_unit.clone().into()),
            ("threshold_warning", self.threshold_warning.map(|amount| amount.0).into()),
            ("threshold_critical", self.threshold_critical.map(|amount| amount.0).into()),
            ("is_active", self.is_active.into()),
            ("updated_at", Value::Int(now)),
        ]
    }

    pub(super) fn validate(&self) -> Result<()> {
        let wrong = |name, reason: &str| Err(EngineError::Parameter { name, reason: reason.to_owned() });
        let fits = |text: &Option<String>, most| {
            text.as_ref().is_none_or(|text| (1..=most).contains(&text.chars().count()) && !text.contains('\0'))
        };
        if self.metric_name.is_none() && self.metric_category.is_none() {
            return wrong("metric_name", "give it, or metric_category");
        }
        if !fits(&self.metric_name, 100) {
            return wrong("metric_name", "it has 1 to 100 characters");
        }
        let categories = ["DATABASE", "API", "WORKFLOW", "EXTERNAL"];
        if self.metric_category.as_deref().is_some_and(|category| !categories.contains(&category)) {
            return wrong("metric_category", "it is DATABASE, API, WORKFLOW or EXTERNAL");
        }
        if !fits(&self.component_name, 100) {
            return wrong("component_name", "it has 1 to 100 characters");
        }
        if !fits(&self.metric_unit, 20) {
            return wrong("metric_unit", "it has 1 to 20 characters");
        }
        if self.threshold_warning.is_none() && self.threshold_critical.is_none() {
            return wrong("threshold_warning", "give it, or threshold_critical");
        }
        Ok(())
    }

    fn is_for(&self, subject: &Subject<'_>) -> bool {
        let name = self.metric_name.as_deref().is_none_or(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => subject.name.starts_with(beginning),
            None => subject.name == pattern,
        });
        let category = self.metric_category.as_deref().is_none_or(|category| subject.category == category);
        name && category && self.component_name.as_deref().is_none_or(|component| subject.component == Some(component))
    }

    /// The more it says of what it is for, the sooner it is taken.
    fn rank(&self) -> (bool, usize, bool, bool) {
        let name = self.metric_name.as_deref().unwrap_or_default();
        (!name.is_empty() && !name.ends_with('*'), name.len(), self.component_name.is_some(), self.metric_category.is_some())
    }

    /// Warning and critical in a unit; `None` if that is of another kind.
    fn in_unit(&self, unit: Option<&str>) -> Option<Pair> {
        let convert = |amount: Option<Amount>| match amount {
            Some(amount) => convert(amount.0, self.metric_unit.as_deref(), unit).map(Some),
            None => Some(None),
        };
        Some((convert(self.threshold_warning)?, convert(self.threshold_critical)?))
    }
}

/// The thresholds in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Thresholds {
    rules: Vec<Threshold>,
}

impl Thresholds {
    /// Those of the register stand before those that Muniment has for its own measures.
    pub(super) fn new(configured: Vec<Threshold>, built_in: Vec<Threshold>) -> Self {
        let sorted = |mut rules: Vec<Threshold>| {
            rules.retain(|rule| rule.is_active);
            rules.sort_by_key(|rule| std::cmp::Reverse(rule.rank()));
            rules
        };
        Self { rules: [sorted(configured), sorted(built_in)].concat() }
    }

    fn of(&self, subject: &Subject<'_>) -> Option<Pair> {
        self.rules.iter().filter(|rule| rule.is_for(subject)).find_map(|rule| rule.in_unit(subject.unit))
    }

    /// Writes thresholds into the measurements that bring none of their own, and decides whether they are reached. What a sender has decided stays.
    pub(crate) fn apply(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let columns = Columns::of(&batch)?;
        let rows = batch.num_rows();
        let mut known: HashMap<Subject<'_>, Option<Pair>> = HashMap::new();
        let mut found = Vec::with_capacity(rows);
        for row in 0..rows {
            let own = columns.warning.is_valid(row) || columns.critical.is_valid(row);
            let subject = columns.subject(row);
            found.push(if own { None } else { *known.entry(subject).or_insert_with(|| self.of(&subject)) });
        }
        if found.iter().all(Option::is_none) {
            return Ok(batch);
        }
        let column = |own: &Decimal128Array, pick: fn(Pair) -> Option<i64>| -> Result<ArrayRef> {
            let values = found.iter().enumerate().map(|(row, found)| match found {
                Some(found) => pick(*found).map(i128::from),
                None => own.is_valid(row).then(|| own.value(row)),
            });
            let array: Decimal128Array = values.collect();
            Ok(Arc::new(array.with_precision_and_scale(own.precision(), own.scale())?))
        };
        let exceeded: BooleanArray = (0..rows).map(|row| Some(columns.exceeded.value(row) || columns.reaches(row, found[row]))).collect();
        let changed = [
            ("threshold_warning", column(columns.warning, |found| found.0)?),
            ("threshold_critical", column(columns.critical, |found| found.1)?),
            ("is_threshold_exceeded", Arc::new(exceeded) as ArrayRef),
        ];
        let mut arrays = batch.columns().to_vec();
        for (name, array) in changed {
            arrays[batch.schema_ref().index_of(name)?] = array;
        }
        Ok(RecordBatch::try_new(batch.schema(), arrays)?)
    }
}

/// The columns of a batch of measurements.
struct Columns<'a> {
    name: &'a StringArray,
    category: &'a StringArray,
    component: &'a StringArray,
    unit: &'a StringArray,
    value: &'a Decimal128Array,
    warning: &'a Decimal128Array,
    critical: &'a Decimal128Array,
    exceeded: &'a BooleanArray,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let damaged = |name: &str| StoreError::Damaged(format!("{name} of a measurement is not as it should be"));
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| damaged(name));
        let text = |name: &str| column(name)?.as_string_opt::<i32>().ok_or_else(|| damaged(name));
        let decimal = |name: &str| column(name)?.as_primitive_opt::<Decimal128Type>().ok_or_else(|| damaged(name));
        Ok(Self {
            name: text("metric_name")?,
            category: text("metric_category")?,
            component: text("component_name")?,
            unit: text("metric_unit")?,
            value: decimal("metric_value")?,
            warning: decimal("threshold_warning")?,
            critical: decimal("threshold_critical")?,
            exceeded: column("is_threshold_exceeded")?.as_boolean_opt().ok_or_else(|| damaged("is_threshold_exceeded"))?,
        })
    }

    fn subject(&self, row: usize) -> Subject<'a> {
        let text = |column: &'a StringArray| column.is_valid(row).then(|| column.value(row));
        Subject { name: self.name.value(row), category: self.category.value(row), component: text(self.component), unit: text(self.unit) }
    }

    fn reaches(&self, row: usize, thresholds: Option<Pair>) -> bool {
        let Some((warning, critical)) = thresholds else { return false };
        let (value, warning, critical) = (self.value.value(row), warning.map(i128::from), critical.map(i128::from));
        reached(value, warning, warning, critical) || reached(value, critical, warning, critical)
    }
}
