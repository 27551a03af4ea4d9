//! Users that an identity provider vouches for: found by their subject, or made at first sight.

use super::{ChangedBy, Identities, register};
use crate::error::Result;
use muniment_access::{Principal, Role};
use muniment_store::register::{RegisterChange, RegisterRow, Value, Values};
use std::collections::BTreeSet;

/// Most characters of names and keys in the directory.
const NAME_CHARS: usize = 100;
const DISPLAY_CHARS: usize = 255;
const EMAIL_CHARS: usize = 320;

/// What an identity provider says about somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The provider.
    pub issuer: String,
    /// Whom it means: never given to anybody else by this provider.
    pub subject: String,
    /// Log-in name.
    pub username: Option<String>,
    /// Name to show.
    pub display_name: Option<String>,
    /// E-mail address.
    pub email: Option<String>,
    /// Roles that follow from the claims.
    pub roles: BTreeSet<Role>,
}

impl Claims {
    /// Key of the user in the directory: issuer and subject, since a subject means somebody only at its issuer.
    fn external_id(&self) -> String {
        format!("{}#{}", self.issuer, self.subject)
    }
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars).collect()
}

impl Identities {
    /// The principal that claims speak of: a user of the directory, made at first sight. `None` if the user is deactivated.
    ///
    /// A user of the same name who came by another way is somebody else: the newcomer's name is then followed by the provider's.
    ///
    /// # Errors
    /// If the directory can't be read or written.
    pub async fn sign_in(&self, claims: &Claims, now: i64) -> Result<Option<Principal>> {
        let row = match self.by_external_id(claims).await? {
            Some(row) => row,
            None => self.first_sight(claims, now).await?,
        };
        if !row.bool("is_active") {
            return Ok(None);
        }
        let mut roles = self.roles_of(row.id()).await?;
        roles.extend(&claims.roles);
        let name = row.text("username").unwrap_or_default();
        Ok(Some(Principal { user_id: Some(row.id()), ..Principal::with_roles(name, roles) }))
    }

    /// Whether a session is in the register and was ended there.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn is_ended(&self, session_id: &str) -> Result<bool> {
        let rows = self.rows("user_sessions", vec![("session_id", session_id.into())]).await?;
        Ok(rows.iter().any(|row| !row.bool("is_active")))
    }

    async fn by_external_id(&self, claims: &Claims) -> Result<Option<RegisterRow>> {
        Ok(self.rows("users", vec![("external_id", claims.external_id().into())]).await?.pop())
    }

    async fn first_sight(&self, claims: &Claims, now: i64) -> Result<RegisterRow> {
        let _turn = self.changing.lock().await;
        if let Some(row) = self.by_external_id(claims).await? {
            return Ok(row);
        }
        let host = claims.issuer.split("://").nth(1).unwrap_or(&claims.issuer).trim_end_matches('/');
        let wished = cut(claims.username.as_deref().or(claims.email.as_deref()).unwrap_or(&claims.subject), NAME_CHARS);
        let mut username = wished.clone();
        let taken = !self.rows("users", vec![("username", username.clone().into())]).await?.is_empty();
        if taken || username.is_empty() {
            username = cut(&format!("{}@{host}", claims.subject), NAME_CHARS);
        }
        let text = |text: &Option<String>, chars| Value::from(text.as_deref().map(|text| cut(text, chars)));
        let values: Values = vec![
            ("external_id", claims.external_id().into()),
            ("username", username.into()),
            ("display_name", text(&claims.display_name, DISPLAY_CHARS)),
            ("email", text(&claims.email, EMAIL_CHARS)),
            ("source", cut(&format!("oidc:{host}"), NAME_CHARS).into()),
            ("created_at", now.into()),
            ("updated_at", now.into()),
        ];
        let by = ChangedBy {
            username: "muniment:log-in".to_owned(),
            reason: Some(format!("first log-in through {host}")),
            ..ChangedBy::default()
        };
        let table = register("users")?;
        let ids = self.store.db().change_registers(&[RegisterChange::Insert { table, values }], &by).await?;
        let id = ids.first().copied().unwrap_or_default();
        let row = self.rows("users", vec![("id", id.into())]).await?.pop();
        row.ok_or_else(|| crate::EngineError::NotFound(format!("user {id}")))
    }
}
