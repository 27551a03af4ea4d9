//! Who has called how often, and who is blocked: in memory, asked before each call.

use super::gcra::{Answer, Rate};
use super::limit::Limit;
use rand_core::RngCore;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Subjects remembered at most. Beyond it, those are forgotten who have the most of their allowance left.
const SUBJECTS: usize = 200_000;

/// A limit and who is counted.
pub(super) type Counted = (String, String);

/// Why somebody is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Row of the violation.
    pub violation: i64,
    /// Until when, µs UTC.
    pub until: i64,
}

/// What one limit says to a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitState {
    /// The limit.
    pub limit: String,
    /// Who is counted.
    pub subject: String,
    /// Whether it allows the call.
    pub allowed: bool,
    /// Calls allowed within the window.
    pub limit_threshold: i64,
    /// Length of the window, seconds.
    pub time_window_seconds: i64,
    /// Calls left.
    pub remaining: i64,
    /// Seconds until nothing of the allowance is taken.
    pub reset_seconds: f64,
    /// Seconds after which the call would be allowed; null if it is, or never will be.
    pub retry_after_seconds: Option<f64>,
    /// Whether it is a block, not the count, that refuses.
    pub blocked: bool,
}

/// The answer to whether a call may go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CheckAnswer {
    /// Whether it may.
    pub allowed: bool,
    /// Calls left by the limit that leaves the fewest; null if no limit is for this call.
    pub remaining: Option<i64>,
    /// Seconds until that limit's allowance is whole again.
    pub reset_seconds: Option<f64>,
    /// Seconds after which the call would be allowed; null if it is, or never will be.
    pub retry_after_seconds: Option<f64>,
    /// What each limit that is for this call says.
    pub limits: Vec<LimitState>,
}

/// A refusal that has to be written down.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub limit: Limit,
    pub subject: String,
    pub window_start: i64,
    pub calls: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    arrival: i64,
    window: i64,
    calls: i64,
}

#[derive(Debug, Default)]
struct State {
    /// By the hash of limit and subject, so that long names take no more room than short ones.
    cells: HashMap<u128, Cell>,
    blocks: HashMap<Counted, Block>,
}

/// What is remembered of all subjects.
#[derive(Debug)]
pub(super) struct Guard {
    state: Mutex<State>,
    /// Nobody can choose names whose hashes collide without knowing it.
    seed: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { state: Mutex::default(), seed: rand_core::OsRng.next_u64() }
    }
}

impl Guard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self, (limit, subject): &Counted) -> u128 {
        xxh3_128_with_seed(format!("{limit}\0{subject}").as_bytes(), self.seed)
    }

    /// Decides about a call that is held against these limits: it takes of all of them or of none. `now` in µs UTC. Nothing is taken by a call that only looks.
    pub(super) fn check(&self, limits: &[(&Limit, String)], cost: i64, looks: bool, now: i64) -> (CheckAnswer, Vec<Refused>) {
        let mut state = self.lock();
        let mut answer = CheckAnswer { allowed: true, ..CheckAnswer::default() };
        let mut nexts = Vec::with_capacity(limits.len());
        for (limit, subject) in limits {
            let counted = (limit.name.clone(), subject.clone());
            let place = self.cell(&counted);
            let arrival = state.cells.get(&place).map_or(0, |cell| cell.arrival);
            let rate = Rate::new(limit.limit_threshold, limit.time_window_seconds, limit.burst());
            let found = rate.look(arrival, now.saturating_mul(1000), cost);
            let block = state.blocks.get(&counted).filter(|block| block.until > now);
            answer.add(state_of(limit, subject, found, block, now));
            nexts.push((place, found.next));
        }
        let mut refused = Vec::new();
        if !looks {
            if state.cells.len() + nexts.len() > SUBJECTS {
                forget_idle(&mut state.cells);
            }
            let allowed = answer.allowed;
            for (((limit, subject), (place, next)), found) in limits.iter().zip(nexts).zip(&answer.limits) {
                let cell = state.cells.entry(place).or_default();
                let window = limit.window_of(now);
                if cell.window != window {
                    (cell.window, cell.calls) = (window, 0);
                }
                cell.calls = cell.calls.saturating_add(cost);
                match next {
                    Some(next) if allowed => cell.arrival = next,
                    _ => {}
                }
                if !found.allowed && !found.blocked {
                    refused.push(Refused { limit: (*limit).clone(), subject: subject.clone(), window_start: window, calls: cell.calls });
                }
            }
        }
        (answer, refused)
    }

    /// Blocks somebody from now on.
    pub(super) fn block(&self, counted: Counted, block: Block) {
        self.lock().blocks.insert(counted, block);
    }

    /// Takes over the blocks that the register has.
    pub(super) fn set_blocks(&self, blocks: HashMap<Counted, Block>) {
        self.lock().blocks = blocks;
    }

    /// Ends a block; its subject begins anew.
    pub(super) fn release(&self, counted: &Counted) {
        let mut state = self.lock();
        state.blocks.remove(counted);
        state.cells.remove(&self.cell(counted));
    }

    /// Subjects remembered, and blocks.
    pub(super) fn size(&self) -> (usize, usize) {
        let state = self.lock();
        (state.cells.len(), state.blocks.len())
    }
}

