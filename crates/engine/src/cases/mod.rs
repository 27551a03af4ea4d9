//! Investigations of security records and findings: the changing part beside what never changes. A record's investigation goes from none to pending, in progress
//! and resolved, step by step; notes and evidence are added and stay.

mod evidence;
mod findings;

pub use evidence::EvidenceRequest;
pub use findings::{FindingFilter, Resolution};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::fields::{self, register, wrong};
use muniment_store::StoreError;
use muniment_store::register::{ChangedBy, Lookup, RegisterChange, RegisterRow, Value, Values};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

const INVESTIGATIONS: &str = "investigations";
const NOTES: &str = "investigation_notes";
const EVIDENCE: &str = "investigation_evidence";
const EVENTS: &str = "security_events";
/// The log whose records are investigated.
const LOG: &str = "security_audit_log";
/// Most cases of a page.
pub const MOST_CASES: u32 = 1000;

/// State of an investigation. The numbers are those of `security_audit_log.investigation_status`; 0, none, is a record without an investigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Opened; nobody works on it yet.
    Pending,
    /// Somebody works on it.
    InProgress,
    /// Closed, with an outcome.
    Resolved,
}

impl Status {
    const ALL: [Self; 3] = [Self::Pending, Self::InProgress, Self::Resolved];

    /// Its number.
    pub const fn number(self) -> i64 {
        match self {
            Self::Pending => 1,
            Self::InProgress => 2,
            Self::Resolved => 3,
        }
    }

    /// Its name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Resolved => "resolved",
        }
    }

    fn of(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.number() == number)
    }

    /// The one state that may follow.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Pending => Some(Self::InProgress),
            Self::InProgress => Some(Self::Resolved),
            Self::Resolved => None,
        }
    }
}

/// A new investigation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewCase {
    /// What it is about.
    pub title: String,
    /// The record of `security_audit_log` that is investigated, by `id`.
    pub security_audit_id: Option<i64>,
    /// The finding of `security_events` that is investigated, by `id`.
    pub security_event_id: Option<i64>,
    /// Who is to work on it: `users.id`.
    pub assigned_to: Option<i64>,
    /// What is known at the beginning.
    pub note: Option<String>,
}

/// A step from one state to the next.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The state after it.
    pub status: Status,
    /// What came of it: to be given with `resolved`, and only then.
    pub outcome: Option<String>,
    /// Something to be noted with it.
    pub note: Option<String>,
}

/// Which investigations are wanted; what is not given doesn't matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaseFilter {
    /// In this state.
    pub status: Option<Status>,
    /// That this user works on.
    pub assigned_to: Option<i64>,
    /// Of this record.
    pub security_audit_id: Option<i64>,
    /// Only those after this number.
    pub after: Option<i64>,
    /// This many at most.
    pub limit: Option<u32>,
}

