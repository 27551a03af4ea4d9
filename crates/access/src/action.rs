//! What can be done through any door.

/// One kind of thing that a principal can ask for. What it is done to (a log, a register, a record's level) is the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Store records in a log, by any way in: JSON, Debezium, wal2json.
    Ingest,
    /// Read a table: SQL, history, state at an instant, blame, transactions, undo scripts, tail.
    Read,
    /// Read masked columns or confidential records in clear.
    ReadUnmasked,
    /// Take records out with their proofs: export, proof files.
    Export,
    /// Run a verification, or compare an attached database with the log.
    Verify,
    /// Ask whether a call may go on, and record it against its limit.
    CheckLimit,
    /// Start, touch and end sessions of users.
    ManageSessions,
    /// Open, assign, annotate and resolve investigations; resolve findings.
    Investigate,
    /// Ask for masked contents in clear, with a reason.
    RequestUnmasking,
    /// Approve somebody else's request.
    ApproveUnmasking,
    /// Retention policies, legal holds, reports.
    ManageCompliance,
    /// The directory of users and their roles.
    ManageUsers,
    /// API keys.
    ManageKeys,
    /// Attached databases, limits, thresholds, the signing key.
    Configure,
    /// Metrics of the service itself.
    ReadMetrics,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 15] = [
        Self::Ingest,
        Self::Read,
        Self::ReadUnmasked,
        Self::Export,
        Self::Verify,
        Self::CheckLimit,
        Self::ManageSessions,
        Self::Investigate,
        Self::RequestUnmasking,
        Self::ApproveUnmasking,
        Self::ManageCompliance,
        Self::ManageUsers,
        Self::ManageKeys,
        Self::Configure,
        Self::ReadMetrics,
    ];

    /// Its name in the policy, in key scopes and in the records of reading.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::ReadUnmasked => "read_unmasked",
            Self::Export => "export",
            Self::Verify => "verify",
            Self::CheckLimit => "check_limit",
            Self::ManageSessions => "manage_sessions",
            Self::Investigate => "investigate",
            Self::RequestUnmasking => "request_unmasking",
            Self::ApproveUnmasking => "approve_unmasking",
            Self::ManageCompliance => "manage_compliance",
            Self::ManageUsers => "manage_users",
            Self::ManageKeys => "manage_keys",
            Self::Configure => "configure",
            Self::ReadMetrics => "read_metrics",
        }
    }
}
