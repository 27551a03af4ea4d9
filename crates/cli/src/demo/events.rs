//! Events as NDJSON, a body for each log.

use chrono::{DateTime, SecondsFormat};
use serde_json::Value;

/// A log of the demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Changes of data.
    Changes,
    /// Log-ins.
    Authentication,
    /// Permission checks and denials.
    Security,
    /// API calls.
    Api,
    /// Measurements.
    Performance,
}

/// All logs, with their names.
pub const LOGS: [(Log, &str); 5] = [
    (Log::Changes, "sys_audit_log"),
    (Log::Authentication, "auth_audit_log"),
    (Log::Security, "security_audit_log"),
    (Log::Api, "api_access_log"),
    (Log::Performance, "system_performance_log"),
];

/// Events that wait to be sent.
#[derive(Debug, Default)]
pub struct Events {
    bodies: [Vec<u8>; LOGS.len()],
    lines: [usize; LOGS.len()],
    /// Events until now, with those that were sent.
    pub total: u64,
}

impl Events {
    /// Adds an event; fields that are null are left out.
    pub fn push(&mut self, log: Log, mut event: Value) {
        if let Some(fields) = event.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let body = &mut self.bodies[log as usize];
        body.extend_from_slice(event.to_string().as_bytes());
        body.push(b'\n');
        self.lines[log as usize] += 1;
        self.total += 1;
    }

    /// Takes the bodies that have at least so many lines.
    pub fn take(&mut self, lines: usize) -> Vec<(&'static str, Vec<u8>)> {
        let mut taken = Vec::new();
        for (log, name) in LOGS {
            if self.lines[log as usize] >= lines.max(1) {
                self.lines[log as usize] = 0;
                taken.push((name, std::mem::take(&mut self.bodies[log as usize])));
            }
        }
        taken
    }
}

/// A time as events carry it.
pub fn stamp(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Micros, true)
}
