//! Rows of `rate_limit_violations`: one for each window in which somebody exceeded a limit, and the blocks that follow.

use super::guard::{Block, Counted};
use super::limit::{Call, Limit, window_key};
use crate::error::{EngineError, Result};
use muniment_model::{Table, table};
use muniment_store::register::{ChangedBy, Lookup, RegisterChange, RegisterRow, Value};
use muniment_store::{Store, StoreError};
use serde::Serialize;
use std::collections::HashMap;

/// Who writes what is derived.
pub(super) const ACTOR: &str = "muniment:limits";
/// Stands for an address that nobody knows.
const NO_ADDRESS: &str = "0.0.0.0";
const MINUTE: i64 = 60_000_000;
/// Most calls that a row can say.
const MOST_CALLS: i64 = i32::MAX as i64;

/// Somebody exceeded a limit in a window.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub limit: Limit,
    pub subject: String,
    pub window_start: i64,
    pub calls: i64,
    /// When, µs UTC.
    pub at: i64,
    pub user_id: Option<i64>,
    pub ip_address: Option<String>,
    pub endpoint: String,
    pub user_agent: Option<String>,
}

/// A row of the register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ViolationRow {
    /// Its number.
    pub id: i64,
    /// The limit.
    pub limit_name: Option<String>,
    /// Who was counted.
    pub subject: Option<String>,
    /// Which kind of limit.
    pub violation_type: Option<String>,
    /// User concerned.
    pub user_id: Option<i64>,
    /// Address it came from.
    pub ip_address: String,
    /// What was called.
    pub endpoint: String,
    /// Calls within the window.
    pub request_count: i64,
    /// Calls allowed.
    pub limit_threshold: i64,
    /// Length of the window, minutes, rounded up.
    pub time_window_minutes: i64,
    /// How long the sender is blocked.
    pub blocked_duration_minutes: i64,
    /// When, RFC 3339.
    pub created_at: String,
    /// When the block ended, or was lifted.
    pub unblocked_at: Option<String>,
    /// When the block will end, if it is in force.
    pub blocked_until: Option<String>,
}

pub(super) fn register() -> Result<&'static Table> {
    table("rate_limit_violations").ok_or_else(|| EngineError::NotFound("rate_limit_violations".to_owned()))
}

pub(super) fn actor() -> ChangedBy {
    ChangedBy { username: ACTOR.to_owned(), business_context: Some("Rate limits".to_owned()), ..ChangedBy::default() }
}

impl Violation {
    pub(super) fn new(limit: &Limit, subject: &str, window_start: i64, calls: i64, at: i64, call: &Call<'_>) -> Self {
        let cut = |text: &str, chars: usize| text.chars().take(chars).collect::<String>();
        Self {
            limit: limit.clone(),
            subject: subject.to_owned(),
            window_start,
            calls,
            at,
            user_id: call.user_id,
            ip_address: call.ip_address.map(|address| address.to_canonical().to_string()),
            endpoint: cut(call.endpoint, 255),
            user_agent: call.user_agent.map(|agent| cut(agent, 1000)),
        }
    }

    pub(super) fn key(&self) -> String {
        window_key(&self.limit.name, &self.subject, self.window_start)
    }

    /// Until when it blocks; `None` if its limit doesn't.
    pub(super) fn blocks_until(&self) -> Option<i64> {
        (self.limit.block_minutes > 0).then(|| self.at + self.limit.block_minutes * MINUTE)
    }

