//! Sessions from `auth_audit_log`: each record is taken once, in commit order. A log-in opens a session, a log-out ends it, anything else that succeeds in it is activity.
//!
//! A session that has ended stays so, whatever comes late: a log-in that arrives after its log-out adds what it knows. Records without `session_id` say nothing about
//! sessions.

use super::{SESSIONS, TOUCH_EVERY, acting, finding};
use crate::engine::Engine;
use crate::error::Result;
use crate::fields::register;
use crate::follow::{Consumer, Following, Outcome};
use crate::history::parse_time;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use async_trait::async_trait;
use muniment_model::Table;
use muniment_store::register::{Lookup, RegisterChange, RegisterRow, Value, Values};
use std::collections::{BTreeMap, BTreeSet};

const OPENING: [&str; 4] = ["LOGIN", "LOGIN_SUCCESS", "SESSION_START", "SESSION_CREATED"];
const ENDING: [&str; 8] =
    ["LOGOUT", "LOGOUT_SUCCESS", "FORCED_LOGOUT", "SESSION_END", "SESSION_ENDED", "SESSION_REVOKED", "SESSION_TIMEOUT", "SESSION_EXPIRED"];

/// Records taken at once: of each, a session and a user may follow.
const SLICE: u64 = 1000;

/// What follows `auth_audit_log`.
pub(crate) fn following() -> Result<Following> {
    Ok(Following {
        name: "sessions",
        log: register("auth_audit_log")?,
        columns: &[
            "user_id",
            "event_type",
            "event_status",
            "ip_address",
            "user_agent",
            "device_fingerprint",
            "location",
            "details",
            "session_id",
            "created_at",
        ],
        slice: SLICE,
        by: acting(),
        consumer: Box::new(Sessions),
    })
}

struct Sessions;

/// A record that says something about a session.
#[derive(Debug, Default)]
struct Event {
    session_id: String,
    user: Option<i64>,
    kind: Kind,
    at: i64,
    /// Columns of the session that it fills in.
    known: Values,
    reason: Option<String>,
    expires_at: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    Opens,
    Ends,
    #[default]
    Uses,
}

/// A session as the records so far leave it.
#[derive(Debug)]
struct Draft {
    id: Option<i64>,
    before: RegisterRow,
    values: BTreeMap<&'static str, Value>,
}

impl Draft {
    fn new(session_id: &str, row: Option<RegisterRow>) -> Self {
        let id = row.as_ref().map(RegisterRow::id);
        let before = row.unwrap_or_else(|| RegisterRow { values: Vec::new() });
        let values = before.values.iter().filter(|(name, _)| *name != "id").cloned();
        let mut values: BTreeMap<_, _> = values.collect();
        values.insert("session_id", session_id.into());
        Self { id, before, values }
    }

    fn int(&self, name: &str) -> Option<i64> {
        if let Some(Value::Int(value)) = self.values.get(name) { Some(*value) } else { None }
    }

    fn is_open(&self, at: i64) -> bool {
        self.values.get("is_active") == Some(&Value::Bool(true)) && self.int("expires_at").is_some_and(|end| end > at)
    }

    /// Fills in what was not known.
    fn learn(&mut self, event: &Event) {
        let user = ("user_id", Value::from(event.user));
        for (name, value) in event.known.iter().chain([&user]) {
            let known = self.values.entry(name).or_insert(Value::Null);
            if *known == Value::Null {
                *known = value.clone();
            }
        }
    }

    /// Takes an event; whether it opened the session.
    fn take(&mut self, event: &Event, lifetime: i64) -> bool {
        let fresh = !self.values.contains_key("is_active");
        if fresh && event.kind == Kind::Uses {
            return false;
        }
        self.learn(event);
        if fresh {
            self.values.insert("created_at", event.at.into());
            self.values.insert("last_activity_at", event.at.into());
            self.values.insert("expires_at", event.expires_at.unwrap_or(event.at.saturating_add(lifetime)).into());
            self.values.insert("is_active", true.into());
        }
        if event.kind == Kind::Opens && self.int("created_at").is_some_and(|created| event.at < created) {
            self.values.insert("created_at", event.at.into());
        }
        // Late records don't turn back the time, and one that is not much later is not worth a change that is put on the record.
        let last = self.int("last_activity_at").unwrap_or(i64::MIN);
        if event.at >= last.saturating_add(TOUCH_EVERY) {
            self.values.insert("last_activity_at", event.at.into());
        }
        if event.kind == Kind::Ends && self.values.get("is_active") == Some(&Value::Bool(true)) {
            self.values.insert("is_active", false.into());
            self.values.insert("logout_at", event.at.into());
            self.values.insert("logout_reason", event.reason.clone().into());
        }
        fresh && event.kind == Kind::Opens
    }

    fn into_change(self, table: &'static Table) -> Option<RegisterChange> {
        if !self.values.contains_key("is_active") {
            return None;
        }
        let Some(id) = self.id else {
            return Some(RegisterChange::Insert { table, values: self.values.into_iter().collect() });
        };
        let values: Values = self.values.into_iter().filter(|(name, value)| self.before.get(name) != value).collect();
        let expected = vec![("is_active", self.before.get("is_active").clone())];
        (!values.is_empty()).then_some(RegisterChange::Update { table, id, values, expected })
    }
}

