//! Counting calls in event time: how many each subject made in each window of a limit. Windows follow each other from 1970 on, so that the order in which records
//! come within the time that late ones have doesn't matter: the counts are the same.

use super::limit::Limit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long after its end a window waits for records that come late.
pub(super) const LATENESS: i64 = 600_000_000;
/// Windows counted at a time. Beyond it, the oldest are closed early.
const WINDOWS: usize = 50_000;

/// A subject's window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct WindowKey {
    /// First, so that the oldest windows come first.
    pub end: i64,
    pub start: i64,
    pub limit: String,
    pub subject: String,
}

/// What is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    pub calls: i64,
    /// Calls that the row of its violation says; 0 if there is none.
    pub written: i64,
}

/// All open windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Windows {
    /// How far event time has come: the newest event, but never ahead of the commit that holds it.
    watermark: i64,
    /// Records that came after their window was closed.
    pub late: u64,
    #[serde(with = "pairs")]
    open: BTreeMap<WindowKey, Count>,
}

/// A map with a key that is no text, as a list.
mod pairs {
    use super::{BTreeMap, Count, WindowKey};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<WindowKey, Count>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.iter().map(|(key, count)| (key.end, key.start, &key.limit, &key.subject, count.calls, count.written)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<WindowKey, Count>, D::Error> {
        let rows = Vec::<(i64, i64, String, String, i64, i64)>::deserialize(deserializer)?;
        let window = |(end, start, limit, subject, calls, written)| (WindowKey { end, start, limit, subject }, Count { calls, written });
        Ok(rows.into_iter().map(window).collect())
    }
}

impl Windows {
    /// When a record counts: its own time, but not later than it was stored.
    pub(super) fn time_of(event_time: i64, recorded_at: i64) -> i64 {
        event_time.min(recorded_at)
    }

    /// Counts a call at this time; `None` if its window is closed.
    pub(super) fn count(&mut self, limit: &Limit, subject: &str, time: i64) -> Option<(WindowKey, Count)> {
        let start = limit.window_of(time);
        let end = start + limit.time_window_seconds * 1_000_000;
        if end + LATENESS <= self.watermark {
            self.late += 1;
            return None;
        }
        let key = WindowKey { end, start, limit: limit.name.clone(), subject: subject.to_owned() };
        let count = self.open.entry(key.clone()).or_default();
        count.calls += 1;
        Some((key, *count))
    }

    /// Event time goes on. Returns the windows that are closed by it.
    pub(super) fn advance(&mut self, time: i64) -> Vec<(WindowKey, Count)> {
        self.watermark = self.watermark.max(time);
        let mut closed = Vec::new();
        while let Some(oldest) = self.open.first_entry() {
            if oldest.key().end + LATENESS > self.watermark {
                break;
            }
            closed.push(oldest.remove_entry());
        }
        while self.open.len() > WINDOWS {
            closed.extend(self.open.pop_first());
        }
        closed
    }

    /// Notes what the row of a violation says.
    pub(super) fn written(&mut self, key: &WindowKey, calls: i64) {
        if let Some(count) = self.open.get_mut(key) {
            count.written = calls;
        }
    }

    /// Number of open windows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::limits::limit::CountedBy;
    use std::collections::BTreeSet;

    const MINUTE: i64 = 60_000_000;

    fn limit() -> Limit {
        let json = serde_json::json!({ "name": "l", "counted_by": CountedBy::User, "limit_threshold": 2 });
        serde_json::from_value(json).unwrap()
    }

    /// Final counts of all windows, however the events come within the time for late ones.
    fn counts(events: &[(i64, &str)]) -> BTreeSet<(i64, String, i64)> {
        let (mut windows, limit) = (Windows::default(), limit());
        let mut closed = Vec::new();
        for (time, subject) in events {
            windows.count(&limit, subject, *time);
            closed.extend(windows.advance(*time));
        }
        closed.extend(windows.advance(i64::MAX / 2));
        assert_eq!((windows.late, windows.len()), (0, 0));
        closed.into_iter().map(|(key, count)| (key.start / MINUTE, key.subject, count.calls)).collect()
    }

    #[test]
    fn the_order_of_records_does_not_matter_within_the_time_for_late_ones() {
        let mut events: Vec<(i64, &str)> = (0..200).map(|n: i64| (n * 3_000_000 + 7, if n % 3 == 0 { "1" } else { "2" })).collect();
        let expected = counts(&events);
        assert_eq!(expected.iter().map(|(.., calls)| calls).sum::<i64>(), 200);
        let mut random = 88_172_645_463_325_252_u64;
        for _ in 0..20 {
            for at in (1..events.len()).rev() {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                events.swap(at, random as usize % (at + 1));
            }
            assert_eq!(counts(&events), expected);
        }
    }

    #[test]
    fn a_record_that_comes_after_its_window_was_closed_is_counted_as_late() {
        let (mut windows, limit) = (Windows::default(), limit());
        windows.count(&limit, "1", 0);
        assert!(windows.advance(MINUTE + LATENESS - 1).is_empty());
        assert!(windows.count(&limit, "1", 1).is_some());
        let closed = windows.advance(MINUTE + LATENESS);
        assert_eq!(closed.iter().map(|(_, count)| count.calls).collect::<Vec<_>>(), [2]);
        assert_eq!(windows.count(&limit, "1", 2), None);
        assert_eq!(windows.late, 1);
    }

    #[test]
    fn what_is_remembered_survives_being_written_down() {
        let (mut windows, limit) = (Windows::default(), limit());
        let (key, _) = windows.count(&limit, "1|\"ư", 5).unwrap();
        windows.written(&key, 1);
        windows.advance(5);
        let text = serde_json::to_string(&windows).unwrap();
        assert_eq!(serde_json::from_str::<Windows>(&text).unwrap(), windows);
    }
}
