//! Who asks, and whether they may: what every handler begins with.

use crate::answer::{Code, Refusal};
use crate::routes::App;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use muniment_access::{Action, Principal};
use std::sync::Arc;

/// Whether callers have to say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMode {
    /// Anybody may do everything. Only on loopback: for first steps and measurements.
    Open,
}

/// Whoever sent a request. A handler takes it, and asks [`App::allow`] before it does anything.
pub(crate) struct Identity(pub(crate) Arc<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let principal = parts.extensions.get::<Arc<Principal>>();
        principal.cloned().map(Self).ok_or_else(|| Refusal::new(Code::Unauthenticated, "say who you are: Authorization: Bearer <key>"))
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
}
