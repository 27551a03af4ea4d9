//! Roles of users that were given by hand.

use super::{ChangedBy, Identities, register};
use crate::error::{EngineError, Result};
use muniment_access::Role;
use muniment_store::register::{RegisterChange, RegisterRow};
use serde::{Deserialize, Serialize};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

/// A role that a user has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoleGrant {
    /// `users.id`.
    pub user_id: i64,
    /// The user's name.
    pub username: String,
    /// The role.
    pub role: String,
    /// Who gave it.
    pub granted_by: String,
    /// When, µs UTC.
    #[serde(with = "super::instant")]
    pub granted_at: i64,
}

impl Identities {
    /// Roles of a user that were given by hand.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn roles_of(&self, user_id: i64) -> Result<BTreeSet<Role>> {
        let rows = self.rows("user_roles", vec![("user_id", user_id.into())]).await?;
        Ok(rows.iter().filter_map(|row| row.text("role")?.parse().ok()).collect())
    }

    /// All roles of all users.
    ///
    /// # Errors
    /// If the registers can't be read.
    pub async fn role_grants(&self) -> Result<Vec<RoleGrant>> {
        let mut names = HashMap::new();
        let mut grants = Vec::new();
        for row in self.rows("user_roles", Vec::new()).await? {
            let user_id = row.int("user_id").unwrap_or_default();
            if let Entry::Vacant(unknown) = names.entry(user_id) {
                let user = self.rows("users", vec![("id", user_id.into())]).await?.pop();
                unknown.insert(user.and_then(|user| Some(user.text("username")?.to_owned())).unwrap_or_default());
            }
            let text = |column| row.text(column).unwrap_or_default().to_owned();
            let username = names.get(&user_id).cloned().unwrap_or_default();
            let granted_at = row.int("granted_at").unwrap_or_default();
            grants.push(RoleGrant { user_id, username, role: text("role"), granted_by: text("granted_by"), granted_at });
        }
        Ok(grants)
    }

    /// A user by number or name.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such user.
    pub async fn user(&self, number_or_name: &str) -> Result<RegisterRow> {
        let by_number = match number_or_name.parse::<i64>() {
            Ok(id) => self.rows("users", vec![("id", id.into())]).await?.pop(),
            Err(_) => None,
        };
        let found = match by_number {
            Some(found) => Some(found),
            None => self.rows("users", vec![("username", number_or_name.into())]).await?.pop(),
        };
        found.ok_or_else(|| EngineError::NotFound(format!("user {number_or_name}")))
    }

    /// Gives a user a role; nothing changes if the user has it.
    ///
    /// # Errors
    /// If the register can't be changed, for want of such a user for example.
    pub async fn grant_role(&self, user_id: i64, role: Role, now: i64, by: &ChangedBy) -> Result<()> {
        let _turn = self.changing.lock().await;
        if self.roles_of(user_id).await?.contains(&role) {
            return Ok(());
        }
        let values = vec![
            ("user_id", user_id.into()),
            ("role", role.name().into()),
            ("granted_by", by.username.clone().into()),
            ("granted_at", now.into()),
        ];
        self.store.db().change_registers(&[RegisterChange::Insert { table: register("user_roles")?, values }], by).await?;
        Ok(())
    }

    /// Takes a role from a user; keys of that user lose it, too.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if the user has not got it.
    pub async fn revoke_role(&self, user_id: i64, role: Role, by: &ChangedBy) -> Result<()> {
        let _turn = self.changing.lock().await;
        let rows = self.rows("user_roles", vec![("user_id", user_id.into()), ("role", role.name().into())]).await?;
        if rows.is_empty() {
            return Err(EngineError::NotFound(format!("role {role} of user {user_id}")));
        }
        let table = register("user_roles")?;
        let changes: Vec<RegisterChange> = rows.iter().map(|row| RegisterChange::Delete { table, id: row.id() }).collect();
        self.store.db().change_registers(&changes, by).await?;
        Ok(())
    }
}
