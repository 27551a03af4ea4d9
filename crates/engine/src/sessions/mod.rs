//! Sessions of users: derived from the log-ins and log-outs in `auth_audit_log`, or told by the application itself. They end by log-out, with a reason, or by
//! expiry. More sessions of a user at once than allowed are a finding.

mod derive;
#[cfg(test)]
mod tests;

pub(crate) use derive::following;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::fields::{self, register, wrong};
use crate::ingest::IngestRequest;
use muniment_model::Format;
use muniment_store::StoreError;
use muniment_store::register::{ChangedBy, Lookup, RegisterChange, RegisterRow, Value, Values};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SESSIONS: &str = "user_sessions";
/// Why a session ended whose time was over.
const EXPIRED: &str = "EXPIRED";
/// The time of the last activity is stored when it is older than this: a busy session would otherwise be written, and put on the record, with each request.
const TOUCH_EVERY: i64 = 60_000_000;
/// Most sessions of a page.
pub const MOST_SESSIONS: u32 = 1000;
/// Sessions that are found to be over at a time.
const EXPIRE_AT_ONCE: u32 = 500;
/// Longest that a session may be said to last.
const LONGEST: i64 = 366 * 86_400 * 1_000_000;
/// Fields that a new session may be given.
const NEW: [&str; 7] = ["session_id", "user_id", "device_fingerprint", "ip_address", "user_agent", "location", "expires_at"];

/// How long sessions last, and how many a user may have.
#[derive(Clone, Copy, Debug)]
pub struct SessionConfig {
    /// Time after which a session ends whose end nobody gave.
    pub lifetime: Duration,
    /// Sessions that a user may have at once; 0 for any number. More are a finding, and not refused.
    pub concurrent: u32,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(12 * 3600), concurrent: 5 }
    }
}

impl SessionConfig {
    fn lifetime_micros(&self) -> i64 {
        i64::try_from(self.lifetime.as_micros()).unwrap_or(LONGEST).min(LONGEST)
    }
}

/// Which sessions are wanted; what is not given doesn't matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionFilter {
    /// Only those that are open, or only those that are not.
    pub active: Option<bool>,
    /// Of this user.
    pub user_id: Option<i64>,
    /// With this device.
    pub device_fingerprint: Option<String>,
    /// From this address.
    pub ip_address: Option<std::net::IpAddr>,
    /// Only those after this number.
    pub after: Option<i64>,
    /// This many at most.
    pub limit: Option<u32>,
}

/// What open sessions are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CountBy {
    /// Users.
    User,
    /// Devices.
    Device,
    /// Addresses.
    Address,
}

impl CountBy {
    fn column(self) -> &'static str {
        match self {
            Self::User => "user_id",
            Self::Device => "device_fingerprint",
            Self::Address => "ip_address",
        }
    }
}

/// Whether a session is open at a time: nobody ended it, and its own end is not reached.
fn is_open(row: &RegisterRow, now: i64) -> bool {
    row.bool("is_active") && row.int("expires_at").is_some_and(|end| end > now)
}

/// The line that says that a user has too many sessions.
fn finding(user: i64, session: &str, address: Option<&str>, open: usize, allowed: u32, at: i64) -> String {
    json!({
        "event_type": "CONCURRENT_SESSIONS", "event_category": "AUTHENTICATION", "severity": 2, "user_id": user,
        "session_id": session.chars().take(128).collect::<String>(), "ip_address": address.unwrap_or("0.0.0.0"),
        "failure_reason": format!("user {user} has {open} sessions at once; {allowed} are allowed"),
        "event_time": at, "requires_investigation": true,
    })
    .to_string()
}

