//! Findings: what capture itself has to report, as lines of `security_audit_log`.

use crate::row::{cut, without_nul, write_string};
use std::net::IpAddr;

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FindingKind {
    /// A transaction said nothing, or nothing valid, about who made it, and it did not come from a known application.
    UnattributedWrite,
    /// Changes may have been made that were not captured.
    CaptureGap,
    /// Rows changed, or can change, without the source's noticing: disabled triggers, an unlogged table, DDL that rewrites rows.
    CaptureBypassed,
    /// The source falls behind, and the audited database keeps WAL for it.
    SlotLag,
}

impl FindingKind {
    /// As in `security_audit_log.event_type`.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::UnattributedWrite => "UNATTRIBUTED_WRITE",
            Self::CaptureGap => "CAPTURE_GAP",
            Self::CaptureBypassed => "CAPTURE_BYPASSED",
            Self::SlotLag => "SLOT_LAG",
        }
    }

    /// As in `security_audit_log.event_category`.
    pub fn category(self) -> &'static str {
        match self {
            Self::UnattributedWrite => "DATA_ACCESS",
            _ => "SYSTEM",
        }
    }

    /// As in `security_audit_log.severity`, 1 to 4.
    pub fn severity(self) -> u8 {
        match self {
            Self::UnattributedWrite => 2,
            Self::CaptureGap => 4,
            Self::CaptureBypassed | Self::SlotLag => 3,
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding<'a> {
    /// What kind.
    pub kind: FindingKind,
    /// The database's user, if known.
    pub username: Option<&'a str>,
    /// The client's address, if known.
    pub ip_address: Option<&'a str>,
    /// The client's program, if known.
    pub user_agent: Option<&'a str>,
    /// What it is about: tables, or the source's name.
    pub resource: &'a str,
    /// What was found, in plain words.
    pub reason: &'a str,
    /// When, µs UTC; `None` for the time it is stored.
    pub at: Option<i64>,
}

impl Finding<'_> {
    /// Appends the finding as one line of `security_audit_log`, with its line end. Texts longer than their column are cut; an unknown address is `0.0.0.0`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let text = |name: &str, value: Option<&str>, chars: usize, out: &mut Vec<u8>| {
            let Some(value) = value else { return };
            out.extend_from_slice(name.as_bytes());
            write_string(cut(&without_nul(value), chars), out);
        };
        let (kind, category, severity) = (self.kind.event_type(), self.kind.category(), self.kind.severity());
        let head = format!("{{\"event_type\":\"{kind}\",\"event_category\":\"{category}\",\"severity\":{severity}");
        out.extend_from_slice(head.as_bytes());
        text(",\"username\":", self.username, 100, out);
        let address = self.ip_address.filter(|address| address.parse::<IpAddr>().is_ok()).unwrap_or("0.0.0.0");
        text(",\"ip_address\":", Some(address), 64, out);
        text(",\"user_agent\":", self.user_agent, 1000, out);
        text(",\"resource_accessed\":", Some(self.resource), 500, out);
        text(",\"failure_reason\":", Some(self.reason), 1000, out);
        if let Some(at) = self.at {
            out.extend_from_slice(format!(",\"event_time\":{at}").as_bytes());
        }
        out.extend_from_slice(b",\"requires_investigation\":true}\n");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_finding_is_accepted_whatever_it_says() {
        let long = "ư\0\"".repeat(2000);
        for kind in [FindingKind::UnattributedWrite, FindingKind::CaptureGap, FindingKind::CaptureBypassed, FindingKind::SlotLag] {
            let finding = Finding {
                kind,
                username: Some(&long),
                ip_address: Some("not an address"),
                user_agent: Some(&long),
                resource: &long,
                reason: &long,
                at: Some(1_700_000_000_000_000),
            };
            let mut line = Vec::new();
            finding.write(&mut line);
            assert_eq!(crate::accepted("security_audit_log", &line), 1);
        }
    }
}