impl Engine {
    /// Investigations by number, each as a JSON object.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn cases(&self, filter: &CaseFilter) -> Result<Vec<Json>> {
        let table = register(INVESTIGATIONS)?;
        let mut equal: Values = Vec::new();
        equal.extend(filter.status.map(|status| ("status", Value::from(status.number()))));
        equal.extend(filter.assigned_to.map(|user| ("assigned_to", Value::from(user))));
        equal.extend(filter.security_audit_id.map(|id| ("security_audit_id", Value::from(id))));
        let limit = filter.limit.unwrap_or(100).clamp(1, MOST_CASES);
        let lookup = Lookup { after: filter.after.unwrap_or(i64::MIN), limit, ..Lookup::new(table, equal) };
        Ok(self.store().db().find_in_register(&lookup).await?.iter().map(|row| shown(table, row)).collect())
    }

    /// An investigation with its notes and evidence.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such investigation.
    pub async fn case(&self, id: i64) -> Result<Json> {
        let row = self.case_row(id).await?;
        let mut case = shown(register(INVESTIGATIONS)?, &row);
        for (field, name) in [("notes_added", NOTES), ("evidence", EVIDENCE)] {
            let table = register(name)?;
            let rows = self.store().db().find_in_register(&Lookup::new(table, vec![("investigation_id", id.into())])).await?;
            case[field] = rows.iter().map(|row| fields::to_json(table, row)).collect();
        }
        Ok(case)
    }

    async fn case_row(&self, id: i64) -> Result<RegisterRow> {
        let lookup = Lookup::new(register(INVESTIGATIONS)?, vec![("id", id.into())]);
        let found = self.store().db().find_in_register(&lookup).await?.pop();
        found.ok_or_else(|| EngineError::NotFound(format!("investigation {id}")))
    }

    /// Opens an investigation of a record, of a finding, or of neither. A record or finding has one at a time.
    ///
    /// # Errors
    /// [`EngineError::Parameter`]; [`EngineError::NotFound`] if there is no such record or finding; [`EngineError::Refused`] if one is open already.
    pub async fn open_case(&self, new: &NewCase, by: &ChangedBy) -> Result<Json> {
        let table = register(INVESTIGATIONS)?;
        let (_, title) = fields::field(table, "title", &json!(new.title), &["title"])?;
        if let Some(id) = new.security_audit_id {
            evidence::pin(self.store(), LOG, id).await?;
        }
        // What is looked for is not there yet when two look at once: one after the other.
        let _turn = self.opening_cases().lock().await;
        for (column, id) in [("security_audit_id", new.security_audit_id), ("security_event_id", new.security_event_id)] {
            let Some(id) = id else { continue };
            let others = self.store().db().find_in_register(&Lookup::new(table, vec![(column, id.into())])).await?;
            if let Some(open) = others.iter().find(|row| row.int("status") != Some(Status::Resolved.number())) {
                return Err(EngineError::Refused(format!("investigation {} of it is open", open.id())));
            }
        }
        let values = vec![
            ("title", title),
            ("security_audit_id", new.security_audit_id.into()),
            ("security_event_id", new.security_event_id.into()),
            ("assigned_to", new.assigned_to.into()),
            ("status", Status::Pending.number().into()),
            ("opened_by", by.user_id.into()),
        ];
        let mut changes = vec![RegisterChange::Insert { table, values }];
        if let Some(note) = &new.note {
            changes.push(note_of(Value::Made(0), note_text(note)?, by)?);
        }
        let ids = self.store().db().change_registers(&changes, by).await.map_err(refused)?;
        self.case(ids.first().copied().unwrap_or_default()).await
    }

    /// Takes an investigation to its next state.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] says which state may follow; [`EngineError::Parameter`] if an outcome is missing, or given too early.
    pub async fn step_case(&self, id: i64, step: &Step, by: &ChangedBy) -> Result<Json> {
        let table = register(INVESTIGATIONS)?;
        let row = self.case_row(id).await?;
        let current = row.int("status").unwrap_or_default();
        let next = Status::of(current).and_then(Status::next);
        if next != Some(step.status) {
            let name = Status::of(current).map_or("none", Status::name);
            let may = next.map_or("nothing: open another investigation".to_owned(), |next| next.name().to_owned());
            return Err(EngineError::Refused(format!(
                "investigation {id} is {name}; what may follow is {may}, not {}",
                step.status.name()
            )));
        }
        let now = crate::now();
        let mut values: Values = vec![("status", step.status.number().into()), ("updated_at", now.into())];
        match (step.status, &step.outcome) {
            (Status::Resolved, None) => return Err(wrong("outcome", "is missing: say what came of it")),
            (Status::Resolved, Some(outcome)) => {
                if outcome.trim().is_empty() {
                    return Err(wrong("outcome", "must not be empty"));
                }
                values.push(fields::field(table, "outcome", &json!(outcome), &["outcome"])?);
                values.extend([("resolved_at", now.into()), ("resolved_by", by.user_id.into())]);
            }
            (_, Some(_)) => return Err(wrong("outcome", "is for resolved investigations")),
            (_, None) => {
                values.push(("started_at", now.into()));
                if row.int("assigned_to").is_none() {
                    values.push(("assigned_to", by.user_id.into()));
                }
            }
        }
        let mut changes = vec![RegisterChange::Update { table, id, values, expected: vec![("status", current.into())] }];
        if let Some(note) = &step.note {
            changes.push(note_of(id.into(), note_text(note)?, by)?);
        }
        self.store().db().change_registers(&changes, by).await.map_err(refused)?;
        self.case(id).await
    }

    /// Gives an investigation to a user, or to nobody.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] if it is resolved, or there is no such user.
    pub async fn assign_case(&self, id: i64, user: Option<i64>, by: &ChangedBy) -> Result<Json> {
        let row = self.unresolved(id).await?;
        let values = vec![("assigned_to", user.into()), ("updated_at", crate::now().into())];
        let expected = vec![("status", row.get("status").clone())];
        let change = RegisterChange::Update { table: register(INVESTIGATIONS)?, id, values, expected };
        self.store().db().change_registers(&[change], by).await.map_err(refused)?;
        self.case(id).await
    }

    /// Adds a note.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Parameter`] if the note is empty or too long.
    pub async fn note_case(&self, id: i64, note: &str, by: &ChangedBy) -> Result<Json> {
        self.case_row(id).await?;
        let note = note_text(note)?;
        self.store().db().change_registers(&[note_of(id.into(), note, by)?, touched(id)?], by).await.map_err(refused)?;
        self.case(id).await
    }

    /// An investigation that is not resolved.
    async fn unresolved(&self, id: i64) -> Result<RegisterRow> {
        let row = self.case_row(id).await?;
        if row.int("status") == Some(Status::Resolved.number()) {
            return Err(EngineError::Refused(format!("investigation {id} is resolved")));
        }
        Ok(row)
    }
}

