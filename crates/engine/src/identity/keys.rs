//! Keys: made, listed, rotated, revoked.

use super::{ChangedBy, Identities, register, secret};
use crate::error::{EngineError, Result};
use muniment_access::{Action, Role};
use muniment_store::StoreError;
use muniment_store::register::{RegisterChange, RegisterRow, Value, Values};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most characters of a key's name.
const NAME_CHARS: usize = 100;

/// What a new key is to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What it is for.
    pub name: String,
    /// The roles it acts in.
    pub roles: BTreeSet<Role>,
    /// Logs and registers that it is limited to; `None` for all.
    pub tables: Option<BTreeSet<String>>,
    /// Actions that it is limited to, by name; `None` for all.
    pub actions: Option<BTreeSet<String>>,
    /// Whose key it is: `users.id`. It never does more than that user may.
    pub user_id: Option<i64>,
    /// When it expires, µs UTC; `None` for never.
    #[serde(with = "super::instant::option", default)]
    pub expires_at: Option<i64>,
}

/// Whether a key is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It is.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// What may be known of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyInfo {
    /// `api_keys.id`.
    pub id: i64,
    /// The part of it that is no secret.
    pub key_id: String,
    /// What it is for.
    pub name: String,
    /// Whose it is.
    pub user_id: Option<i64>,
    /// The roles it acts in.
    pub roles: BTreeSet<String>,
    /// What it is limited to.
    pub tables: Option<BTreeSet<String>>,
    /// What it is limited to.
    pub actions: Option<BTreeSet<String>>,
    /// The key that it takes the place of.
    pub rotated_from: Option<i64>,
    /// Who made it.
    pub created_by: String,
    /// When it was made, µs UTC.
    #[serde(with = "super::instant")]
    pub created_at: i64,
    /// When it expires, µs UTC.
    #[serde(with = "super::instant::option", default)]
    pub expires_at: Option<i64>,
    /// When it was revoked, µs UTC.
    #[serde(with = "super::instant::option", default)]
    pub revoked_at: Option<i64>,
    /// Why it was revoked.
    pub revoked_reason: Option<String>,
    /// Whether it is accepted now.
    pub state: KeyState,
}

/// A key that was just made.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreatedKey {
    /// The key itself. It can't be had a second time.
    pub key: String,
    /// What is known of it.
    #[serde(flatten)]
    pub info: KeyInfo,
}

impl std::fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedKey").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The names in a JSON array.
pub(super) fn names(json: Option<&str>) -> Option<BTreeSet<String>> {
    // What can't be read limits the key to nothing, not to everything.
    json.map(|text| serde_json::from_str(text).unwrap_or_default())
}

fn wrong(name: &'static str, reason: impl Into<String>) -> EngineError {
    EngineError::Parameter { name, reason: reason.into() }
}

impl NewKey {
    fn check(&self, now: i64) -> Result<()> {
        if self.name.trim().is_empty() || self.name.chars().count() > NAME_CHARS || self.name.chars().any(char::is_control) {
            return Err(wrong("name", format!("it says what the key is for, in 1 to {NAME_CHARS} characters")));
        }
        if self.roles.is_empty() {
            return Err(wrong("roles", "a key without a role may do nothing"));
        }
        let unknown =
            |names: &Option<BTreeSet<String>>, known: &dyn Fn(&str) -> bool| names.iter().flatten().find(|name| !known(name)).cloned();
        if let Some(table) = unknown(&self.tables, &|name| muniment_model::table(name).is_some()) {
            return Err(wrong("tables", format!("there is no table {table:?}")));
        }
        if let Some(action) = unknown(&self.actions, &|name| Action::ALL.iter().any(|action| action.name() == name)) {
            let all = Action::ALL.map(Action::name).join(", ");
            return Err(wrong("actions", format!("there is no action {action:?}; there are {all}")));
        }
        for (name, set) in [("tables", &self.tables), ("actions", &self.actions)] {
            if set.as_ref().is_some_and(BTreeSet::is_empty) {
                return Err(wrong(name, "an empty list would admit nothing; leave it out for no limit"));
            }
        }
        if self.expires_at.is_some_and(|expires| expires <= now) {
            return Err(wrong("expires_at", "it is in the past"));
        }
        Ok(())
    }

    fn values(&self) -> Values {
        let array = |names: Vec<&str>| Value::Text(serde_json::json!(names).to_string());
        let set = |names: &Option<BTreeSet<String>>| {
            names.as_ref().map_or(Value::Null, |names| array(names.iter().map(String::as_str).collect()))
        };
        vec![
            ("name", self.name.trim().into()),
            ("user_id", self.user_id.into()),
            ("roles", array(self.roles.iter().map(|role| role.name()).collect())),
            ("tables", set(&self.tables)),
            ("actions", set(&self.actions)),
            ("expires_at", self.expires_at.into()),
        ]
    }
}

