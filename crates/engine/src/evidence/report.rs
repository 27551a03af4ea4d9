//! The result of a verification, for people and for programs.

use muniment_ledger::bundle::Scope;
use muniment_ledger::verify::{Finding, Outcome, Verdict};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;

/// The result of a verification.
#[derive(Clone, Debug)]
pub struct Report {
    /// The ledger's name, as far as it is known.
    pub origin: String,
    /// What was demanded: every record, or those of a selection.
    pub scope: Scope,
    /// The verifier key that was trusted.
    pub key: String,
    /// Whether that key was given; else it is the first key of the store's own meta-log, and somebody who replaced the whole store was not
    /// looked for.
    pub key_given: bool,
    /// Counts and findings.
    pub outcome: Outcome,
}

impl Report {
    /// The kind of the result.
    pub fn verdict(&self) -> Verdict {
        self.outcome.verdict()
    }

    /// Whether nothing failed.
    pub fn is_valid(&self) -> bool {
        self.outcome.findings.is_empty()
    }

    /// 0 if nothing failed, else 1.
    pub fn exit_code(&self) -> u8 {
        self.outcome.exit_code()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.outcome)?;
        let scope = match self.scope {
            Scope::All => "every record",
            Scope::Selection => "a selection: other records may exist",
        };
        writeln!(f, "scope: {scope}")?;
        write!(f, "trusted key: {}", self.key)?;
        if !self.key_given {
            write!(f, " (the store's own first key; compare it with one that was published)")?;
        }
        Ok(())
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let outcome = &self.outcome;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("verdict", &self.verdict().to_string())?;
        map.serialize_entry("origin", &self.origin)?;
        map.serialize_entry("scope", &self.scope)?;
        map.serialize_entry("key", &self.key)?;
        map.serialize_entry("key_given", &self.key_given)?;
        map.serialize_entry("leaves", &outcome.leaves)?;
        map.serialize_entry("streams", &outcome.streams)?;
        map.serialize_entry("records", &outcome.records)?;
        map.serialize_entry("erased", &outcome.erased)?;
        map.serialize_entry("disposed", &outcome.disposed)?;
        map.serialize_entry("findings", &outcome.findings.iter().map(FindingJson).collect::<Vec<_>>())?;
        map.end()
    }
}

struct FindingJson<'a>(&'a Finding);

impl Serialize for FindingJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let finding = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("verdict", &finding.verdict.to_string())?;
        map.serialize_entry("stream", &finding.stream)?;
        map.serialize_entry("first", &finding.records.as_ref().map(|records| records.start))?;
        map.serialize_entry("end", &finding.records.as_ref().map(|records| records.end))?;
        map.serialize_entry("file", &finding.file)?;
        map.serialize_entry("reason", &finding.reason.to_string())?;
        map.end()
    }
}
