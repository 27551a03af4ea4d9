//! How many findings unattributed writes may cause: so many a minute for each session identity, then one that sums up the rest, so that an application which
//! never names anybody doesn't hide the one person who shouldn't have written. Time is the transactions' own.

use crate::finding::{Finding, FindingKind};
use crate::postgres::attribution::Session;
use std::collections::HashMap;

const MINUTE: i64 = 60_000_000;
/// Identities counted apart; further ones are counted as unknown.
const MAX_IDENTITIES: usize = 1000;

/// Findings of the current minute.
#[derive(Debug)]
pub(super) struct Quota {
    source: String,
    per_minute: u32,
    minute: i64,
    counts: HashMap<Session, Count>,
}

#[derive(Debug, Default)]
struct Count {
    told: u32,
    untold: u64,
}

impl Quota {
    pub fn new(source: &str, per_minute: u32) -> Self {
        Self { source: source.to_owned(), per_minute, minute: i64::MIN, counts: HashMap::new() }
    }

    /// Sums up earlier minutes.
    pub fn pass(&mut self, at: i64, findings: &mut Vec<u8>) {
        let minute = at.div_euclid(MINUTE);
        if minute <= self.minute {
            return;
        }
        let mut untold: Vec<(Session, Count)> = self.counts.drain().filter(|(_, count)| count.untold > 0).collect();
        untold.sort_by(|(a, _), (b, _)| (&a.user, &a.application, &a.address).cmp(&(&b.user, &b.application, &b.address)));
        for (session, count) in untold {
            let finding = Finding {
                kind: FindingKind::UnattributedWrite,
                username: session.user.as_deref(),
                ip_address: session.address.as_deref(),
                user_agent: session.application.as_deref(),
                resource: &self.source,
                reason: &format!("{} more transactions in the same minute say nothing about who made them", count.untold),
                at: Some(self.minute * MINUTE),
            };
            finding.write(findings);
        }
        self.minute = minute;
    }

    /// Whether an unattributed transaction gets a finding of its own. [`Quota::pass`] comes first.
    pub fn admit(&mut self, at: i64, session: Option<&Session>) -> bool {
        // Commit times can go back a little; then it counts for the minute that is open.
        debug_assert!(at.div_euclid(MINUTE) <= self.minute);
        let mut identity = session.cloned().unwrap_or_default();
        if self.counts.len() >= MAX_IDENTITIES && !self.counts.contains_key(&identity) {
            identity = Session::default();
        }
        let count = self.counts.entry(identity).or_default();
        if count.told < self.per_minute {
            count.told += 1;
            return true;
        }
        count.untold += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identity_does_not_hide_another() {
        let mut quota = Quota::new("pg:d", 2);
        let dba = Session { user: Some("dba".into()), ..Session::default() };
        let mut findings = Vec::new();
        quota.pass(0, &mut findings);
        let told: Vec<bool> = (0..5).map(|at| quota.admit(at, None)).collect();
        assert_eq!(told, [true, true, false, false, false]);
        assert!(quota.admit(6, Some(&dba)));
        quota.pass(MINUTE - 1, &mut findings);
        assert!(findings.is_empty());
        quota.pass(MINUTE, &mut findings);
        let text = String::from_utf8_lossy(&findings);
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("3 more transactions"));
        assert!(quota.admit(MINUTE, None));
    }
}