fn info(row: &RegisterRow, now: i64) -> KeyInfo {
    let text = |column| row.text(column).unwrap_or_default().to_owned();
    let state = match (row.int("revoked_at"), row.int("expires_at")) {
        (Some(_), _) => KeyState::Revoked,
        (None, Some(expires)) if expires <= now => KeyState::Expired,
        (None, _) => KeyState::Active,
    };
    KeyInfo {
        id: row.id(),
        key_id: text("key_id"),
        name: text("name"),
        user_id: row.int("user_id"),
        roles: names(row.text("roles")).unwrap_or_default(),
        tables: names(row.text("tables")),
        actions: names(row.text("actions")),
        rotated_from: row.int("rotated_from"),
        created_by: text("created_by"),
        created_at: row.int("created_at").unwrap_or_default(),
        expires_at: row.int("expires_at"),
        revoked_at: row.int("revoked_at"),
        revoked_reason: row.text("revoked_reason").map(str::to_owned),
        state,
    }
}

impl Identities {
    /// All keys, also those that are no longer accepted.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn keys(&self, now: i64) -> Result<Vec<KeyInfo>> {
        Ok(self.rows("api_keys", Vec::new()).await?.iter().map(|row| info(row, now)).collect())
    }

    async fn key_row(&self, id: i64) -> Result<RegisterRow> {
        let found = self.rows("api_keys", vec![("id", id.into())]).await?.pop();
        found.ok_or_else(|| EngineError::NotFound(format!("key {id}")))
    }

    /// Makes a key. It is returned once and stored as a hash.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] names what is wrong with the wish.
    pub async fn create_key(&self, new: &NewKey, now: i64, by: &ChangedBy) -> Result<CreatedKey> {
        new.check(now)?;
        if let Some(user_id) = new.user_id {
            let user = self.rows("users", vec![("id", user_id.into())]).await?.pop();
            if !user.is_some_and(|user| user.bool("is_active")) {
                return Err(wrong("user_id", format!("there is no active user {user_id}")));
            }
            let held = self.roles_of(user_id).await?;
            if let Some(role) = new.roles.iter().find(|role| !held.contains(role)) {
                return Err(wrong("roles", format!("user {user_id} has not the role {role}, so a key of theirs can't have it")));
            }
        }
        self.insert(new.values(), Vec::new(), now, by).await
    }

    async fn insert(&self, mut values: Values, mut also: Vec<RegisterChange>, now: i64, by: &ChangedBy) -> Result<CreatedKey> {
        let (key, key_id) = secret::generate(&mut rand_core::OsRng);
        values.extend([
            ("key_id", key_id.into()),
            ("key_hash", hex::encode(secret::hash_of(&key)).into()),
            ("created_by", by.username.clone().into()),
            ("created_at", now.into()),
        ]);
        also.insert(0, RegisterChange::Insert { table: register("api_keys")?, values });
        let ids = self.store.db().change_registers(&also, by).await?;
        let row = self.key_row(ids.first().copied().unwrap_or_default()).await?;
        Ok(CreatedKey { key, info: info(&row, now) })
    }

    /// Makes a key that takes the place of another, with the same roles, limits and length of life; the old one stays valid for `grace` µs.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such key, [`EngineError::Parameter`] if it is not accepted any more.
    pub async fn rotate_key(&self, id: i64, grace: i64, now: i64, by: &ChangedBy) -> Result<CreatedKey> {
        let _turn = self.changing.lock().await;
        let old = self.key_row(id).await?;
        if info(&old, now).state != KeyState::Active {
            return Err(wrong("id", format!("key {id} is not accepted any more; make a new one")));
        }
        let (created, expires) = (old.int("created_at").unwrap_or(now), old.int("expires_at"));
        let mut values: Values =
            old.values.iter().filter(|(name, _)| ["name", "user_id", "roles", "tables", "actions"].contains(name)).cloned().collect();
        values.push(("expires_at", expires.map(|expires| now.saturating_add(expires - created)).into()));
        values.push(("rotated_from", id.into()));
        let ends = now.saturating_add(grace.max(0));
        let ends = expires.map_or(ends, |expires| expires.min(ends));
        let expected = vec![("revoked_at", Value::Null), ("expires_at", expires.into())];
        let end = RegisterChange::Update { table: register("api_keys")?, id, values: vec![("expires_at", ends.into())], expected };
        self.insert(values, vec![end], now, by).await
    }

    /// Revokes a key; it is refused from now on.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such key.
    pub async fn revoke_key(&self, id: i64, now: i64, by: &ChangedBy) -> Result<KeyInfo> {
        let row = self.key_row(id).await?;
        if row.int("revoked_at").is_none() {
            let values = vec![("revoked_at", now.into()), ("revoked_reason", by.reason.clone().into())];
            let expected = vec![("revoked_at", Value::Null)];
            let change = RegisterChange::Update { table: register("api_keys")?, id, values, expected };
            match self.store.db().change_registers(&[change], by).await {
                // Somebody else has revoked it meanwhile.
                Ok(_) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(info(&self.key_row(id).await?, now))
    }

    /// Makes the first administrator's key, unless a key was ever made.
    ///
    /// # Errors
    /// If the register can't be read or written.
    pub async fn first_key(&self, now: i64) -> Result<Option<CreatedKey>> {
        let _turn = self.changing.lock().await;
        if !self.rows("api_keys", Vec::new()).await?.is_empty() {
            return Ok(None);
        }
        let new = NewKey { name: "first administrator".to_owned(), roles: BTreeSet::from([Role::Administrator]), ..NewKey::default() };
        let by = ChangedBy { username: "muniment:first-start".to_owned(), reason: Some("first start".to_owned()), ..ChangedBy::default() };
        Ok(Some(self.create_key(&new, now, &by).await?))
    }
}
