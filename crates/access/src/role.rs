//! The roles.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a user or key is there for. A principal may have several; what any of them allows is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sends records; reads nothing.
    Ingest,
    /// Reads records that are not confidential, with addresses, devices and payloads masked.
    Viewer,
    /// Reads, verifies, exports everything; changes nothing.
    Auditor,
    /// Works on security logs, sessions and investigations.
    Investigator,
    /// Answers for everything: reports, retention, holds, approvals.
    ComplianceOfficer,
    /// Configures, gives out keys and roles; sees no audit contents.
    Administrator,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 6] =
        [Self::Ingest, Self::Viewer, Self::Auditor, Self::Investigator, Self::ComplianceOfficer, Self::Administrator];

    /// Its name in configuration, JSON, SQL and the policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Investigator => "investigator",
            Self::ComplianceOfficer => "compliance_officer",
            Self::Administrator => "administrator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.name() == name).ok_or_else(|| UnknownRole(name.to_owned()))
    }
}

/// There is no such role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no role {0:?}; there are ingest, viewer, auditor, investigator, compliance_officer and administrator")]
pub struct UnknownRole(pub String);
