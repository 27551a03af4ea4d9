//! Who made a change, from what the triggers noted beside it: the application's context, else the database session.

use crate::change::{Attribution, Context};
use crate::finding::{Finding, FindingKind};
use std::collections::BTreeSet;

/// Findings of one batch; what is beyond is summed up in one more.
const MAX_FINDINGS: usize = 20;

/// What is known about the session of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    pub user: Option<String>,
    pub application: Option<String>,
    pub address: Option<String>,
}

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub context: Context,
    pub attribution: Attribution,
    /// Why the context could not be understood.
    pub malformed: Option<String>,
}

/// Judges a context, which may be absent; an empty one, which an ended transaction leaves behind on its connection, is absent.
pub(super) fn who(context: Option<&str>, session: &Session) -> Who {
    let (context, malformed) = Context::read(context.unwrap_or_default().as_bytes());
    if context.names_somebody() {
        return Who { context, attribution: Attribution::Application, malformed };
    }
    if session.user.is_none() {
        return Who { context, attribution: Attribution::None, malformed };
    }
    let context = Context {
        user_name: session.user.clone(),
        user_agent: context.user_agent.or_else(|| session.application.clone().filter(|name| !name.is_empty())),
        ip_address: context.ip_address.or_else(|| session.address.clone()),
        ..context
    };
    Who { context, attribution: Attribution::Database, malformed }
}

/// Collects a batch's transactions that say nothing about who made them: one finding for each.
#[derive(Debug, Default)]
pub(super) struct Unattributed {
    open: Option<Open>,
    told: usize,
    untold: u64,
}

#[derive(Debug)]
struct Open {
    transaction: String,
    session: Session,
    tables: BTreeSet<String>,
    changes: u64,
    malformed: Option<String>,
    at: i64,
}

impl Unattributed {
    /// Notes an unattributed change. Changes of a transaction come one after the other.
    pub fn note(&mut self, transaction: &str, table: &str, at: i64, session: &Session, malformed: Option<String>, findings: &mut Vec<u8>) {
        if self.open.as_ref().is_none_or(|open| open.transaction != transaction) {
            self.close(findings);
            let (transaction, session) = (transaction.to_owned(), session.clone());
            self.open = Some(Open { transaction, session, tables: BTreeSet::new(), changes: 0, malformed: None, at });
        }
        if let Some(open) = &mut self.open {
            open.changes += 1;
            open.malformed = open.malformed.take().or(malformed);
            if open.tables.len() < 20 {
                open.tables.insert(table.to_owned());
            }
        }
    }

    fn close(&mut self, findings: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        if self.told >= MAX_FINDINGS {
            self.untold += 1;
            return;
        }
        self.told += 1;
        let tables: Vec<&str> = open.tables.iter().map(String::as_str).collect();
        let (changes, transaction) = (open.changes, &open.transaction);
        let reason = match &open.malformed {
            Some(malformed) => format!("{changes} changes of transaction {transaction} have a context that is not valid: {malformed}"),
            None => format!("{changes} changes of transaction {transaction} say nothing about who made them"),
        };
        let finding = Finding {
            kind: FindingKind::UnattributedWrite,
            username: open.session.user.as_deref(),
            ip_address: open.session.address.as_deref(),
            user_agent: open.session.application.as_deref(),
            resource: &tables.join(", "),
            reason: &reason,
            at: Some(open.at),
        };
        finding.write(findings);
    }

    /// Ends the batch.
    pub fn finish(mut self, source: &str, at: i64, findings: &mut Vec<u8>) {
        self.close(findings);
        if self.untold > 0 {
            let reason = format!("{} more transactions read together with these say nothing about who made them", self.untold);
            let kind = FindingKind::UnattributedWrite;
            let finding =
                Finding { kind, username: None, ip_address: None, user_agent: None, resource: source, reason: &reason, at: Some(at) };
            finding.write(findings);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts() {
        let dba = Session { user: Some("dba".into()), application: Some("psql".into()), address: None };
        let check = |text: Option<&str>, expected| assert_eq!(who(text, &dba).attribution, expected, "{text:?}");
        check(Some(r#"{"user_id":7}"#), Attribution::Application);
        check(Some(r#"{"change_reason":"x"}"#), Attribution::Database);
        for nothing in [None, Some(""), Some(" "), Some("null"), Some("{}")] {
            check(nothing, Attribution::Database);
        }
        for malformed in ["{", "[]", "7", r#"{"user_id":"seven"}"#] {
            check(Some(malformed), Attribution::Database);
            assert!(who(Some(malformed), &dba).malformed.is_some());
        }
    }

    #[test]
    fn one_finding_a_transaction() {
        let (mut findings, mut all) = (Vec::new(), Unattributed::default());
        for number in 0..30 {
            for _ in 0..2 {
                all.note(&number.to_string(), "t", 0, &Session::default(), None, &mut findings);
            }
        }
        all.finish("q", 0, &mut findings);
        let text = String::from_utf8_lossy(&findings).into_owned();
        assert_eq!(text.lines().count(), 21);
        assert!(text.contains("2 changes of transaction 19 ") && text.contains("10 more transactions"));
    }
}
