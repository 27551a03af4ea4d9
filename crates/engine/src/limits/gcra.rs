//! The generic cell rate algorithm: one time per subject says all that has to be remembered.
//!
//! Each call takes an interval, the window divided by the calls allowed in it. The *theoretical arrival time* is when all intervals taken so far will have
//! passed; a call is allowed while that lies no further ahead than the burst.

/// A rate, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    interval: i64,
    tolerance: i64,
    burst: i64,
}

/// What a call finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The theoretical arrival time if the call goes on; `None` if it may not.
    pub next: Option<i64>,
    /// Calls left after this one, if it goes on; now, if it may not.
    pub remaining: i64,
    /// Nanoseconds until the whole burst is there again.
    pub reset: i64,
    /// Nanoseconds until the call would be allowed; `None` if it is, or never will be.
    pub retry: Option<i64>,
}

impl Rate {
    /// So many calls in a window of seconds, of them `burst` at once.
    pub(super) fn new(calls: i64, window_seconds: i64, burst: i64) -> Self {
        let interval = (window_seconds.saturating_mul(1_000_000_000) / calls.max(1)).max(1);
        Self { interval, tolerance: interval.saturating_mul(burst.max(1)), burst: burst.max(1) }
    }

    /// Looks at a call that counts as `cost` calls. `arrival` is what is remembered, 0 for nothing.
    pub(super) fn look(&self, arrival: i64, now: i64, cost: i64) -> Answer {
        let taken = self.interval.saturating_mul(cost);
        let base = arrival.max(now);
        let next = base.saturating_add(taken);
        let ahead = next - now;
        if ahead <= self.tolerance {
            return Answer { next: Some(next), remaining: (self.tolerance - ahead) / self.interval, reset: ahead, retry: None };
        }
        let retry = (cost <= self.burst).then_some(ahead - self.tolerance);
        Answer { next: None, remaining: (self.tolerance - (base - now)).max(0) / self.interval, reset: base - now, retry }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_burst_then_one_for_each_interval() {
        let rate = Rate::new(5, 60, 5);
        let (mut arrival, mut now) = (0, 1000 * SECOND);
        for left in (0..5).rev() {
            let answer = rate.look(arrival, now, 1);
            assert_eq!((answer.remaining, answer.reset), (left, (5 - left) * 12 * SECOND));
            arrival = answer.next.unwrap();
        }
        let refused = rate.look(arrival, now, 1);
        assert_eq!(refused, Answer { next: None, remaining: 0, reset: 60 * SECOND, retry: Some(12 * SECOND) });
        now += refused.retry.unwrap();
        assert!(rate.look(arrival, now - 1, 1).next.is_none());
        arrival = rate.look(arrival, now, 1).next.unwrap();
        assert!(rate.look(arrival, now, 1).next.is_none());
        assert_eq!(rate.look(arrival, now + 3600 * SECOND, 1).remaining, 4);
    }

    #[test]
    fn a_call_that_costs_more_than_a_burst_is_never_allowed() {
        let rate = Rate::new(100, 60, 10);
        assert_eq!(rate.look(0, SECOND, 10).remaining, 0);
        assert_eq!(rate.look(0, SECOND, 11), Answer { next: None, remaining: 10, reset: 0, retry: None });
    }

    /// Whatever the times between calls, no more than burst + elapsed / interval are allowed, and a caller that waits as told is allowed.
    #[test]
    fn never_more_than_the_rate_and_the_burst() {
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for _ in 0..200 {
            let (calls, window) = (next(1000) as i64 + 1, next(3600) as i64 + 1);
            let burst = next(calls as u64) as i64 + 1;
            let rate = Rate::new(calls, window, burst);
            let start = SECOND * 1_700_000_000;
            let (mut arrival, mut now, mut allowed) = (0, start, 0);
            for _ in 0..500 {
                let answer = rate.look(arrival, now, 1);
                match answer.next {
                    Some(next) => (arrival, allowed) = (next, allowed + 1),
                    None => assert!(rate.look(arrival, now + answer.retry.unwrap(), 1).next.is_some()),
                }
                let most = burst + (now - start) / rate.interval;
                assert!(allowed <= most, "{allowed} of {most}");
                now += next(2 * rate.interval as u64) as i64;
            }
        }
    }
}
