//! Slows down whoever tries keys: after some failures an address is told to wait. A key that is right is never locked out, so that nobody can lock out others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures of an address that are answered and recorded one by one, within [`WINDOW`].
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; beyond it all others share one count.
const REMEMBERED: usize = 10_000;

/// What becomes of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer it, and put it on the record.
    Tell,
    /// The address has to wait, from now on: put that on the record.
    Lock {
        /// Seconds.
        seconds: u32,
    },
    /// The address has to wait.
    Locked {
        /// Seconds.
        seconds: u32,
    },
}

#[derive(Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

/// Counts failures by address.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

impl Guard {
    /// Counts a failure.
    pub(crate) fn failed(&self, address: IpAddr, now: Instant) -> Verdict {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = network(address);
        if failures.len() >= REMEMBERED && !failures.contains_key(&place) {
            failures.retain(|_, failures| now.duration_since(failures.since) < WINDOW);
            if failures.len() >= REMEMBERED {
                place = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let entry = failures.entry(place).or_insert(Failures { since: now, count: 0 });
        if now.duration_since(entry.since) >= WINDOW {
            *entry = Failures { since: now, count: 0 };
        }
        entry.count = entry.count.saturating_add(1);
        let left = WINDOW.saturating_sub(now.duration_since(entry.since)).as_secs() as u32 + 1;
        match entry.count {
            count if count <= MOST => Verdict::Tell,
            count if count == MOST + 1 => Verdict::Lock { seconds: left },
            _ => Verdict::Locked { seconds: left },
        }
    }
}

/// What one client can choose from: a single IPv4 address, or the half of an IPv6 address that a network gives out.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_is_told_to_wait_and_may_try_again_later() {
        let (guard, now) = (Guard::default(), Instant::now());
        let (here, there): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..MOST {
            assert_eq!(guard.failed(here, now), Verdict::Tell);
        }
        assert_eq!(guard.failed(here, now), Verdict::Lock { seconds: 61 });
        assert_eq!(guard.failed(here, now + Duration::from_secs(20)), Verdict::Locked { seconds: 41 });
        assert_eq!(guard.failed(there, now), Verdict::Tell);
        assert_eq!(guard.failed(here, now + WINDOW), Verdict::Tell);
    }

    #[test]
    fn a_network_is_one_client() {
        let (guard, now) = (Guard::default(), Instant::now());
        let verdicts: Vec<Verdict> = (0..20).map(|host| guard.failed(format!("2001:db8::{host:x}").parse().unwrap(), now)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Tell).count(), MOST as usize);
    }

    #[test]
    fn memory_is_bounded() {
        let (guard, now) = (Guard::default(), Instant::now());
        for n in 0..2 * REMEMBERED as u32 {
            guard.failed(IpAddr::V4(n.into()), now);
        }
        assert!(guard.failures.lock().unwrap().len() <= REMEMBERED + 1);
    }
}