impl Engine {
    /// Sessions by number, each as a JSON object.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn sessions(&self, filter: &SessionFilter) -> Result<Vec<Json>> {
        let table = register(SESSIONS)?;
        let mut equal: Values = Vec::new();
        equal.extend(filter.active.map(|active| ("is_active", Value::from(active))));
        equal.extend(filter.user_id.map(|user| ("user_id", Value::from(user))));
        equal.extend(filter.device_fingerprint.clone().map(|device| ("device_fingerprint", Value::from(device))));
        equal.extend(filter.ip_address.map(|address| ("ip_address", Value::from(address.to_string()))));
        let limit = filter.limit.unwrap_or(100).clamp(1, MOST_SESSIONS);
        // One whose time is over is not open, even if nobody has noticed yet.
        let above: Values = if filter.active == Some(true) { vec![("expires_at", crate::now().into())] } else { Vec::new() };
        let lookup = Lookup { above, after: filter.after.unwrap_or(i64::MIN), limit, ..Lookup::new(table, equal) };
        let rows = self.store().db().find_in_register(&lookup).await?;
        Ok(rows.iter().map(|row| fields::to_json(table, row)).collect())
    }

    /// How many sessions are open, by user, device or address; most first.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn open_sessions(&self, by: CountBy) -> Result<Vec<Json>> {
        let table = register(SESSIONS)?;
        let rows = self.store().db().find_in_register(&Lookup::new(table, vec![("is_active", true.into())])).await?;
        let (now, column) = (crate::now(), by.column());
        let mut counts: BTreeMap<&Value, (usize, i64)> = BTreeMap::new();
        for row in rows.iter().filter(|row| is_open(row, now)) {
            let (count, newest) = counts.entry(row.get(column)).or_default();
            *count += 1;
            *newest = (*newest).max(row.int("last_activity_at").unwrap_or_default());
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let shown = |value: &Value| match value {
            Value::Int(number) => json!(number),
            Value::Text(text) => json!(text),
            _ => Json::Null,
        };
        let line = |(value, (count, newest)): (&Value, (usize, i64))| json!({ column: shown(value), "sessions": count, "last_activity_at": fields::time(newest) });
        Ok(counts.into_iter().map(line).collect())
    }

    /// A session.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such session.
    pub async fn session(&self, session_id: &str) -> Result<Json> {
        Ok(fields::to_json(register(SESSIONS)?, &self.session_row(session_id).await?))
    }

    async fn session_row(&self, session_id: &str) -> Result<RegisterRow> {
        let lookup = Lookup::new(register(SESSIONS)?, vec![("session_id", session_id.into())]);
        let found = self.store().db().find_in_register(&lookup).await?.pop();
        found.ok_or_else(|| EngineError::NotFound(format!("session {session_id:?}")))
    }

    /// Opens a session; without a `session_id` it gets one. The answer also says how many sessions the user has open now, and whether that is more than allowed.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] names the field that is wrong; [`EngineError::Refused`] if there is a session of this name, or no such user.
    pub async fn start_session(self: &Arc<Self>, object: &Map<String, Json>, by: &ChangedBy) -> Result<Json> {
        let (table, now) = (register(SESSIONS)?, crate::now());
        let mut values = fields::values(table, object, &NEW)?;
        let has = |values: &Values, name: &str| values.iter().any(|(given, value)| *given == name && *value != Value::Null);
        if !has(&values, "session_id") {
            values.retain(|(name, _)| *name != "session_id");
            values.push(("session_id", uuid::Uuid::new_v4().to_string().into()));
        }
        if !has(&values, "expires_at") {
            values.push(("expires_at", (now + self.config().sessions.lifetime_micros()).into()));
        }
        values.extend([("created_at", now.into()), ("last_activity_at", now.into())]);
        let row = RegisterRow { values: values.clone() };
        if !row.int("expires_at").is_some_and(|end| end > now && end - now <= LONGEST) {
            return Err(wrong("expires_at", "must lie in the future, at most 366 days from now"));
        }
        let inserted = self.store().db().change_registers(&[RegisterChange::Insert { table, values }], by).await;
        inserted.map_err(refused)?;
        let session_id = row.text("session_id").unwrap_or_default();
        let mut answer = self.session(session_id).await?;
        if let Some(user) = row.int("user_id") {
            let open = self.open_of(user, now).await?;
            let allowed = self.config().sessions.concurrent;
            let over = allowed > 0 && open > allowed as usize;
            (answer["open_sessions"], answer["over_limit"]) = (json!(open), json!(over));
            if over {
                let line = finding(user, session_id, row.text("ip_address"), open, allowed, now);
                let key = Some(format!("session:{session_id}"));
                let request = IngestRequest {
                    log: "security_audit_log",
                    body: line.into(),
                    format: Format::Json,
                    idempotency_key: key,
                    position: None,
                };
                self.ingest(request).await?;
            }
        }
        Ok(answer)
    }

    async fn open_of(&self, user: i64, now: i64) -> Result<usize> {
        let lookup = Lookup::new(register(SESSIONS)?, vec![("user_id", user.into()), ("is_active", true.into())]);
        Ok(self.store().db().find_in_register(&lookup).await?.iter().filter(|row| is_open(row, now)).count())
    }

    /// Notes that a session is in use, and gives it another end if one is given. The time is stored once a minute at most.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] if the session is over.
    pub async fn touch_session(&self, session_id: &str, object: &Map<String, Json>, by: &ChangedBy) -> Result<Json> {
        let (table, now) = (register(SESSIONS)?, crate::now());
        let row = self.session_row(session_id).await?;
        let mut values = fields::values(table, object, &["expires_at"])?;
        if !is_open(&row, now) {
            let why = row.text("logout_reason").unwrap_or(EXPIRED);
            return Err(EngineError::Refused(format!("session {session_id:?} is over: {why}")));
        }
        if values.iter().any(|(_, value)| !matches!(value, Value::Int(end) if *end > now && end - now <= LONGEST)) {
            return Err(wrong("expires_at", "must lie in the future, at most 366 days from now"));
        }
        if !values.is_empty() || now - row.int("last_activity_at").unwrap_or_default() >= TOUCH_EVERY {
            values.push(("last_activity_at", now.into()));
            let expected = vec![("is_active", true.into())];
            self.store()
                .db()
                .change_registers(&[RegisterChange::Update { table, id: row.id(), values, expected }], by)
                .await
                .map_err(refused)?;
        }
        self.session(session_id).await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] if it is over already.
    pub async fn end_session(&self, session_id: &str, reason: &str, by: &ChangedBy) -> Result<Json> {
        let table = register(SESSIONS)?;
        let reason = fields::field(table, "logout_reason", &json!(reason), &["logout_reason"])?;
        if reason.1 == Value::Text(String::new()) {
            return Err(wrong("reason", "must not be empty"));
        }
        let row = self.session_row(session_id).await?;
        if !row.bool("is_active") {
            return Err(EngineError::Refused(format!("session {session_id:?} is over: {}", row.text("logout_reason").unwrap_or("ended"))));
        }
        let values = vec![("is_active", false.into()), ("logout_at", crate::now().into()), reason];
        let change = RegisterChange::Update { table, id: row.id(), values, expected: vec![("is_active", true.into())] };
        self.store().db().change_registers(&[change], by).await.map_err(refused)?;
        self.session(session_id).await
    }

    /// Ends the sessions whose time is over; how many they were.
    ///
    /// # Errors
    /// If the register can't be read or written.
    pub(crate) async fn expire_sessions(&self) -> Result<usize> {
        let (table, now) = (register(SESSIONS)?, crate::now());
        let up_to = vec![("expires_at", now.into())];
        let lookup = Lookup { up_to, limit: EXPIRE_AT_ONCE, ..Lookup::new(table, vec![("is_active", true.into())]) };
        let over: Vec<RegisterChange> = self
            .store()
            .db()
            .find_in_register(&lookup)
            .await?
            .iter()
            .map(|row| {
                let end = row.get("expires_at").clone();
                let values = vec![("is_active", false.into()), ("logout_reason", EXPIRED.into()), ("logout_at", end.clone())];
                RegisterChange::Update { table, id: row.id(), values, expected: vec![("is_active", true.into()), ("expires_at", end)] }
            })
            .collect();
        if over.is_empty() {
            return Ok(0);
        }
        let by = ChangedBy { reason: Some("the session's time is over".to_owned()), ..acting() };
        match self.store().db().change_registers(&over, &by).await {
            Ok(ids) => Ok(ids.len()),
            // Somebody ended or prolonged one of them meanwhile: the next look finds the others.
            Err(StoreError::Conflict { .. }) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// Who acts when nobody asked.
fn acting() -> ChangedBy {
    ChangedBy { username: "muniment:sessions".to_owned(), ..ChangedBy::default() }
}

fn refused(error: StoreError) -> EngineError {
    match &error {
        StoreError::Conflict { reason, .. } if reason.contains("UNIQUE") => {
            EngineError::Refused("there is a session of this name".to_owned())
        }
        StoreError::Conflict { reason, .. } if reason.contains("FOREIGN KEY") => EngineError::Refused("there is no such user".to_owned()),
        StoreError::Conflict { .. } => EngineError::Refused("the session ended meanwhile".to_owned()),
        _ => error.into(),
    }
}
