//! Ids of other systems, and the numbers they stand for.

use super::sight::EXTERNAL_REGISTERS;
use super::{EXTERNAL_IDS, FIRST_SIGHT, USERS, UserKey};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::fields::{self, register, wrong};
use muniment_store::StoreError;
use muniment_store::db::CommitDb;
use muniment_store::register::{ChangedBy, Lookup, RegisterChange, Value};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// Most characters of an external id.
const CHARS: usize = 255;
/// Most characters of a log-in name.
const USERNAME_CHARS: usize = 100;
/// Most external ids that are resolved at a time.
const MOST_RESOLVED: usize = 1000;

/// The form in which an external id is kept and looked up: a UUID in lower case with hyphens, however it was written; any other text without blanks around it.
pub(super) fn canonical(text: &str) -> Result<String> {
    let text = text.trim();
    if let Ok(uuid) = uuid::Uuid::try_parse(text) {
        return Ok(uuid.to_string());
    }
    if text.is_empty() || text.chars().count() > CHARS || text.contains(char::is_control) {
        return Err(wrong("external_id", format!("has 1 to {CHARS} characters, none of them a control character")));
    }
    Ok(text.to_owned())
}

/// The user who has this external id, in its canonical form.
pub(super) async fn find(db: &dyn CommitDb, external_id: &str) -> Result<Option<i64>> {
    for (name, column) in EXTERNAL_REGISTERS {
        let found = db.find_in_register(&Lookup::new(register(name)?, vec![("external_id", external_id.into())])).await?;
        if let Some(row) = found.first() {
            return Ok(row.int(column));
        }
    }
    Ok(None)
}

/// Makes a user of whom only the external id is known.
pub(super) async fn make(db: &dyn CommitDb, external_id: &str, by: &ChangedBy) -> Result<i64> {
    let table = register(USERS)?;
    let insert = |username: String| RegisterChange::Insert {
        table,
        values: vec![("external_id", external_id.into()), ("username", username.into()), ("source", FIRST_SIGHT.into())],
    };
    let short: String = external_id.chars().take(USERNAME_CHARS).collect();
    for username in [short, format!("user-{}", uuid::Uuid::new_v4())] {
        match db.change_registers(&[insert(username)], by).await {
            Ok(ids) => return Ok(ids.first().copied().unwrap_or_default()),
            // Somebody else was faster, or somebody has this name already.
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(id) = find(db, external_id).await? {
            return Ok(id);
        }
    }
    Err(EngineError::Refused(format!("no user could be made of the external id {external_id:?}")))
}

impl Engine {
    /// The number that an external id stands for.
    ///
    /// # Errors
    /// If the registers can't be read.
    pub async fn user_by_external_id(&self, external_id: &str) -> Result<Option<i64>> {
        match canonical(external_id) {
            Ok(text) => find(self.store().db(), &text).await,
            Err(_) => Ok(None),
        }
    }

    /// Gives a user another external id.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Parameter`]; [`EngineError::Refused`] if another user has it.
    pub async fn add_external_id(&self, key: &UserKey, object: &Map<String, Json>, by: &ChangedBy) -> Result<Json> {
        let table = register(EXTERNAL_IDS)?;
        let row = self.user_row(key).await?;
        let mut values = fields::values(table, object, &["external_id", "system"])?;
        let Some((_, Value::Text(text))) = values.iter_mut().find(|(name, _)| *name == "external_id") else {
            return Err(wrong("external_id", "is missing"));
        };
        *text = canonical(text)?;
        match self.user_by_external_id(text).await? {
            Some(owner) if owner == row.id() => return self.user(&UserKey::Id(row.id())).await,
            Some(_) => return Err(EngineError::Refused(format!("another user has the external id {text:?}"))),
            None => {}
        }
        values.push(("user_id", row.id().into()));
        self.store().db().change_registers(&[RegisterChange::Insert { table, values }], by).await.map_err(super::taken)?;
        self.user(&UserKey::Id(row.id())).await
    }

    /// The numbers that external ids stand for, `None` where there is no such user. With `create`, a user is made for each that is not known, marked as of first sight.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] for a text that can't be one, or for too many.
    pub async fn resolve_users(&self, external_ids: &[String], create: bool, by: &ChangedBy) -> Result<BTreeMap<String, Option<i64>>> {
        if external_ids.len() > MOST_RESOLVED {
            return Err(wrong("external_ids", format!("at most {MOST_RESOLVED} at a time")));
        }
        let mut resolved = BTreeMap::new();
        for given in external_ids {
            let text = canonical(given)?;
            let id = match find(self.store().db(), &text).await? {
                None if create => Some(make(self.store().db(), &text, by).await?),
                id => id,
            };
            resolved.insert(given.clone(), id);
        }
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::canonical;

    #[test]
    fn a_uuid_has_one_form() {
        let same = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for text in
            ["67E55044-10B1-426F-9247-BB680E5FE0C8", "{67e55044-10b1-426f-9247-bb680e5fe0c8}", "67e5504410b1426f9247bb680e5fe0c8", same]
        {
            assert_eq!(canonical(text).unwrap(), same);
        }
        assert_eq!(canonical(" hr-0007 ").unwrap(), "hr-0007");
        for text in ["", " ", "a\u{1}b", &"x".repeat(256)] {
            assert!(canonical(text).is_err());
        }
    }
}
