//! The directory of users: who the records speak of. Made by hand, by import, or by first sight in a record; deactivated, never removed. Other systems' ids, texts
//! and UUIDs, stand for the numbers that records refer to.

mod external;
mod import;
mod sight;

pub use import::{Existing, ImportFormat, Imported};
pub(crate) use sight::Sight;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::fields::{self, register, wrong};
use muniment_store::StoreError;
use muniment_store::register::{ChangedBy, Lookup, RegisterChange, RegisterRow, Value, Values};
use serde_json::{Map, Value as Json, json};

const USERS: &str = "users";
const EXTERNAL_IDS: &str = "user_external_ids";
/// Source of users that a record spoke of first.
const FIRST_SIGHT: &str = "first_sight";
/// Most users of a page.
pub const MOST_USERS: u32 = 1000;
/// Fields that a new user may be given.
const NEW: [&str; 6] = ["id", "username", "display_name", "email", "external_id", "source"];
/// Fields that can be changed.
const CHANGEABLE: [&str; 5] = ["username", "display_name", "email", "external_id", "source"];

/// Which users are wanted.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Only those that are active, or only those that are not.
    pub active: Option<bool>,
    /// Only those of this source.
    pub source: Option<String>,
    /// Only those after this number.
    pub after: i64,
    /// This many at most.
    pub limit: u32,
}

/// Whom a caller means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserKey {
    /// By number.
    Id(i64),
    /// By log-in name or external id.
    Name(String),
}

impl From<&str> for UserKey {
    /// Digits are a number, anything else a name.
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }
}

impl Engine {
    /// Users by number, each as a JSON object.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn users(&self, filter: &UserFilter) -> Result<Vec<Json>> {
        let table = register(USERS)?;
        let mut equal: Values = Vec::new();
        equal.extend(filter.active.map(|active| ("is_active", Value::from(active))));
        equal.extend(filter.source.clone().map(|source| ("source", Value::from(source))));
        let lookup = Lookup { after: filter.after, limit: filter.limit.min(MOST_USERS), ..Lookup::new(table, equal) };
        let rows = self.store().db().find_in_register(&lookup).await?;
        Ok(rows.iter().map(|row| fields::to_json(table, row)).collect())
    }

    /// A user with all external ids.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such user.
    pub async fn user(&self, key: &UserKey) -> Result<Json> {
        let row = self.user_row(key).await?;
        let mut user = fields::to_json(register(USERS)?, &row);
        let ids = self.store().db().find_in_register(&Lookup::new(register(EXTERNAL_IDS)?, vec![("user_id", row.id().into())])).await?;
        user["external_ids"] = ids.iter().map(|id| json!({ "external_id": id.text("external_id"), "system": id.text("system") })).collect();
        Ok(user)
    }

    pub(crate) async fn user_row(&self, key: &UserKey) -> Result<RegisterRow> {
        let find = async |values: Values| -> Result<Option<RegisterRow>> {
            Ok(self.store().db().find_in_register(&Lookup::new(register(USERS)?, values)).await?.pop())
        };
        let found = match key {
            UserKey::Id(id) => find(vec![("id", (*id).into())]).await?,
            UserKey::Name(name) => match find(vec![("username", name.as_str().into())]).await? {
                Some(row) => Some(row),
                None => match self.user_by_external_id(name).await? {
                    Some(id) => find(vec![("id", id.into())]).await?,
                    None => None,
                },
            },
        };
        let named = || match key {
            UserKey::Id(id) => format!("user {id}"),
            UserKey::Name(name) => format!("user {name:?}"),
        };
        found.ok_or_else(|| EngineError::NotFound(named()))
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] names the field that is wrong; [`EngineError::Refused`] if another user has the name, number or external id.
    pub async fn add_user(&self, object: &Map<String, Json>, by: &ChangedBy) -> Result<Json> {
        let table = register(USERS)?;
        let mut values = fields::values(table, object, &NEW)?;
        if !values.iter().any(|(name, _)| *name == "username") {
            return Err(wrong("username", "is missing"));
        }
        self.canonical(&mut values, None).await?;
        let changed = self.store().db().change_registers(&[RegisterChange::Insert { table, values }], by).await;
        let ids = changed.map_err(taken)?;
        self.user(&UserKey::Id(ids.first().copied().unwrap_or_default())).await
    }

    /// Changes a user's fields.
    ///
    /// # Errors
    /// As [`Engine::add_user`], and [`EngineError::NotFound`].
    pub async fn change_user(&self, key: &UserKey, object: &Map<String, Json>, by: &ChangedBy) -> Result<Json> {
        let table = register(USERS)?;
        let row = self.user_row(key).await?;
        let mut values = fields::values(table, object, &CHANGEABLE)?;
        self.canonical(&mut values, Some(row.id())).await?;
        values.retain(|(name, value)| row.get(name) != value);
        if !values.is_empty() {
            values.push(("updated_at", crate::now().into()));
            self.change_row(row.id(), values, by).await?;
            self.sight().forget_external();
        }
        self.user(&UserKey::Id(row.id())).await
    }

    /// Deactivates a user, who then may not log in, or activates one again. The user stays: records go on speaking of it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such user.
    pub async fn set_user_active(&self, key: &UserKey, active: bool, by: &ChangedBy) -> Result<Json> {
        let row = self.user_row(key).await?;
        if row.bool("is_active") != active {
            let now = crate::now();
            let since = if active { Value::Null } else { now.into() };
            let values = vec![("is_active", active.into()), ("deactivated_at", since), ("updated_at", now.into())];
            self.change_row(row.id(), values, by).await?;
        }
        self.user(&UserKey::Id(row.id())).await
    }

    async fn change_row(&self, id: i64, values: Values, by: &ChangedBy) -> Result<()> {
        let change = RegisterChange::Update { table: register(USERS)?, id, values, expected: Vec::new() };
        self.store().db().change_registers(&[change], by).await.map(drop).map_err(taken)
    }

    /// Brings an external id into the form it is looked up by, and sees that nobody else has it.
    async fn canonical(&self, values: &mut Values, owner: Option<i64>) -> Result<()> {
        for (name, value) in values {
            if *name == "external_id"
                && let Value::Text(text) = value
            {
                *text = external::canonical(text)?;
                if self.user_by_external_id(text).await?.is_some_and(|id| Some(id) != owner) {
                    return Err(EngineError::Refused(format!("another user has the external id {text:?}")));
                }
            }
        }
        Ok(())
    }
}

/// A violated key in words.
fn taken(error: StoreError) -> EngineError {
    match &error {
        StoreError::Conflict { reason, .. } if reason.contains("UNIQUE") => {
            let what = match reason.rsplit('.').next().unwrap_or_default() {
                "username" => "name",
                "external_id" => "external id",
                _ => "number",
            };
            EngineError::Refused(format!("another user has this {what}"))
        }
        _ => error.into(),
    }
}
