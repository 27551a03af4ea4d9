//! Users as records speak of them: a number that the directory doesn't have yet becomes a row marked as of first sight, before the record is stored; an external id,
//! text or UUID, in place of a number becomes the number.

use super::{EXTERNAL_IDS, FIRST_SIGHT, USERS, external};
use crate::engine::Shared;
use crate::error::Result;
use crate::fields::register;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use muniment_model::Table;
use muniment_store::StoreError;
use muniment_store::register::{ChangedBy, Lookup, RegisterChange, RegisterRow};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

/// Numbers below this are kept as bits.
const DENSE: i64 = 1 << 20;
/// Most other numbers that are kept.
const MOST_SPARSE: usize = 1 << 20;
/// Most external ids that are kept.
const MOST_EXTERNAL: usize = 1 << 16;
/// Users that one request makes at most; the others are made when they are seen again.
const MOST_NEW: usize = 1000;
/// Numbers of a request that lie closer together than this are looked up at once, others one by one.
const CLOSE: i64 = 10_000;
/// Numbers from here on are not made: the directory's own go on above the largest.
const LARGEST: i64 = 1 << 62;

/// Numbers and external ids of the directory, as far as they have come up.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    makes_users: bool,
    /// Held while users are made, so that requests that come together don't make the same ones.
    making: tokio::sync::Mutex<()>,
    known: RwLock<Known>,
    external: RwLock<HashMap<String, i64>>,
}

#[derive(Debug, Default)]
struct Known {
    dense: Vec<u64>,
    sparse: HashSet<i64>,
}

impl Known {
    fn has(&self, id: i64) -> bool {
        match usize::try_from(id) {
            Ok(at) if id < DENSE => self.dense.get(at / 64).is_some_and(|bits| bits & (1 << (at % 64)) != 0),
            _ => self.sparse.contains(&id),
        }
    }

    fn add(&mut self, id: i64) {
        match usize::try_from(id) {
            Ok(at) if id < DENSE => {
                self.dense.resize(self.dense.len().max(at / 64 + 1), 0);
                if let Some(bits) = self.dense.get_mut(at / 64) {
                    *bits |= 1 << (at % 64);
                }
            }
            _ => {
                if self.sparse.len() >= MOST_SPARSE {
                    self.sparse.clear();
                }
                self.sparse.insert(id);
            }
        }
    }
}

/// Columns that hold a user's number, and those beside them that hold the name.
fn user_columns(table: &Table) -> &'static [(&'static str, Option<&'static str>)] {
    match table.name {
        "sys_audit_log" => &[("changed_by", Some("changed_by_username"))],
        "security_audit_log" => &[("user_id", Some("username")), ("investigated_by", None)],
        "auth_audit_log" | "api_access_log" => &[("user_id", None)],
        _ => &[],
    }
}

fn by(table: &Table) -> ChangedBy {
    ChangedBy { username: "muniment:first-sight".to_owned(), reason: Some(format!("first seen in {}", table.name)), ..ChangedBy::default() }
}

impl Sight {
    /// `makes_users` tells whether users are made of what records say, or only looked up.
    pub(crate) fn new(makes_users: bool) -> Self {
        Self { makes_users, ..Self::default() }
    }

    /// The number of an external id that came up before.
    pub(crate) fn number(&self, external_id: &str) -> Option<i64> {
        self.external.read().unwrap_or_else(PoisonError::into_inner).get(external_id).copied()
    }

    fn keep(&self, external_id: &str, id: i64) {
        let mut external = self.external.write().unwrap_or_else(PoisonError::into_inner);
        if external.len() >= MOST_EXTERNAL {
            external.clear();
        }
        external.insert(external_id.to_owned(), id);
    }

    /// External ids may have gone to other users.
    pub(crate) fn forget_external(&self) {
        self.external.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Users of these records that have not come up before, with their names where records give them.
    fn unknown<'a>(&self, table: &Table, batches: impl Iterator<Item = &'a RecordBatch> + Clone) -> BTreeMap<i64, Option<String>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut unknown = BTreeMap::new();
        for (column, name) in user_columns(table) {
            for batch in batches.clone() {
                let Some(ids) = batch.column_by_name(column).and_then(|ids| ids.as_primitive_opt::<Int64Type>()) else { continue };
                let names = name.and_then(|name| batch.column_by_name(name)).and_then(|names| names.as_string_opt::<i32>());
                let mut last = 0;
                for (row, &id) in ids.values().iter().enumerate() {
                    if id == last || ids.is_null(row) || !(1..LARGEST).contains(&id) || known.has(id) {
                        continue;
                    }
                    last = id;
                    let name = names.filter(|names| names.is_valid(row)).map(|names| names.value(row).to_owned());
                    unknown.entry(id).or_insert(name);
                    if unknown.len() >= MOST_NEW {
                        return unknown;
                    }
                }
            }
        }
        unknown
    }

    fn learn(&self, ids: impl Iterator<Item = i64>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        ids.for_each(|id| known.add(id));
    }
}

