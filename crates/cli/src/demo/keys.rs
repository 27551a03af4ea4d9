//! Keys for whoever tries the demonstration: made at each start, since none can be shown twice.

use crate::error::Result;
use muniment_access::Role;
use muniment_engine::Engine;
use muniment_engine::identity::{ChangedBy, NewKey};
use std::collections::BTreeSet;

/// How long the keys are valid, µs: 30 days.
const VALID: i64 = 30 * 86_400 * 1_000_000;

/// The keys.
#[derive(Debug)]
pub struct Keys {
    /// Configures.
    pub administrator: String,
    /// Reads everything.
    pub auditor: String,
    /// Sends events.
    pub ingest: String,
}

/// Makes the keys.
pub async fn create(engine: &Engine) -> Result<Keys> {
    Ok(Keys {
        administrator: key(engine, Role::Administrator).await?,
        auditor: key(engine, Role::Auditor).await?,
        ingest: key(engine, Role::Ingest).await?,
    })
}

async fn key(engine: &Engine, role: Role) -> Result<String> {
    let now = muniment_engine::now();
    let new = NewKey { name: format!("demo {role}"), roles: BTreeSet::from([role]), expires_at: Some(now + VALID), ..NewKey::default() };
    let by = ChangedBy { username: "muniment:demo".to_owned(), reason: Some("start of the demo".to_owned()), ..ChangedBy::default() };
    Ok(engine.identities().create_key(&new, now, &by).await?.key)
}
