//! Rate limits: who may call how often. The same limits answer applications that ask before they act ([`RateLimits::check`]), are held against the records of
//! `api_access_log` (`follow`), and protect the API of Muniment itself. Whoever exceeds one has a row in `rate_limit_violations`, one for each window.

mod follow;
mod gcra;
mod guard;
mod limit;
mod violations;
mod windows;

pub use guard::{CheckAnswer, LimitState};
pub use limit::{Call, CountedBy, Door, Limit};
pub use violations::ViolationRow;

pub(crate) use follow::following;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use guard::{Block, Guard, Refused};
use limit::LimitSet;
use muniment_store::register::{ChangedBy, Lookup, RegisterChange};
use muniment_store::{Store, StoreError};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use violations::Violation;

/// Name of the limit that comes from the configuration.
pub const BUILT_IN: &str = "muniment";
/// Blocks up to which the register is read anew each time.
const FEW_BLOCKS: usize = 1000;
/// If there are more, it is read one time in so many.
const SELDOM: u32 = 15;
/// Most calls that one question may stand for.
const MOST_COST: i64 = 1_000_000;
/// Refusals that wait to be written down; beyond it, whoever is refused waits until they are.
const PENDING: usize = 10_000;
/// Violations listed at most.
pub const MOST_LISTED: u32 = 10_000;

/// How Muniment protects its own API.
#[derive(Clone, Copy, Debug)]
pub struct ProtectionConfig {
    /// Calls that one address may make in a minute; 0 for no limit. This machine's own addresses are not counted: a proxy may stand there for everybody.
    pub requests_per_minute: u32,
    /// Whether its requests are recorded in `api_access_log`.
    pub record_requests: bool,
}

impl Default for ProtectionConfig {
    fn default() -> Self {
        Self { requests_per_minute: 12_000, record_requests: false }
    }
}

/// The limits and what is remembered of who has called.
#[derive(Debug)]
pub struct RateLimits {
    store: Arc<Store>,
    built_in: Option<Limit>,
    set: Mutex<Arc<LimitSet>>,
    guard: Guard,
    rounds: AtomicU32,
    /// Violations to be written down or brought up to date, by their key.
    pending: Mutex<HashMap<String, Violation>>,
}

impl RateLimits {
    pub(crate) fn new(store: Arc<Store>, config: &ProtectionConfig) -> Self {
        let built_in = built_in(config);
        let set = LimitSet::new(built_in.iter().cloned().collect());
        Self {
            store,
            built_in,
            set: Mutex::new(Arc::new(set)),
            guard: Guard::default(),
            rounds: AtomicU32::new(0),
            pending: Mutex::default(),
        }
    }

