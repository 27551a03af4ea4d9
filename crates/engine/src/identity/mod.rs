//! Who somebody is: keys, users' roles, and the principal that follows from them. What a principal may do is the policy's matter.

mod first_sight;
mod instant;
mod keys;
mod roles;
mod secret;

pub use first_sight::Claims;
pub use keys::{CreatedKey, KeyInfo, KeyState, NewKey};
pub use muniment_store::register::ChangedBy;
pub use roles::RoleGrant;

use crate::error::Result;
use muniment_access::{Principal, Role, Scope};
use muniment_model::Table;
use muniment_store::Store;
use muniment_store::register::{Lookup, RegisterRow};
use secret::hash_of;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Age at which what is remembered is read again: how soon a change made in the database by other hands is noticed. Changes made through the engine are
/// noticed at once.
const REMEMBERED: Duration = Duration::from_secs(2);

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// It has not the form of a key.
    Malformed,
    /// There is no key of this id.
    Unknown,
    /// There is a key of this id, with another secret.
    Wrong,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
    /// Its user is deactivated.
    UserInactive,
}

impl KeyProblem {
    /// In words. Only who has the right secret hears of the last three.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "it has not the form of a key",
            Self::Unknown => "there is no such key",
            Self::Wrong => "the secret is wrong",
            Self::Expired => "the key has expired",
            Self::Revoked => "the key was revoked",
            Self::UserInactive => "the key's user is deactivated",
        }
    }
}

/// Keys as they are remembered.
#[derive(Debug)]
struct Known {
    changes: u64,
    read: Instant,
    keys: HashMap<String, KnownKey>,
}

#[derive(Debug)]
struct KnownKey {
    hash: [u8; 32],
    expires_at: Option<i64>,
    problem: Option<KeyProblem>,
    principal: Arc<Principal>,
}

/// Recognises keys and users.
#[derive(Debug)]
pub struct Identities {
    store: Arc<Store>,
    known: RwLock<Option<Arc<Known>>>,
    reading: tokio::sync::Mutex<()>,
    /// One change at a time, where what may be changed depends on what is there.
    changing: tokio::sync::Mutex<()>,
}

impl Identities {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, known: RwLock::default(), reading: tokio::sync::Mutex::default(), changing: tokio::sync::Mutex::default() }
    }

    /// Whose key this is. `now` is the time in µs UTC.
    ///
    /// # Errors
    /// If the registers can't be read; a key that is refused is no error.
    pub async fn recognise(&self, key: &str, now: i64) -> Result<std::result::Result<Arc<Principal>, KeyProblem>> {
        let Some(id) = secret::id_of(key) else { return Ok(Err(KeyProblem::Malformed)) };
        let known = match self.remembered() {
            Some(known) => known,
            None => self.read_again().await?,
        };
        let Some(found) = known.keys.get(id) else { return Ok(Err(KeyProblem::Unknown)) };
        if !secret::equal(&hash_of(key), &found.hash) {
            return Ok(Err(KeyProblem::Wrong));
        }
        let expired = found.expires_at.is_some_and(|expires| expires <= now).then_some(KeyProblem::Expired);
        Ok(match found.problem.or(expired) {
            Some(problem) => Err(problem),
            None => Ok(found.principal.clone()),
        })
    }

    /// How often it was changed who may do what: whoever remembers a principal asks again when this has changed.
    pub fn changes(&self) -> u64 {
        self.store.db().access_changes()
    }

    /// The id in a key, for the record of a failure; it is no secret.
    pub fn key_id(key: &str) -> Option<&str> {
        secret::id_of(key)
    }

    fn remembered(&self) -> Option<Arc<Known>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        (known.changes == self.store.db().access_changes() && known.read.elapsed() < REMEMBERED).then_some(known)
    }

    async fn read_again(&self) -> Result<Arc<Known>> {
        let _turn = self.reading.lock().await;
        if let Some(known) = self.remembered() {
            return Ok(known);
        }
        // The number is taken first: a change that comes while the rows are read makes them be read again.
        let changes = self.store.db().access_changes();
        let read = Instant::now();
        let mut keys = HashMap::new();
        for row in self.rows("api_keys", Vec::new()).await? {
            if let Some(key) = self.known_key(&row).await? {
                keys.insert(row.text("key_id").unwrap_or_default().to_owned(), key);
            }
        }
        let known = Arc::new(Known { changes, read, keys });
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        Ok(known)
    }

    /// A key as it is remembered; `None` for a row that no key can have made.
    async fn known_key(&self, row: &RegisterRow) -> Result<Option<KnownKey>> {
        let mut hash = [0; 32];
        if hex::decode_to_slice(row.text("key_hash").unwrap_or_default(), &mut hash).is_err() {
            return Ok(None);
        }
        let names = |column| keys::names(row.text(column));
        let mut roles: BTreeSet<Role> = names("roles").unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect();
        let mut name = row.text("name").unwrap_or_default().to_owned();
        let mut problem = row.int("revoked_at").map(|_| KeyProblem::Revoked);
        if let Some(user_id) = row.int("user_id") {
            let user = self.rows("users", vec![("id", user_id.into())]).await?.pop();
            match user.filter(|user| user.bool("is_active")) {
                Some(user) => user.text("username").unwrap_or_default().clone_into(&mut name),
                None => problem = problem.or(Some(KeyProblem::UserInactive)),
            }
            let held = self.roles_of(user_id).await?;
            roles.retain(|role| held.contains(role));
        }
        let scope = Scope { tables: names("tables"), actions: names("actions") };
        let principal = Principal { user_id: row.int("user_id"), key_id: Some(row.id()), scope, ..Principal::with_roles(&name, roles) };
        Ok(Some(KnownKey { hash, expires_at: row.int("expires_at"), problem, principal: Arc::new(principal) }))
    }

    async fn rows(&self, register: &'static str, equal: muniment_store::register::Values) -> Result<Vec<RegisterRow>> {
        match muniment_model::table(register) {
            Some(table) => Ok(self.store.db().find_in_register(&Lookup::new(table, equal)).await?),
            None => Ok(Vec::new()),
        }
    }
}

/// A register of the model.
fn register(name: &'static str) -> Result<&'static Table> {
    muniment_model::table(name).ok_or_else(|| crate::EngineError::NotFound(format!("register {name}")))
}
