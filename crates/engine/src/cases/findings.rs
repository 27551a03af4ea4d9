//! Findings of `security_events`: entered by hand or by detection, then dealt with, or found to be nothing.

use super::{EVENTS, MOST_CASES, Object, refused};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::fields::{self, register, wrong};
use muniment_store::register::{ChangedBy, Lookup, RegisterChange, Value, Values};
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// Fields that a new finding may be given.
const NEW: [&str; 9] = [
    "user_id",
    "event_category",
    "severity_level",
    "threat_type",
    "source_ip",
    "target_resource",
    "attack_vector",
    "detection_method",
    "analyst_notes",
];
/// Fields without which a finding says nothing.
const NEEDED: [&str; 2] = ["event_category", "severity_level"];
/// How a finding was made that somebody entered.
const BY_HAND: &str = "manual";

/// Which findings are wanted; what is not given doesn't matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FindingFilter {
    /// Only those that are dealt with, or only those that are not.
    pub resolved: Option<bool>,
    /// About this user.
    pub user_id: Option<i64>,
    /// Only those after this number.
    pub after: Option<i64>,
    /// This many at most.
    pub limit: Option<u32>,
}

/// How a finding was dealt with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolution {
    /// Whether it turned out to be nothing.
    #[serde(default)]
    pub false_positive: bool,
    /// What was found out.
    pub analyst_notes: String,
    /// What was done about it.
    pub mitigation_action: Option<String>,
}

impl Engine {
    /// Findings by number, each as a JSON object.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn findings(&self, filter: &FindingFilter) -> Result<Vec<Json>> {
        let table = register(EVENTS)?;
        let mut equal: Values = Vec::new();
        equal.extend(filter.resolved.map(|resolved| ("is_resolved", Value::from(resolved))));
        equal.extend(filter.user_id.map(|user| ("user_id", Value::from(user))));
        let limit = filter.limit.unwrap_or(100).clamp(1, MOST_CASES);
        let lookup = Lookup { after: filter.after.unwrap_or(i64::MIN), limit, ..Lookup::new(table, equal) };
        Ok(self.store().db().find_in_register(&lookup).await?.iter().map(|row| fields::to_json(table, row)).collect())
    }

    /// A finding.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such finding.
    pub async fn finding(&self, id: i64) -> Result<Json> {
        let table = register(EVENTS)?;
        let found = self.store().db().find_in_register(&Lookup::new(table, vec![("id", id.into())])).await?.pop();
        found.map(|row| fields::to_json(table, &row)).ok_or_else(|| EngineError::NotFound(format!("finding {id}")))
    }

    /// Enters a finding that somebody made.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] names the field that is wrong or missing; [`EngineError::Refused`] if there is no such user.
    pub async fn add_finding(&self, object: &Object, by: &ChangedBy) -> Result<Json> {
        let table = register(EVENTS)?;
        let mut values = fields::values(table, object, &NEW)?;
        if let Some(missing) = NEEDED.into_iter().find(|needed| !values.iter().any(|(name, _)| name == needed)) {
            return Err(wrong(missing, "is missing"));
        }
        if !values.iter().any(|(name, _)| *name == "detection_method") {
            values.push(("detection_method", BY_HAND.into()));
        }
        let ids = self.store().db().change_registers(&[RegisterChange::Insert { table, values }], by).await.map_err(refused)?;
        self.finding(ids.first().copied().unwrap_or_default()).await
    }

    /// Closes a finding.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] if it is closed already; [`EngineError::Parameter`] if a text is empty or too long.
    pub async fn resolve_finding(&self, id: i64, resolution: &Resolution, by: &ChangedBy) -> Result<Json> {
        let table = register(EVENTS)?;
        if resolution.analyst_notes.trim().is_empty() {
            return Err(wrong("analyst_notes", "must not be empty: say what was found out"));
        }
        let before = self.finding(id).await?;
        if before["is_resolved"] == true {
            let (who, when) = (before["resolved_by"].as_str().unwrap_or("somebody"), before["resolved_at"].as_str().unwrap_or_default());
            return Err(EngineError::Refused(format!("finding {id} was resolved by {who} at {when}")));
        }
        let mut values = vec![
            ("is_resolved", true.into()),
            ("false_positive", resolution.false_positive.into()),
            fields::field(table, "analyst_notes", &json!(resolution.analyst_notes), &["analyst_notes"])?,
            ("resolved_at", crate::now().into()),
            ("resolved_by", by.username.chars().take(255).collect::<String>().into()),
        ];
        if let Some(action) = &resolution.mitigation_action {
            values.push(fields::field(table, "mitigation_action", &json!(action), &["mitigation_action"])?);
        }
        let change = RegisterChange::Update { table, id, values, expected: vec![("is_resolved", false.into())] };
        self.store().db().change_registers(&[change], by).await.map_err(refused)?;
        self.finding(id).await
    }
}