/// A user to be made.
#[derive(Clone, Debug)]
struct NewUser {
    id: i64,
    username: String,
}

impl NewUser {
    fn insert(&self, users: &'static Table) -> RegisterChange {
        let values = vec![("id", self.id.into()), ("username", self.username.clone().into()), ("source", FIRST_SIGHT.into())];
        RegisterChange::Insert { table: users, values }
    }

    /// The same user by a name that is less likely to be taken.
    fn renamed(self) -> Self {
        let plain = format!("user-{}", self.id);
        let username = if self.username == plain { format!("user-{}", uuid::Uuid::new_v4()) } else { plain };
        Self { username, ..self }
    }
}

impl Shared {
    /// Sees that the directory has the users of these records.
    pub(crate) async fn see_users<'a>(&self, table: &Table, batches: impl Iterator<Item = &'a RecordBatch> + Clone) -> Result<()> {
        if !self.sight.makes_users {
            return Ok(());
        }
        if self.sight.unknown(table, batches.clone()).is_empty() {
            return Ok(());
        }
        let _making = self.sight.making.lock().await;
        let unknown = self.sight.unknown(table, batches);
        if unknown.is_empty() {
            return Ok(());
        }
        let here = self.numbers_here(&unknown).await?;
        let mut names = HashSet::new();
        let new: Vec<NewUser> = unknown
            .iter()
            .filter(|(id, _)| !here.contains(id))
            .map(|(&id, name)| {
                let given = name.as_deref().filter(|name| !name.trim().is_empty() && names.insert(name.to_lowercase()));
                NewUser { id, username: given.map_or_else(|| format!("user-{id}"), str::to_owned) }
            })
            .collect();
        self.make_users(register(USERS)?, new, &by(table)).await?;
        self.sight.learn(unknown.into_keys());
        Ok(())
    }

    /// Which of these numbers the directory has; others between them may be among the answer.
    async fn numbers_here(&self, wanted: &BTreeMap<i64, Option<String>>) -> Result<HashSet<i64>> {
        let (Some((&first, _)), Some((&last, _))) = (wanted.first_key_value(), wanted.last_key_value()) else { return Ok(HashSet::new()) };
        let ranges = if last - first < CLOSE { vec![(first, last)] } else { wanted.keys().map(|&id| (id, id)).collect() };
        let (users, db) = (register(USERS)?, self.store.db());
        let mut here = HashSet::new();
        for (from, to) in ranges {
            let lookup = Lookup { after: from - 1, up_to: vec![("id", to.into())], ..Lookup::new(users, Vec::new()) };
            here.extend(db.find_in_register(&lookup).await?.iter().map(RegisterRow::id));
        }
        Ok(here)
    }

    /// Makes users, all in one transaction; where a name is taken or somebody else saw one first, in halves, so that few of many cost few transactions.
    async fn make_users(&self, users: &'static Table, new: Vec<NewUser>, by: &ChangedBy) -> Result<()> {
        let mut groups = vec![new];
        while let Some(mut group) = groups.pop() {
            let changes: Vec<_> = group.iter().map(|user| user.insert(users)).collect();
            let reason = match self.store.db().change_registers(&changes, by).await {
                Ok(_) => continue,
                Err(StoreError::Conflict { reason, .. }) => reason,
                Err(error) => return Err(error.into()),
            };
            if group.len() > 1 {
                let half = group.split_off(group.len() / 2);
                groups.extend([half, group]);
            } else if let Some(user) = group.pop().filter(|_| reason.contains("username")) {
                groups.push(vec![user.renamed()]);
            }
        }
        Ok(())
    }

    /// Finds the numbers of external ids that a request has in place of numbers, and makes users of those that nobody has. Whether any was found.
    pub(crate) async fn see_external_ids(&self, table: &Table, external_ids: &BTreeSet<String>) -> Result<bool> {
        let (db, mut found) = (self.store.db(), false);
        for given in external_ids.iter().take(MOST_NEW) {
            let Ok(text) = external::canonical(given) else { continue };
            let id = match external::find(db, &text).await? {
                None if self.sight.makes_users => Some(external::make(db, &text, &by(table)).await?),
                id => id,
            };
            if let Some(id) = id {
                self.sight.keep(given, id);
                found = true;
            }
        }
        Ok(found)
    }
}

/// Registers that are looked into for an external id.
pub(super) const EXTERNAL_REGISTERS: [(&str, &str); 2] = [(USERS, "id"), (EXTERNAL_IDS, "user_id")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_known_once_they_were_added() {
        let mut known = Known::default();
        for id in [1, 63, 64, DENSE - 1, DENSE, LARGEST] {
            assert!(!known.has(id), "{id}");
            known.add(id);
            assert!(known.has(id), "{id}");
        }
        assert!(!known.has(2) && !known.has(DENSE + 1));
    }
}
