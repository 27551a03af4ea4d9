//! Reading masked contents in clear, for a reason: the request, the decision of a second person where one is asked for, and what a grant shows to whom until when.
//!
//! A grant never shows more than the table it is for, and nothing at all of a table that the principal may not read. It is used by naming it with each reading, which
//! is recorded with it; whoever doesn't name it sees masks as before.

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use muniment_access::{Cleared, Principal, View, Views};
use muniment_model::Table;
pub use muniment_store::register::ChangedBy;
use muniment_store::register::{Lookup, RegisterChange, RegisterRow, Value, Values};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Records that one grant names at most.
pub const MAX_RECORDS: usize = 1000;
/// Most characters of a reason or a note.
pub const MAX_REASON_CHARS: usize = 500;
/// Time for which a grant is good unless the request says otherwise.
const DEFAULT_MINUTES: u32 = 60;

/// How unmasking is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmaskingRules {
    /// Whether somebody else has to approve.
    pub approval: bool,
    /// Longest time for which a grant is good.
    pub longest: Duration,
}

impl Default for UnmaskingRules {
    fn default() -> Self {
        Self { approval: true, longest: Duration::from_secs(24 * 3600) }
    }
}

/// A row of an audited table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntityName {
    /// The table, such as `case.hoso`.
    pub table: String,
    /// Key of the row, as text.
    pub key: String,
}

/// What somebody wants to see in clear, and why.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnmaskingRequest {
    /// The log or register.
    pub table: String,
    /// Why.
    pub reason: String,
    /// Only these records.
    pub ids: Option<BTreeSet<i64>>,
    /// Only the changes of this row; for `sys_audit_log`.
    pub entity: Option<EntityName>,
    /// For how long, from the request on.
    pub minutes: Option<u32>,
}

/// What whoever decides says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmaskingDecision {
    /// It is allowed.
    Approve,
    /// It is not.
    Refuse,
    /// Whoever asked, or whoever may decide, ends it.
    End,
}

/// A request with what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Grant {
    /// Its number, by which it is used.
    pub id: i64,
    /// The log or register.
    pub table: String,
    /// The records that it is limited to.
    pub ids: Option<BTreeSet<i64>>,
    /// The row that it is limited to.
    pub entity: Option<EntityName>,
    /// Why.
    pub reason: String,
    /// `PENDING`, `APPROVED`, `REFUSED` or `ENDED`.
    pub status: String,
    /// Who asked, by name.
    pub requested_by: String,
    /// When, µs UTC.
    pub requested_at: i64,
    /// Time from which it shows nothing, µs UTC.
    pub expires_at: i64,
    /// Who decided, by name.
    pub decided_by: Option<String>,
    /// When, µs UTC.
    pub decided_at: Option<i64>,
    /// What they had to say.
    pub decision_note: Option<String>,
    #[serde(skip)]
    user: Option<i64>,
    #[serde(skip)]
    key: Option<i64>,
}

fn register() -> Result<&'static Table> {
    muniment_model::table("unmasking_grants").ok_or_else(|| EngineError::NotFound("the register of unmasking".to_owned()))
}

fn wrong(name: &'static str, reason: impl Into<String>) -> EngineError {
    EngineError::Parameter { name, reason: reason.into() }
}

impl Grant {
    fn read(row: &RegisterRow) -> Self {
        let some = |name| row.text(name).map(str::to_owned);
        let text = |name| some(name).unwrap_or_default();
        let entity = some("entity_table").zip(some("entity_key")).map(|(table, key)| EntityName { table, key });
        Self {
            id: row.id(),
            table: text("table_name"),
            // What can't be read shows nothing.
            ids: row.text("record_ids").map(|ids| serde_json::from_str(ids).unwrap_or_default()),
            entity,
            reason: text("reason"),
            status: text("status"),
            requested_by: text("requested_by_name"),
            requested_at: row.int("requested_at").unwrap_or_default(),
            expires_at: row.int("expires_at").unwrap_or_default(),
            decided_by: some("decided_by_name"),
            decided_at: row.int("decided_at"),
            decision_note: some("decision_note"),
            user: row.int("requested_by"),
            key: row.int("requested_key"),
        }
    }