    /// The change that writes it down, or brings the count of its row up to date; `None` if the row says so already.
    pub(super) async fn change(&self, store: &Store) -> Result<Option<RegisterChange>> {
        if let Some(row) = row_of(store, &self.key()).await? {
            return recounted(&row, self.calls);
        }
        let calls = self.calls.min(MOST_CALLS);
        let address = self.ip_address.clone().unwrap_or_else(|| NO_ADDRESS.to_owned());
        let values = vec![
            ("user_id", known_user(store, self.user_id).await?.into()),
            ("ip_address", address.into()),
            ("endpoint", self.endpoint.as_str().into()),
            ("request_count", calls.into()),
            ("limit_threshold", self.limit.limit_threshold.into()),
            ("time_window_minutes", ((self.limit.time_window_seconds + 59) / 60).into()),
            ("violation_type", self.limit.counted_by.name().into()),
            ("user_agent", self.user_agent.clone().into()),
            ("blocked_duration_minutes", self.limit.block_minutes.into()),
            ("created_at", self.at.into()),
            ("limit_name", self.limit.name.as_str().into()),
            ("subject", self.subject.as_str().into()),
            ("window_start", self.window_start.into()),
            ("window_key", self.key().into()),
        ];
        Ok(Some(RegisterChange::Insert { table: register()?, values }))
    }
}

/// The change that brings the count of a window's row up to date; `None` if it says so already, or there is none.
pub(super) async fn recount(store: &Store, key: &str, calls: i64) -> Result<Option<RegisterChange>> {
    match row_of(store, key).await? {
        Some(row) => recounted(&row, calls),
        None => Ok(None),
    }
}

fn recounted(row: &RegisterRow, calls: i64) -> Result<Option<RegisterChange>> {
    let (table, calls, known) = (register()?, calls.min(MOST_CALLS), row.int("request_count").unwrap_or(0));
    let (values, expected) = (vec![("request_count", calls.into())], vec![("request_count", known.into())]);
    Ok((known < calls).then(|| RegisterChange::Update { table, id: row.id(), values, expected }))
}

/// The row of a violation, if its block has not been lifted.
pub(super) async fn standing(store: &Store, violation: &Violation) -> Result<Option<i64>> {
    let row = row_of(store, &violation.key()).await?;
    Ok(row.filter(|row| row.int("unblocked_at").is_none()).map(|row| row.id()))
}

async fn row_of(store: &Store, key: &str) -> Result<Option<RegisterRow>> {
    let lookup = Lookup::new(register()?, vec![("window_key", key.into())]);
    Ok(store.db().find_in_register(&lookup).await?.pop())
}

/// The user, if the directory has them: a violation of somebody unknown is kept without.
async fn known_user(store: &Store, user_id: Option<i64>) -> Result<Option<i64>> {
    let (Some(id), Some(users)) = (user_id, table("users")) else { return Ok(None) };
    let found = store.db().find_in_register(&Lookup::new(users, vec![("id", id.into())])).await?;
    Ok((!found.is_empty()).then_some(id))
}

/// Writes violations down. Somebody else may write to the same rows: then it is tried again.
pub(super) async fn write(store: &Store, violations: &[Violation]) -> Result<()> {
    const ATTEMPTS: usize = 5;
    for attempt in 1.. {
        let mut changes = Vec::new();
        for violation in violations {
            changes.extend(violation.change(store).await?);
        }
        if changes.is_empty() {
            return Ok(());
        }
        match store.db().change_registers(&changes, &actor()).await {
            Err(StoreError::Conflict { .. }) if attempt < ATTEMPTS => {}
            outcome => return Ok(outcome.map(drop)?),
        }
    }
    Ok(())
}

/// Blocks that are in force at this time, and rows whose blocks have ended but don't say so yet.
pub(super) async fn blocks(store: &Store, now: i64) -> Result<(HashMap<Counted, Block>, Vec<(i64, i64)>)> {
    let mut lookup = Lookup::new(register()?, vec![("unblocked_at", Value::Null)]);
    lookup.above = vec![("blocked_duration_minutes", 0.into())];
    let (mut standing, mut ended) = (HashMap::new(), Vec::new());
    for row in store.db().find_in_register(&lookup).await? {
        let until = blocked_until(&row);
        if until <= now {
            ended.push((row.id(), until));
        } else if let (Some(limit), Some(subject)) = (row.text("limit_name"), row.text("subject")) {
            standing.insert((limit.to_owned(), subject.to_owned()), Block { violation: row.id(), until });
        }
    }
    Ok((standing, ended))
}

