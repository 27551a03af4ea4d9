//! What happened lately: durations and outcomes of the last minute or two, without locks on the way in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Buckets of durations: eight for each doubling, from a microsecond to more than an hour. A quantile is off by at most a tenth.
const BUCKETS: usize = 256;
const PER_DOUBLING: f64 = 8.0;

/// Counts of one span of time.
#[derive(Clone, Debug)]
struct Counts {
    buckets: Box<[u64; BUCKETS]>,
    succeeded: u64,
    failed: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), succeeded: 0, failed: 0 }
    }
}

impl Counts {
    fn minus(&self, earlier: &Self) -> Self {
        let mut counts = self.clone();
        counts.buckets.iter_mut().zip(earlier.buckets.iter()).for_each(|(bucket, before)| *bucket -= before);
        counts.succeeded -= earlier.succeeded;
        counts.failed -= earlier.failed;
        counts
    }
}

/// Durations of commits, and how requests ended.
#[derive(Debug)]
pub struct Recent {
    buckets: Box<[AtomicU64; BUCKETS]>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// All counts as they were at the last two marks.
    marks: Mutex<[Counts; 2]>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            buckets: Box::new([const { AtomicU64::new(0) }; BUCKETS]),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            marks: Mutex::default(),
        }
    }
}

/// What happened in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lately {
    /// Commits.
    pub commits: u64,
    /// Half of them took at most so many milliseconds.
    pub commit_p50_ms: f64,
    /// All but one in a hundred of them took at most so many milliseconds.
    pub commit_p99_ms: f64,
    /// Requests whose records were stored.
    pub succeeded: u64,
    /// Requests that failed, and not because of what was in them.
    pub failed: u64,
}

impl Lately {
    /// Share of the requests that failed, percent.
    pub fn error_rate(&self) -> f64 {
        let all = self.succeeded + self.failed;
        if all == 0 { 0.0 } else { 100.0 * self.failed as f64 / all as f64 }
    }
}

impl Recent {
    /// Counts a commit.
    pub fn commit(&self, duration: Duration) {
        let micros = duration.as_micros().max(1) as f64;
        let bucket = ((micros.log2() * PER_DOUBLING) as usize).min(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request.
    pub fn request(&self, succeeded: bool) {
        if succeeded { &self.succeeded } else { &self.failed }.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> Counts {
        let mut counts = Counts::default();
        counts.buckets.iter_mut().zip(self.buckets.iter()).for_each(|(count, bucket)| *count = bucket.load(Ordering::Relaxed));
        counts.succeeded = self.succeeded.load(Ordering::Relaxed);
        counts.failed = self.failed.load(Ordering::Relaxed);
        counts
    }

    /// What happened since the last mark, which is set anew.
    pub fn mark(&self) -> Lately {
        let now = self.now();
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let [before, last] = &mut *marks;
        let lately = lately(&now.minus(last));
        *before = std::mem::replace(last, now);
        lately
    }

    /// What happened since the mark before the last one.
    pub fn lately(&self) -> Lately {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        lately(&self.now().minus(&marks[0]))
    }
}

fn lately(counts: &Counts) -> Lately {
    let commits: u64 = counts.buckets.iter().sum();
    let quantile = |share: f64| {
        let rank = (commits as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = counts.buckets.iter().position(|count| {
            seen += count;
            seen >= rank && commits > 0
        });
        // The middle of the bucket.
        found.map_or(0.0, |bucket| 2_f64.powf((bucket as f64 + 0.5) / PER_DOUBLING) / 1000.0)
    };
    Lately { commits, commit_p50_ms: quantile(0.5), commit_p99_ms: quantile(0.99), succeeded: counts.succeeded, failed: counts.failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_off_by_a_tenth_at_most() {
        let recent = Recent::default();
        (1..=1000).for_each(|ms| recent.commit(Duration::from_millis(ms)));
        let lately = recent.mark();
        assert_eq!(lately.commits, 1000);
        assert!((450.0..550.0).contains(&lately.commit_p50_ms), "{lately:?}");
        assert!((900.0..1100.0).contains(&lately.commit_p99_ms), "{lately:?}");
    }

    #[test]
    fn a_mark_begins_a_new_span_and_what_was_lately_reaches_back_to_the_one_before() {
        let recent = Recent::default();
        recent.request(true);
        recent.request(false);
        assert_eq!(recent.mark().error_rate(), 50.0);
        recent.request(true);
        assert_eq!(recent.lately().succeeded, 2);
        assert_eq!((recent.mark().succeeded, recent.mark().succeeded), (1, 0));
        assert_eq!(recent.lately().succeeded, 0);
        assert_eq!(Recent::default().mark(), Lately::default());
    }
}