    /// Whether this principal asked for it: the same person, or, of a key that is nobody's, the same key.
    pub fn is_of(&self, principal: &Principal) -> bool {
        match (self.user, principal.user_id) {
            (Some(asked), Some(user)) => asked == user,
            (None, None) => self.key.is_some() && self.key == principal.key_id,
            _ => false,
        }
    }

    /// Whether this principal could be the one who asked: by person, by key, or by name.
    fn may_be_of(&self, principal: &Principal) -> bool {
        self.is_of(principal) || (self.key.is_some() && self.key == principal.key_id) || self.requested_by == principal.name
    }

    /// The table as this grant shows it.
    fn shown(&self, table: &Table, view: View) -> View {
        match (&self.ids, &self.entity) {
            (Some(ids), _) => view.clearing(Cleared::Ids(ids.clone())),
            (None, Some(EntityName { table, key })) => view.clearing(Cleared::Entity { table: table.clone(), key: key.clone() }),
            (None, None) => view.unmasked(table),
        }
    }
}

fn checked(request: &UnmaskingRequest, rules: &UnmaskingRules) -> Result<(&'static Table, Duration)> {
    let table = muniment_model::table(&request.table).ok_or_else(|| wrong("table", format!("there is no table {}", request.table)))?;
    let said = request.reason.trim().chars().count();
    if !(1..=MAX_REASON_CHARS).contains(&said) {
        return Err(wrong("reason", format!("say in 1 to {MAX_REASON_CHARS} characters why it is needed")));
    }
    if request.ids.as_ref().is_some_and(|ids| !(1..=MAX_RECORDS).contains(&ids.len())) {
        return Err(wrong("ids", format!("name 1 to {MAX_RECORDS} records, or none for all")));
    }
    if let Some(entity) = &request.entity {
        if request.ids.is_some() {
            return Err(wrong("entity", "it is limited by ids or by an entity, not by both"));
        }
        if table.name != "sys_audit_log" {
            return Err(wrong("entity", "entities are known to sys_audit_log only"));
        }
        if entity.table.chars().count() > 128 || entity.key.chars().count() > 100 {
            return Err(wrong("entity", "a table has at most 128 characters, a key 100"));
        }
    }
    let time = Duration::from_secs(60 * u64::from(request.minutes.unwrap_or(DEFAULT_MINUTES)));
    if time.is_zero() || time > rules.longest {
        return Err(wrong("minutes", format!("a grant is good for 1 to {} minutes", rules.longest.as_secs() / 60)));
    }
    Ok((table, time))
}

impl Engine {
    /// Asks for masked contents in clear. Where no approval is asked for, the grant is good at once.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] names what is not valid.
    pub async fn request_unmasking(&self, principal: &Principal, by: &ChangedBy, request: &UnmaskingRequest) -> Result<Grant> {
        let rules = &self.config().unmasking;
        let (table, time) = checked(request, rules)?;
        let now = crate::now();
        let ids = request.ids.as_ref().map(serde_json::to_string).transpose();
        let ids = ids.map_err(|error| wrong("ids", error.to_string()))?;
        let (entity_table, entity_key) = request.entity.clone().map(|entity| (entity.table, entity.key)).unzip();
        let mut values: Values = vec![
            ("table_name", table.name.into()),
            ("record_ids", ids.into()),
            ("entity_table", entity_table.into()),
            ("entity_key", entity_key.into()),
            ("reason", request.reason.trim().into()),
            ("requested_by", principal.user_id.into()),
            ("requested_by_name", principal.name.as_str().into()),
            ("requested_key", principal.key_id.into()),
            ("requested_at", now.into()),
            ("expires_at", (now + time.as_micros() as i64).into()),
        ];
        if !rules.approval {
            values.extend([("status", Value::from("APPROVED")), ("decided_by_name", "muniment".into()), ("decided_at", now.into())]);
        }
        let by = ChangedBy { reason: Some(request.reason.trim().to_owned()), ..by.clone() };
        let ids = self.store().db().change_registers(&[RegisterChange::Insert { table: register()?, values }], &by).await?;
        self.unmasking(ids.first().copied().unwrap_or_default()).await
    }