impl CheckAnswer {
    fn add(&mut self, found: LimitState) {
        self.allowed &= found.allowed;
        if self.remaining.is_none_or(|fewest| found.remaining < fewest) {
            (self.remaining, self.reset_seconds) = (Some(found.remaining), Some(found.reset_seconds));
        }
        if !found.allowed {
            let never = self.limits.iter().any(|other| !other.allowed && other.retry_after_seconds.is_none());
            self.retry_after_seconds = match found.retry_after_seconds {
                Some(seconds) if !never => Some(self.retry_after_seconds.map_or(seconds, |longest: f64| longest.max(seconds))),
                _ => None,
            };
        }
        self.limits.push(found);
    }
}

fn state_of(limit: &Limit, subject: &str, found: Answer, block: Option<&Block>, now: i64) -> LimitState {
    let seconds = |nanoseconds: i64| nanoseconds as f64 / 1e9;
    let mut state = LimitState {
        limit: limit.name.clone(),
        subject: subject.to_owned(),
        allowed: found.next.is_some(),
        limit_threshold: limit.limit_threshold,
        time_window_seconds: limit.time_window_seconds,
        remaining: found.remaining,
        reset_seconds: seconds(found.reset),
        retry_after_seconds: found.retry.map(seconds),
        blocked: false,
    };
    if let Some(block) = block {
        let left = (block.until - now) as f64 / 1e6;
        state = LimitState { allowed: false, remaining: 0, reset_seconds: left, retry_after_seconds: Some(left), blocked: true, ..state };
    }
    state
}

/// Forgets the tenth of the subjects whose allowance is least taken: for most of them it is whole again.
fn forget_idle(cells: &mut HashMap<u128, Cell>) {
    let mut arrivals: Vec<i64> = cells.values().map(|cell| cell.arrival).collect();
    let tenth = arrivals.len() / 10;
    let (_, &mut bound, _) = arrivals.select_nth_unstable(tenth);
    cells.retain(|_, cell| cell.arrival > bound);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::limits::limit::CountedBy;

    fn limit(name: &str, calls: i64, window: i64) -> Limit {
        let json =
            serde_json::json!({ "name": name, "counted_by": CountedBy::User, "limit_threshold": calls, "time_window_seconds": window });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_call_takes_of_all_limits_or_of_none() {
        let (guard, a, b) = (Guard::default(), limit("a", 2, 60), limit("b", 5, 60));
        let both = [(&a, "7".to_owned()), (&b, "7".to_owned())];
        let now = 1_700_000_000_000_000;
        assert_eq!(guard.check(&both, 1, false, now).0.remaining, Some(1));
        assert_eq!(guard.check(&both, 1, true, now).0.remaining, Some(0));
        assert_eq!(guard.check(&both, 1, false, now).0.remaining, Some(0));
        let (answer, refused) = guard.check(&both, 1, false, now);
        assert!(!answer.allowed);
        assert_eq!(answer.retry_after_seconds, Some(30.0));
        assert_eq!(refused.iter().map(|refused| (refused.limit.name.as_str(), refused.calls)).collect::<Vec<_>>(), [("a", 3)]);
        assert_eq!(answer.limits[1].remaining, 2);
        let only_b = [(&b, "7".to_owned())];
        assert_eq!(guard.check(&only_b, 1, false, now).0.remaining, Some(2), "the refused call has taken nothing");
    }

    #[test]
    fn who_is_blocked_is_refused_until_the_block_ends_or_is_lifted() {
        let (guard, a) = (Guard::default(), limit("a", 2, 60));
        let call = [(&a, "7".to_owned())];
        let counted = ("a".to_owned(), "7".to_owned());
        guard.block(counted.clone(), Block { violation: 1, until: 60_000_000 });
        let (answer, refused) = guard.check(&call, 1, false, 30_000_000);
        assert_eq!((answer.allowed, answer.retry_after_seconds, refused.len()), (false, Some(30.0), 0));
        assert!(answer.limits[0].blocked);
        assert!(guard.check(&call, 1, true, 60_000_000).0.allowed);
        assert!(!guard.check(&call, 1, true, 59_000_000).0.allowed);
        guard.release(&counted);
        assert!(guard.check(&call, 1, true, 59_000_000).0.allowed);
    }

    #[test]
    fn memory_is_bounded_and_those_who_called_most_are_remembered() {
        let (guard, a) = (Guard::default(), limit("a", 3, 3600));
        let now = 1_700_000_000_000_000;
        let eager = [(&a, "eager".to_owned())];
        for _ in 0..3 {
            guard.check(&eager, 1, false, now);
        }
        for subject in 0..SUBJECTS + 1000 {
            guard.check(&[(&a, subject.to_string())], 1, false, now);
        }
        assert!(guard.size().0 <= SUBJECTS);
        assert!(!guard.check(&eager, 1, false, now).0.allowed);
    }
}
