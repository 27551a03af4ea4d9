//! Who asks, and whether they may: what every handler begins with.

use crate::answer::{Code, Refusal};
use crate::peers::Peer;
use crate::routes::App;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use muniment_access::{Action, Principal};
use muniment_engine::identity::ChangedBy;
use std::sync::Arc;

/// Most characters of a program's name in a record.
const AGENT_CHARS: usize = 1000;

/// Whether callers have to say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMode {
    /// Everybody shows a key, a token or a session.
    Keys,
    /// Anybody may do everything. Only on loopback: for first steps and measurements.
    Open,
}

/// Whoever sent a request. A handler takes it, and asks [`App::allow`] before it does anything.
pub(crate) struct Identity(pub(crate) Arc<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let principal = parts.extensions.get::<Arc<Principal>>();
        principal.cloned().map(Self).ok_or_else(|| Refusal::new(Code::Unauthenticated, "say who you are: `Authorization: Bearer <key>`"))
    }
}

impl App {
    /// Refuses what a caller may not do; `table` is what it is done to, if it is one.
    pub(crate) fn allow(&self, principal: &Principal, action: Action, table: Option<&str>) -> Result<(), Refusal> {
        let decision = self.policy.decide(principal, action, table, None);
        if decision.allowed {
            return Ok(());
        }
        let of = table.map(|table| format!(" of {table}")).unwrap_or_default();
        let message = format!("{} may not do this: {}{of} ({})", principal.name, action.name(), decision.reason);
        Err(Refusal::new(Code::Forbidden, message))
    }

    /// Refuses whoever may not read a table in clear: for doors that mask nothing. SQL shows the table to others with its masks.
    pub(crate) fn allow_in_clear(&self, principal: &Principal, table: &str) -> Result<(), Refusal> {
        self.allow(principal, Action::Read, Some(table))?;
        self.allow(principal, Action::ReadUnmasked, Some(table))
    }
}

/// Who makes a change, for the record of it.
pub(crate) fn changed_by(principal: &Principal, peer: &Peer, headers: &HeaderMap, reason: Option<String>) -> ChangedBy {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).map(|agent| agent.chars().take(AGENT_CHARS).collect());
    ChangedBy {
        user_id: principal.user_id,
        username: principal.name.clone(),
        session_id: principal.session_id.clone(),
        ip_address: Some(peer.address().to_string()),
        user_agent: agent,
        reason,
        ..ChangedBy::default()
    }
}