    /// One request.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is none of this number.
    pub async fn unmasking(&self, id: i64) -> Result<Grant> {
        let rows = self.store().db().find_in_register(&Lookup::new(register()?, vec![("id", id.into())])).await?;
        rows.first().map(Grant::read).ok_or_else(|| EngineError::NotFound(format!("unmasking {id}")))
    }

    /// Requests after this number, oldest first, at most `limit`.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn unmaskings(&self, after: i64, limit: u32) -> Result<Vec<Grant>> {
        let lookup = Lookup { after, limit, ..Lookup::new(register()?, Vec::new()) };
        Ok(self.store().db().find_in_register(&lookup).await?.iter().map(Grant::read).collect())
    }

    /// Decides about a request, or ends a grant.
    ///
    /// # Errors
    /// [`EngineError::Refused`] if it stands otherwise by now, or is the principal's own.
    pub async fn decide_unmasking(
        &self,
        principal: &Principal,
        by: &ChangedBy,
        id: i64,
        (decision, note): (UnmaskingDecision, Option<String>),
    ) -> Result<Grant> {
        if note.as_ref().is_some_and(|note| note.chars().count() > MAX_REASON_CHARS) {
            return Err(wrong("note", format!("it has at most {MAX_REASON_CHARS} characters")));
        }
        let grant = self.unmasking(id).await?;
        let now = crate::now();
        if decision != UnmaskingDecision::End && grant.may_be_of(principal) {
            return Err(EngineError::Refused("nobody decides about their own request; ask a second person".to_owned()));
        }
        let fits = match decision {
            UnmaskingDecision::Approve => grant.status == "PENDING" && grant.expires_at > now,
            UnmaskingDecision::Refuse => grant.status == "PENDING",
            UnmaskingDecision::End => matches!(grant.status.as_str(), "PENDING" | "APPROVED"),
        };
        if !fits {
            let expired = if grant.expires_at <= now { " and has expired" } else { "" };
            return Err(EngineError::Refused(format!("unmasking {id} is {}{expired}", grant.status)));
        }
        let decided = |status: &str| -> Values {
            vec![
                ("status", status.into()),
                ("decided_by", principal.user_id.into()),
                ("decided_by_name", principal.name.as_str().into()),
                ("decided_at", now.into()),
                ("decision_note", note.clone().into()),
            ]
        };
        let values = match decision {
            UnmaskingDecision::Approve => decided("APPROVED"),
            UnmaskingDecision::Refuse => decided("REFUSED"),
            UnmaskingDecision::End => vec![("status", "ENDED".into()), ("ended_at", now.into())],
        };
        let expected = vec![("status", grant.status.as_str().into())];
        let by = ChangedBy { reason: note.or(by.reason.clone()), ..by.clone() };
        let change = RegisterChange::Update { table: register()?, id, values, expected };
        self.store().db().change_registers(&[change], &by).await?;
        self.unmasking(id).await
    }

    /// What a principal sees who uses a grant.
    ///
    /// # Errors
    /// [`EngineError::Refused`] if it is somebody else's, or not good (any more).
    pub async fn unmasked_views(&self, principal: &Principal, id: i64, views: Views) -> Result<Views> {
        let grant = self.unmasking(id).await?;
        if !grant.is_of(principal) {
            return Err(EngineError::NotFound(format!("unmasking {id}")));
        }
        if grant.status != "APPROVED" || grant.expires_at <= crate::now() {
            let state = if grant.status == "APPROVED" { "EXPIRED" } else { &grant.status };
            return Err(EngineError::Refused(format!("unmasking {id} is {state}")));
        }
        let Some(table) = muniment_model::table(&grant.table) else { return Ok(views) };
        let shown = grant.shown(table, views.of(table.name).clone());
        Ok(views.with(table, shown))
    }
}
