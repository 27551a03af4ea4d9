//! Who asks.

use crate::{Action, Role};
use std::collections::BTreeSet;

/// What a key is limited to, apart from what its roles allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Logs and registers it may touch; `None` for all.
    pub tables: Option<BTreeSet<String>>,
    /// Actions it may take, by name; `None` for all.
    pub actions: Option<BTreeSet<String>>,
}

impl Scope {
    /// Whether this action on this table (`None`: not about a table) lies within the scope.
    pub fn admits(&self, action: Action, table: Option<&str>) -> bool {
        let action = self.actions.as_ref().is_none_or(|actions| actions.contains(action.name()));
        let table = self.tables.as_ref().is_none_or(|tables| table.is_none_or(|table| tables.contains(table)));
        action && table
    }
}

/// Somebody or something that was recognised at a door: a key, a bearer token, a session of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// `users.id`, if it is a person or service account of the directory.
    pub user_id: Option<i64>,
    /// Name for people and records: the user's, or the key's.
    pub name: String,
    /// `api_keys.id`, if it came with a key.
    pub key_id: Option<i64>,
    /// Identifies the session of the console, if it came with one.
    pub session_id: Option<String>,
    /// What it is there for.
    pub roles: BTreeSet<Role>,
    /// Limits of the key.
    pub scope: Scope,
}

impl Principal {
    /// Somebody of this name with these roles and no limits beyond them.
    pub fn with_roles(name: &str, roles: impl IntoIterator<Item = Role>) -> Self {
        let roles = roles.into_iter().collect();
        Self { user_id: None, name: name.to_owned(), key_id: None, session_id: None, roles, scope: Scope::default() }
    }

    /// Whoever reaches a service without authentication: may do everything.
    pub fn unrestricted() -> Self {
        Self::with_roles("anonymous", Role::ALL)
    }
}
