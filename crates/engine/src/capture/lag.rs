//! When a source that falls behind becomes a finding: once for each time that it does.

use super::CaptureConfig;
use muniment_capture::health::Health;
use muniment_capture::{Finding, FindingKind};

/// A source is no longer behind when less than this part of a threshold is left of it.
const RECOVERED: f64 = 0.5;

/// Whether a source is behind, and what was said about it.
#[derive(Debug, Default)]
pub(super) struct Lag {
    behind: bool,
    complaints: Vec<String>,
}

impl Lag {
    /// Takes note of a look at the source; returns a line of `security_audit_log` for each thing that is newly wrong.
    pub(super) fn findings(&mut self, source: &str, health: &Health, config: &CaptureConfig, now: i64) -> Vec<u8> {
        let mut lines = Vec::new();
        let share = severity(health, config);
        if share >= 1.0 && !self.behind {
            self.behind = true;
            write(source, FindingKind::SlotLag, &describe(health), now, &mut lines);
        } else if share < RECOVERED {
            self.behind = false;
        }
        for complaint in health.complaints.iter().filter(|complaint| !self.complaints.contains(complaint)) {
            write(source, FindingKind::CaptureBypassed, complaint, now, &mut lines);
        }
        self.complaints.clone_from(&health.complaints);
        lines
    }
}

/// How much of the nearest threshold is used up; 1 and more is beyond it.
fn severity(health: &Health, config: &CaptureConfig) -> f64 {
    let bytes = health.lag_bytes.unwrap_or(0) as f64 / config.lag_bytes.max(1) as f64;
    let time = health.lag_seconds.unwrap_or(0.0) / config.lag_time.as_secs_f64().max(1.0);
    let threatened = match health.wal_status.as_deref() {
        Some("unreserved" | "lost") => 1.0,
        _ => 0.0,
    };
    bytes.max(time).max(threatened)
}

fn describe(health: &Health) -> String {
    let bytes = health.lag_bytes.map(|bytes| format!("{bytes} bytes and ")).unwrap_or_default();
    let mut text = format!("{bytes}{:.0} s behind", health.lag_seconds.unwrap_or(0.0));
    if let Some(status) = &health.wal_status {
        text.push_str(&format!("; WAL kept for it is {status}"));
    }
    if let Some(safe) = health.safe_wal_bytes {
        text.push_str(&format!("; after {safe} further bytes the database drops changes that were not read"));
    }
    text
}

fn write(source: &str, kind: FindingKind, reason: &str, now: i64, lines: &mut Vec<u8>) {
    Finding { kind, username: None, ip_address: None, user_agent: None, resource: source, reason, at: Some(now) }.write(lines);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_source_that_falls_behind_is_reported_once_until_it_has_recovered() {
        let config = CaptureConfig { lag_bytes: 1000, lag_time: Duration::from_secs(60) };
        let mut lag = Lag::default();
        let mut look = |bytes, seconds| {
            let health = Health { lag_bytes: Some(bytes), lag_seconds: Some(seconds), ..Health::default() };
            String::from_utf8(lag.findings("pg:app", &health, &config, 0)).unwrap().lines().count()
        };
        assert_eq!([look(10, 0.0), look(1000, 1.0), look(5000, 9.0), look(900, 9.0), look(1000, 9.0)], [0, 1, 0, 0, 0]);
        assert_eq!([look(10, 0.0), look(10, 61.0), look(10, 70.0)], [0, 1, 0]);
    }

    #[test]
    fn what_the_database_threatens_to_drop_is_reported() {
        let health = Health { wal_status: Some("unreserved".into()), safe_wal_bytes: Some(-5), ..Health::default() };
        let lines = Lag::default().findings("pg:app", &health, &CaptureConfig::default(), 0);
        assert!(String::from_utf8(lines).unwrap().contains("SLOT_LAG"));
    }
}