fn touched(id: i64) -> Result<RegisterChange> {
    let values = vec![("updated_at", crate::now().into())];
    Ok(RegisterChange::Update { table: register(INVESTIGATIONS)?, id, values, expected: Vec::new() })
}

/// A note as it is stored.
fn note_text(note: &str) -> Result<Value> {
    if note.trim().is_empty() {
        return Err(wrong("note", "must not be empty"));
    }
    Ok(fields::field(register(NOTES)?, "note", &json!(note), &["note"])?.1)
}

fn note_of(case: Value, note: Value, by: &ChangedBy) -> Result<RegisterChange> {
    let author: String = by.username.chars().take(100).collect();
    let values = vec![("investigation_id", case), ("note", note), ("author_id", by.user_id.into()), ("author", author.into())];
    Ok(RegisterChange::Insert { table: register(NOTES)?, values })
}

/// A row with its state by name.
fn shown(table: &'static muniment_model::Table, row: &RegisterRow) -> Json {
    let mut case = fields::to_json(table, row);
    case["status"] = json!(row.int("status").and_then(Status::of).map_or("none", Status::name));
    case
}

fn refused(error: StoreError) -> EngineError {
    match &error {
        StoreError::Conflict { reason, .. } if reason.contains("FOREIGN KEY") => {
            EngineError::Refused("there is no such user, finding or investigation".to_owned())
        }
        StoreError::Conflict { .. } => EngineError::Refused("somebody changed it meanwhile; look at it and try again".to_owned()),
        _ => error.into(),
    }
}

/// Fields of an object that a caller may have sent.
pub(crate) type Object = Map<String, Json>;

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn states_follow_each_other_one_by_one() {
        for from in Status::ALL {
            let after: Vec<_> = Status::ALL.into_iter().filter(|to| from.next() == Some(*to)).map(Status::name).collect();
            let expected: &[&str] = match from {
                Status::Pending => &["in_progress"],
                Status::InProgress => &["resolved"],
                Status::Resolved => &[],
            };
            assert_eq!(after, expected);
        }
    }
}