fn blocked_until(row: &RegisterRow) -> i64 {
    row.int("created_at").unwrap_or(0) + row.int("blocked_duration_minutes").unwrap_or(0) * MINUTE
}

/// Writes down when blocks have ended.
pub(super) async fn end_blocks(store: &Store, ended: &[(i64, i64)]) -> Result<()> {
    let register = register()?;
    for (id, at) in ended {
        let change = RegisterChange::Update {
            table: register,
            id: *id,
            values: vec![("unblocked_at", (*at).into())],
            expected: vec![("unblocked_at", Value::Null)],
        };
        let by = ChangedBy { reason: Some("the block has ended".to_owned()), ..actor() };
        match store.db().change_registers(&[change], &by).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Lifts a block. Returns its row, and who was blocked.
pub(super) async fn lift(store: &Store, id: i64, by: &ChangedBy, now: i64) -> Result<(ViolationRow, Option<Counted>)> {
    let register = register()?;
    let lookup = Lookup::new(register, vec![("id", id.into())]);
    let found = store.db().find_in_register(&lookup).await?.pop().ok_or_else(|| EngineError::NotFound(format!("violation {id}")))?;
    let refuse = |reason: &str| Err(EngineError::Refused(format!("violation {id} {reason}")));
    if found.int("blocked_duration_minutes").unwrap_or(0) == 0 {
        return refuse("blocks nobody");
    }
    if found.int("unblocked_at").is_some() || blocked_until(&found) <= now {
        return refuse("blocks nobody any more");
    }
    let change = RegisterChange::Update {
        table: register,
        id,
        values: vec![("unblocked_at", now.into())],
        expected: vec![("unblocked_at", Value::Null)],
    };
    store.db().change_registers(&[change], by).await?;
    let counted = found.text("limit_name").zip(found.text("subject")).map(|(limit, subject)| (limit.to_owned(), subject.to_owned()));
    let row = store.db().find_in_register(&lookup).await?.pop().unwrap_or(found);
    Ok((view(&row, now), counted))
}

/// Violations, newest first; `blocked`: only those whose block is in force.
pub(super) async fn list(store: &Store, blocked: bool, limit: u32, now: i64) -> Result<Vec<ViolationRow>> {
    let mut lookup = Lookup::new(register()?, Vec::new());
    if blocked {
        lookup.equal = vec![("unblocked_at", Value::Null)];
        lookup.above = vec![("blocked_duration_minutes", 0.into())];
    }
    lookup.newest_first = true;
    if !blocked {
        lookup.limit = limit;
    }
    let rows = store.db().find_in_register(&lookup).await?;
    let wanted = rows.iter().filter(|row| !blocked || blocked_until(row) > now).take(limit as usize);
    Ok(wanted.map(|row| view(row, now)).collect())
}

fn view(row: &RegisterRow, now: i64) -> ViolationRow {
    let text = |name| row.text(name).map(str::to_owned);
    let number = |name| row.int(name).unwrap_or(0);
    let blocks = number("blocked_duration_minutes") > 0 && row.int("unblocked_at").is_none() && blocked_until(row) > now;
    ViolationRow {
        id: row.id(),
        limit_name: text("limit_name"),
        subject: text("subject"),
        violation_type: text("violation_type"),
        user_id: row.int("user_id"),
        ip_address: text("ip_address").unwrap_or_default(),
        endpoint: text("endpoint").unwrap_or_default(),
        request_count: number("request_count"),
        limit_threshold: number("limit_threshold"),
        time_window_minutes: number("time_window_minutes"),
        blocked_duration_minutes: number("blocked_duration_minutes"),
        created_at: crate::history::format_time(number("created_at")),
        unblocked_at: row.int("unblocked_at").map(crate::history::format_time),
        blocked_until: blocks.then(|| crate::history::format_time(blocked_until(row))),
    }
}