#[async_trait]
impl Consumer for Sessions {
    fn restore(&mut self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn take(&mut self, engine: &Engine, records: &[RecordBatch]) -> Result<Outcome> {
        let table = register(SESSIONS)?;
        let (db, config) = (engine.store().db(), engine.config().sessions);
        let mut drafts: BTreeMap<String, Draft> = BTreeMap::new();
        let mut outcome = Outcome::default();
        for event in records.iter().flat_map(events) {
            if !drafts.contains_key(&event.session_id) {
                let row = db.find_in_register(&Lookup::new(table, vec![("session_id", event.session_id.as_str().into())])).await?.pop();
                drafts.insert(event.session_id.clone(), Draft::new(&event.session_id, row));
            }
            let Some(draft) = drafts.get_mut(&event.session_id) else { continue };
            let opened = draft.take(&event, config.lifetime_micros());
            if let Some(user) = event.user.filter(|_| opened && config.concurrent > 0) {
                let open = open_of(engine, &drafts, user, event.at).await?;
                if open > config.concurrent as usize {
                    let address = event.known.iter().find(|(name, _)| *name == "ip_address").and_then(|(_, value)| match value {
                        Value::Text(text) => Some(text.as_str()),
                        _ => None,
                    });
                    let line = finding(user, &event.session_id, address, open, config.concurrent, event.at);
                    outcome.records.push(("security_audit_log", line));
                }
            }
        }
        outcome.changes = missing_users(engine, &drafts).await?;
        outcome.changes.extend(drafts.into_values().filter_map(|draft| draft.into_change(table)));
        Ok(outcome)
    }
}

/// Sessions that a user has open at a time: those of the register, but for what the drafts say of them, and those of the drafts.
async fn open_of(engine: &Engine, drafts: &BTreeMap<String, Draft>, user: i64, at: i64) -> Result<usize> {
    let lookup = Lookup::new(register(SESSIONS)?, vec![("user_id", user.into()), ("is_active", true.into())]);
    let rows = engine.store().db().find_in_register(&lookup).await?;
    let stored =
        rows.iter().filter(|row| !drafts.contains_key(row.text("session_id").unwrap_or_default()) && super::is_open(row, at)).count();
    let drafted = drafts.values().filter(|draft| draft.values.get("user_id") == Some(&Value::Int(user)) && draft.is_open(at)).count();
    Ok(stored + drafted)
}

/// Users that the directory doesn't have: a session can't be stored without them.
async fn missing_users(engine: &Engine, drafts: &BTreeMap<String, Draft>) -> Result<Vec<RegisterChange>> {
    let users = register("users")?;
    let mentioned: BTreeSet<i64> = drafts.values().filter(|draft| draft.id.is_none()).filter_map(|draft| draft.int("user_id")).collect();
    let mut changes = Vec::new();
    for id in mentioned {
        if engine.store().db().find_in_register(&Lookup::new(users, vec![("id", id.into())])).await?.is_empty() {
            let username = format!("user-{id}");
            let values = vec![("id", id.into()), ("username", username.into()), ("source", "first_sight".into())];
            changes.push(RegisterChange::Insert { table: users, values });
        }
    }
    Ok(changes)
}

/// What the records of a batch say about sessions.
fn events(batch: &RecordBatch) -> Vec<Event> {
    (0..batch.num_rows()).filter_map(|row| event(batch, row)).collect()
}

fn event(batch: &RecordBatch, row: usize) -> Option<Event> {
    let text = |name: &str| {
        let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let session_id = text("session_id").filter(|id| !id.is_empty())?;
    let status = text("event_status").unwrap_or_default();
    if !status.eq_ignore_ascii_case("SUCCESS") {
        return None;
    }
    let users = batch.column_by_name("user_id")?.as_primitive_opt::<Int64Type>()?;
    let times = batch.column_by_name("created_at")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    let event_type = text("event_type").unwrap_or_default().to_ascii_uppercase();
    let details: serde_json::Value = text("details").and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let kind = match event_type.as_str() {
        opens if OPENING.contains(&opens) => Kind::Opens,
        ends if ENDING.contains(&ends) => Kind::Ends,
        _ => Kind::Uses,
    };
    let said = details["reason"].as_str().map(|reason| reason.chars().take(255).collect::<String>());
    let expires_at = details["expires_at"].as_i64().or_else(|| details["expires_at"].as_str().and_then(|text| parse_time(text).ok()));
    let known = ["ip_address", "user_agent", "device_fingerprint", "location"].map(|name| (name, Value::from(text(name))));
    Some(Event {
        session_id,
        user: users.is_valid(row).then(|| users.value(row)).filter(|id| *id >= 1),
        kind,
        at: times.is_valid(row).then(|| times.value(row))?,
        known: known.to_vec(),
        reason: Some(said.unwrap_or(event_type)),
        expires_at,
    })
}