    fn set(&self) -> Arc<LimitSet> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, Violation>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the registers say now: limits, and blocks that stand.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let mut limits = self.list().await?;
        limits.extend(self.built_in.clone());
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(LimitSet::new(limits));
        let (_, known) = self.guard.size();
        if known > FEW_BLOCKS && !self.rounds.fetch_add(1, Ordering::Relaxed).is_multiple_of(SELDOM) {
            return Ok(());
        }
        let (blocks, ended) = violations::blocks(&self.store, crate::now()).await?;
        self.guard.set_blocks(blocks);
        violations::end_blocks(&self.store, &ended).await
    }

    /// Whether a call may go on; if it may, it counts as `cost` calls. A call that only `looks` takes nothing.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] if the cost is out of range; the store's, if a block could not be written down.
    pub async fn check(&self, call: &Call<'_>, door: Door, cost: i64, looks: bool) -> Result<CheckAnswer> {
        if !(1..=MOST_COST).contains(&cost) {
            return Err(EngineError::Parameter { name: "cost", reason: format!("it is from 1 to {MOST_COST}") });
        }
        let now = crate::now();
        let set = self.set();
        let limits = set.of(call, door);
        if limits.is_empty() {
            return Ok(CheckAnswer { allowed: true, ..CheckAnswer::default() });
        }
        let (mut answer, refused) = self.guard.check(&limits, cost, looks, now);
        let mut blocked = false;
        for refused in refused {
            blocked |= self.note(&refused, call, now).await?;
        }
        if blocked {
            // The block that this call has begun is part of its answer.
            answer = self.guard.check(&limits, cost, true, now).0;
        }
        Ok(answer)
    }

    /// Notes a refusal. If it blocks its subject, that is durable when this returns.
    async fn note(&self, refused: &Refused, call: &Call<'_>, now: i64) -> Result<bool> {
        let violation = Violation::new(&refused.limit, &refused.subject, refused.window_start, refused.calls, now, call);
        if let Some(until) = violation.blocks_until() {
            violations::write(&self.store, std::slice::from_ref(&violation)).await?;
            // Who was let go in this window is not blocked in it again.
            let standing = violations::standing(&self.store, &violation).await?;
            if let Some(row) = standing {
                let counted = (refused.limit.name.clone(), refused.subject.clone());
                self.guard.block(counted, Block { violation: row, until });
            }
            return Ok(standing.is_some());
        }
        let full = {
            let mut pending = self.pending();
            let known = pending.entry(violation.key()).or_insert_with(|| violation.clone());
            known.calls = known.calls.max(violation.calls);
            pending.len() >= PENDING
        };
        if full {
            self.write_pending().await?;
        }
        Ok(false)
    }

    /// Writes down the refusals since the last time.
    pub(crate) async fn write_pending(&self) -> Result<()> {
        let pending: Vec<Violation> = std::mem::take(&mut *self.pending()).into_values().collect();
        for (at, some) in pending.chunks(200).enumerate() {
            if let Err(error) = violations::write(&self.store, some).await {
                let rest = pending.iter().skip(at * 200);
                self.pending().extend(rest.map(|violation| (violation.key(), violation.clone())));
                return Err(error);
            }
        }
        Ok(())
    }

    /// The limits of the register, by name.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn list(&self) -> Result<Vec<Limit>> {
        let rows = self.store.db().find_in_register(&Lookup::new(limit::register()?, Vec::new())).await?;
        let mut limits: Vec<Limit> = rows.iter().filter_map(Limit::of_row).collect();
        limits.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(limits)
    }

    /// Makes a limit, or replaces the one of this name. `true` if it is new.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] names what is wrong with it.
    pub async fn put(&self, limit: &Limit, by: &ChangedBy) -> Result<bool> {
        limit.validate()?;
        if limit.name == BUILT_IN {
            let reason = "this one comes from the configuration (`limits.requests_per_minute`)".to_owned();
            return Err(EngineError::Parameter { name: "name", reason });
        }
        let table = limit::register()?;
        let lookup = Lookup::new(table, vec![("name", limit.name.as_str().into())]);
        let known = self.store.db().find_in_register(&lookup).await?.pop();
        let (now, is_new) = (crate::now(), known.is_none());
        let change = match known {
            Some(row) => RegisterChange::Update { table, id: row.id(), values: limit.values(now), expected: Vec::new() },
            None => {
                let mut values = limit.values(now);
                values.push(("created_at", now.into()));
                RegisterChange::Insert { table, values }
            }
        };
        self.store.db().change_registers(&[change], by).await.map_err(told)?;
        self.refresh().await?;
        Ok(is_new)
    }

    /// Removes a limit. What it has led to stays.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is none of this name.
    pub async fn remove(&self, name: &str, by: &ChangedBy) -> Result<()> {
        let table = limit::register()?;
        let lookup = Lookup::new(table, vec![("name", name.into())]);
        let found = self.store.db().find_in_register(&lookup).await?.pop();
        let row = found.ok_or_else(|| EngineError::NotFound(format!("limit {name}")))?;
        self.store.db().change_registers(&[RegisterChange::Delete { table, id: row.id() }], by).await.map_err(told)?;
        self.refresh().await
    }

    /// Violations, newest first.
    ///
    /// # Errors
    /// If the register can't be read.
    pub async fn violations(&self, blocked: bool, limit: u32) -> Result<Vec<ViolationRow>> {
        self.write_pending().await?;
        violations::list(&self.store, blocked, limit.min(MOST_LISTED), crate::now()).await
    }

    /// Lifts the block of a violation; who was blocked begins anew.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is no such violation, [`EngineError::Refused`] if it blocks nobody.
    pub async fn unblock(&self, id: i64, by: &ChangedBy) -> Result<ViolationRow> {
        let (row, counted) = violations::lift(&self.store, id, by, crate::now()).await?;
        if let Some(counted) = counted {
            self.guard.release(&counted);
        }
        Ok(row)
    }

    /// Subjects remembered, and blocks that stand.
    pub fn size(&self) -> (usize, usize) {
        self.guard.size()
    }
}

/// A change that somebody else was faster with.
fn told(error: StoreError) -> EngineError {
    match error {
        StoreError::Conflict { table, reason } => EngineError::Refused(format!("{table}: {reason}")),
        error => error.into(),
    }
}

fn built_in(config: &ProtectionConfig) -> Option<Limit> {
    (config.requests_per_minute > 0).then(|| Limit {
        name: BUILT_IN.to_owned(),
        endpoint: None,
        method: None,
        counted_by: CountedBy::Address,
        subject: None,
        limit_threshold: config.requests_per_minute.into(),
        time_window_seconds: 60,
        burst: None,
        block_minutes: 0,
        on_check: false,
        on_log: false,
        on_own_api: true,
        is_active: true,
    })
}

impl Engine {
    /// The rate limits.
    pub fn rate_limits(&self) -> &Arc<RateLimits> {
        &self.rate_limits
    }
}

/// Brings limits and blocks up to date, and writes refusals down.
pub(crate) async fn maintain(engine: &Engine) {
    let limits = engine.rate_limits();
    let written = limits.write_pending().await;
    if let Some(error) = written.err().or(limits.refresh().await.err()) {
        tracing::warn!(error = &error as &dyn std::error::Error, "rate limits could not be brought up to date; it will be tried again");
    }
}
