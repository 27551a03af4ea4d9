//! The registers: ordinary tables of the commit database.

use crate::DefaultValue::{self, Identity, Now};
use crate::{Check, Column, ForeignKey, Index, Kind, Table};

const INT32: i64 = i32::MAX as i64;

/// What can happen to a row. The first three are the seeds'.
pub(super) const OPERATIONS: &[&str] = &["INSERT", "UPDATE", "DELETE", "TRUNCATE", "DDL", "SNAPSHOT"];

pub(super) const fn id(seed: &'static str) -> Column {
    Column::int("id", 1, i64::MAX, seed, "Number of the row.").or(Identity).unique()
}

pub(super) const fn user(name: &'static str, seed: &'static str, doc: &'static str) -> Column {
    Column::int(name, 1, i64::MAX, seed, doc)
}

pub(super) const fn to_user(column: &'static str, seed: &'static str) -> ForeignKey {
    ForeignKey { column, table: "users", target: "id", seed }
}

pub(super) const fn index(name: &'static str, columns: &'static [&'static str], seed: &'static str) -> Index {
    Index { name, columns, seed, stands_for: "an index of the commit database" }
}

/// Who the records speak of.
pub(super) static USERS: Table = Table {
    name: "users",
    kind: Kind::Register,
    title: "Users",
    seed: "users, [identity].USER_PROFILE",
    columns: &[
        Column { seed: "users.id, USER_PROFILE.UserID", ..id("") },
        Column::text("external_id", 255, "", "The user's key in the system that the user comes from.").unique(),
        Column::text("username", 100, "", "Log-in name.").required().unique(),
        Column::text("display_name", 255, "", "Name to show."),
        Column::text("email", 320, "", "E-mail address."),
        Column::bool("is_active", "", "Whether the user may log in.").or(DefaultValue::Bool(true)),
        Column::text("source", 100, "", "The system that the user comes from.").or(DefaultValue::Text("local")),
        Column::time("created_at", "", "Time the row was made.").or(Now),
        Column::time("updated_at", "", "Time of the last change.").or(Now),
        Column::time("deactivated_at", "", "Time since when the user may not log in."),
    ],
    ledger_columns: &[],
    indexes: &[],
    foreign_keys: &[],
    checks: &[],
    doc: "People and service accounts that records refer to. The seeds refer to this table and don't define it.",
};

/// What stands for the queue's indexes.
const IN_ORDER: &str = "the queue's own order: its lines leave within moments, so there are few";

/// Changes waiting to be captured.
pub(super) static SYS_AUDIT_QUEUE: Table = Table {
    name: "sys_audit_queue",
    kind: Kind::Register,
    title: "Changes waiting to be captured",
    seed: "[audit].SYS_AUDIT_QUEUE",
    columns: &[
        id("SYS_AUDIT_QUEUE.ID"),
        Column::text("table_name", 128, "SYS_AUDIT_QUEUE.TableName", "The table that changed.").required(),
        Column::text("primary_key", 100, "SYS_AUDIT_QUEUE.PrimaryKey", "Key of the row that changed, as text.").required(),
        Column::text("operation", 10, "SYS_AUDIT_QUEUE.Operation", "What happened to the row.").required().values(OPERATIONS),
        Column::time("queued_at", "SYS_AUDIT_QUEUE.QueuedAt", "Time it was queued.").or(Now),
        Column::time("processed_at", "SYS_AUDIT_QUEUE.ProcessedAt", "Time it was processed."),
        Column::bool("is_processed", "SYS_AUDIT_QUEUE.IsProcessed", "Whether it was processed.").or(DefaultValue::Bool(false)),
        Column::int("processing_attempts", 0, INT32, "SYS_AUDIT_QUEUE.ProcessingAttempts", "How often it was tried.").or(DefaultValue::Int(0)).unit("attempts"),
        Column::text("last_error", 1000, "SYS_AUDIT_QUEUE.LastError", "Why it failed the last time."),
    ],
    ledger_columns: &[],
    indexes: &[
        Index { stands_for: IN_ORDER, ..index("ix_queue_unprocessed", &["is_processed", "queued_at"], "IX_Queue_Unprocessed") },
        Index { stands_for: IN_ORDER, ..index("ix_queue_table", &["table_name", "queued_at DESC"], "IX_Queue_Table") },
        Index { stands_for: IN_ORDER, ..index("ix_queue_processing", &["processing_attempts", "queued_at"], "IX_Queue_Processing") },
    ],
    foreign_keys: &[],
    checks: &[],
    doc: "Triggers put a line here for each change; capture takes it from here into `sys_audit_log`. In the commit database this is a view of the queue that the triggers of the registers write, `muniment_audit_queue`; an audited PostgreSQL database has its own, `muniment.sys_audit_queue`.",
};

/// Findings of detection.
pub(super) static SECURITY_EVENTS: Table = Table {
    name: "security_events",
    kind: Kind::Register,
    title: "Findings of detection",
    seed: "security_events",
    columns: &[
        id("security_events.id"),
        user("user_id", "security_events.user_id", "The user concerned, if known."),
        Column::text("event_category", 255, "security_events.event_category", "Class of the finding.").required(),
        Column::text("severity_level", 255, "security_events.severity_level", "How grave it is, such as `LOW`, `MEDIUM`, `HIGH`, `CRITICAL`.").required(),
        Column::text("threat_type", 255, "security_events.threat_type", "Kind of threat, such as `BRUTE_FORCE`."),
        Column::inet("source_ip", "security_events.source_ip", "Address it came from."),
        Column::text("target_resource", 255, "security_events.target_resource", "What was attacked."),
        Column::text("attack_vector", 255, "security_events.attack_vector", "How it was attacked."),
        Column::text("detection_method", 255, "security_events.detection_method", "Rule or person that found it."),
        Column::text("mitigation_action", 255, "security_events.mitigation_action", "What was done about it."),
        Column::bool("is_resolved", "security_events.is_resolved", "Whether it is dealt with.").or(DefaultValue::Bool(false)),
        Column::bool("false_positive", "security_events.false_positive", "Whether it turned out to be nothing.").or(DefaultValue::Bool(false)),
        Column::text("analyst_notes", 4000, "security_events.analyst_notes", "Notes of whoever looked into it."),
        Column::time("created_at", "security_events.created_at", "Time of the finding.").or(Now),
        Column::time("resolved_at", "security_events.resolved_at", "Time it was dealt with."),
        Column::text("resolved_by", 255, "security_events.resolved_by", "Who dealt with it, by name."),
    ],
    ledger_columns: &[],
    indexes: &[
        index("ix_security_events_user", &["user_id", "created_at DESC"], ""),
        index("ix_security_events_open", &["is_resolved", "created_at DESC"], ""),
    ],
    foreign_keys: &[to_user("user_id", "users ||--o{ security_events : \"triggers\"")],
    checks: &[],
    doc: "What detection found in the logs, and what became of it.",
};

/// Senders that asked too often.
pub(super) static RATE_LIMIT_VIOLATIONS: Table = Table {
    name: "rate_limit_violations",
    kind: Kind::Register,
    title: "Rate limits exceeded",
    seed: "rate_limit_violations",
    columns: &[
        id("rate_limit_violations.id"),
        user("user_id", "rate_limit_violations.user_id", "The user concerned, if known."),
        Column::inet("ip_address", "rate_limit_violations.ip_address", "Address the requests came from.").required(),
        Column::text("endpoint", 255, "rate_limit_violations.endpoint", "What was called.").required(),
        Column::int("request_count", 0, INT32, "rate_limit_violations.request_count", "Requests within the window.").required().unit("requests"),
        Column::int("limit_threshold", 0, INT32, "rate_limit_violations.limit_threshold", "Requests allowed within the window.").required().unit("requests"),
        Column::int("time_window_minutes", 0, INT32, "rate_limit_violations.time_window_minutes", "Length of the window.").required().unit("minutes"),
        Column::text("violation_type", 255, "rate_limit_violations.violation_type", "Which kind of limit it was."),
        Column::text("user_agent", 1000, "rate_limit_violations.user_agent", "Program the requests came from."),
        Column::int("blocked_duration_minutes", 0, INT32, "rate_limit_violations.blocked_duration_minutes", "How long the sender is blocked.")
            .or(DefaultValue::Int(0))
            .unit("minutes"),
        Column::time("created_at", "rate_limit_violations.created_at", "Time of the violation.").or(Now),
        Column::time("unblocked_at", "rate_limit_violations.unblocked_at", "Time the block ended."),
        Column::text("limit_name", 100, "", "Name of the limit: `rate_limits.name`."),
        Column::text("subject", 255, "", "Who was counted: the user, address or key; for a limit of everybody together, the endpoint."),
        Column::time("window_start", "", "Start of the window."),
        Column::text("window_key", 700, "", "Limit, subject and window together: one row for each.").unique(),
    ],
    ledger_columns: &[],
    indexes: &[
        index("ix_rate_limit_violations_user", &["user_id", "created_at DESC"], ""),
        index("ix_rate_limit_violations_ip", &["ip_address", "created_at DESC"], ""),
        index("ix_rate_limit_violations_blocked", &["unblocked_at", "created_at DESC"], ""),
    ],
    foreign_keys: &[to_user("user_id", "users ||--o{ rate_limit_violations : \"causes\"")],
    checks: &[],
    doc: "Who called an endpoint more often than allowed, and for how long they were shut out.",
};

/// Sessions.
pub(super) static USER_SESSIONS: Table = Table {
    name: "user_sessions",
    kind: Kind::Register,
    title: "Sessions",
    seed: "user_sessions",
    columns: &[
        id("user_sessions.id"),
        Column::text("session_id", 255, "user_sessions.session_id", "Identifies the session.").required().unique(),
        user("user_id", "user_sessions.user_id", "Whose session it is."),
        Column::text("device_fingerprint", 255, "user_sessions.device_fingerprint", "Fingerprint of the device."),
        Column::inet("ip_address", "user_sessions.ip_address", "Address it was opened from."),
        Column::text("user_agent", 1000, "user_sessions.user_agent", "Program it was opened from."),
        Column::json("location", "user_sessions.location", "Where the address is."),
        Column::time("created_at", "user_sessions.created_at", "Time it was opened.").or(Now),
        Column::time("last_activity_at", "user_sessions.last_activity_at", "Time it was last used.").or(Now),
        Column::time("expires_at", "user_sessions.expires_at", "Time it ends by itself.").required(),
        Column::bool("is_active", "user_sessions.is_active", "Whether it is open.").or(DefaultValue::Bool(true)),
        Column::text("logout_reason", 255, "user_sessions.logout_reason", "Why it was closed."),
        Column::time("logout_at", "user_sessions.logout_at", "Time it was closed."),
    ],
    ledger_columns: &[],
    indexes: &[
        index("ix_user_sessions_user", &["user_id", "created_at DESC"], ""),
        index("ix_user_sessions_open", &["is_active", "expires_at"], ""),
    ],
    foreign_keys: &[to_user("user_id", "users ||--o{ user_sessions : \"creates\"")],
    checks: &[],
    doc: "Sessions of users, open and closed.",
};

/// How long to keep what.
pub(super) static DATA_RETENTION_POLICIES: Table = Table {
    name: "data_retention_policies",
    kind: Kind::Register,
    title: "Retention policies",
    seed: "data_retention_policies",
    columns: &[
        id("data_retention_policies.id"),
        Column::text("table_name", 255, "data_retention_policies.table_name", "The log that the policy is for.").required(),
        Column::int("retention_period_days", 1, INT32, "data_retention_policies.retention_period_days", "How long records are kept.").required().unit("days"),
        Column::int("archive_after_days", 0, INT32, "data_retention_policies.archive_after_days", "Age at which records move to slower storage.").unit("days"),
        Column::int("delete_after_days", 0, INT32, "data_retention_policies.delete_after_days", "Age at which records are disposed of.").unit("days"),
        Column::time("last_cleanup_at", "data_retention_policies.last_cleanup_at", "Time the policy was last carried out."),
        Column::bool("is_active", "data_retention_policies.is_active", "Whether the policy is in force.").or(DefaultValue::Bool(true)),
        Column::time("created_at", "data_retention_policies.created_at", "Time the policy was made.").or(Now),
        Column::time("updated_at", "data_retention_policies.updated_at", "Time of the last change.").or(Now),
    ],
    ledger_columns: &[],
    indexes: &[index("ix_data_retention_policies_table", &["table_name"], "")],
    foreign_keys: &[],
    checks: &[Check {
        name: "ck_data_retention_policies_order",
        sql: "delete_after_days IS NULL OR delete_after_days >= retention_period_days",
        doc: "Nothing is disposed of before its retention ends.",
    }],
    doc: "How long the records of each log are kept, when they move to slower storage, and when they are disposed of.",
};

/// Reports to an authority.
pub(super) static COMPLIANCE_REPORTS: Table = Table {
    name: "compliance_reports",
    kind: Kind::Register,
    title: "Compliance reports",
    seed: "compliance_reports",
    columns: &[
        id("compliance_reports.id"),
        Column::int("data_retention_policy_id", 1, i64::MAX, "data_retention_policies ||--o{ compliance_reports", "The retention policy that governs the report, if one does."),
        Column::text("report_type", 255, "compliance_reports.report_type", "Kind of report.").required(),
        Column::time("report_period_start", "compliance_reports.report_period_start", "Start of the period reported on.").required(),
        Column::time("report_period_end", "compliance_reports.report_period_end", "End of the period reported on.").required(),
        Column::int("total_records", 0, i64::MAX, "compliance_reports.total_records", "Records the report covers.").or(DefaultValue::Int(0)).unit("records"),
        Column::json("report_data", "compliance_reports.report_data", "The report itself.").required(),
        Column::text("report_hash", 255, "compliance_reports.report_hash", "SHA-256 of the report, in hexadecimal.").required(),
        Column::time("created_at", "compliance_reports.created_at", "Time the report was made.").or(Now),
        Column::bool("submitted_to_authority", "compliance_reports.submitted_to_authority", "Whether it was handed in.").or(DefaultValue::Bool(false)),
        Column::time("submission_date", "compliance_reports.submission_date", "Time it was handed in."),
        Column::text("authority_acknowledgment", 255, "compliance_reports.authority_acknowledgment", "The authority's receipt."),
    ],
    ledger_columns: &[],
    indexes: &[index("ix_compliance_reports_policy", &["data_retention_policy_id", "report_period_start DESC"], "")],
    foreign_keys: &[ForeignKey {
        column: "data_retention_policy_id",
        table: "data_retention_policies",
        target: "id",
        seed: "data_retention_policies ||--o{ compliance_reports : \"governs\"",
    }],
    checks: &[Check {
        name: "ck_compliance_reports_period",
        sql: "report_period_end >= report_period_start",
        doc: "A period does not end before it starts.",
    }],
    doc: "Reports made from the logs, with what was handed in to whom.",
};

/// What must not be disposed of.
pub(super) static LEGAL_HOLDS: Table = Table {
    name: "legal_holds",
    kind: Kind::Register,
    title: "Legal holds",
    seed: "",
    columns: &[
        id(""),
        Column::text("name", 255, "", "Name of the hold.").required().unique(),
        Column::text("reason", 4000, "", "Why records are held.").required(),
        Column::text("authority", 255, "", "Who ordered it.").required(),
        Column::text("log_name", 128, "", "The log held; null for all."),
        Column::time("period_start", "", "Records from this time on are held; null for no bound."),
        Column::time("period_end", "", "Records before this time are held; null for no bound."),
        user("placed_by", "", "Who placed it."),
        Column::time("placed_at", "", "Time it was placed.").or(Now),
        user("released_by", "", "Who released it."),
        Column::time("released_at", "", "Time it was released; null while it stands."),
    ],
    ledger_columns: &[],
    indexes: &[index("ix_legal_holds_standing", &["released_at", "log_name"], "")],
    foreign_keys: &[to_user("placed_by", ""), to_user("released_by", "")],
    checks: &[
        Check {
            name: "ck_legal_holds_period",
            sql: "period_start IS NULL OR period_end IS NULL OR period_end >= period_start",
            doc: "A period does not end before it starts.",
        },
        Check {
            name: "ck_legal_holds_released",
            sql: "released_by IS NULL OR released_at IS NOT NULL",
            doc: "Who releases a hold does it at some time.",
        },
    ],
    doc: "Records under a legal hold are kept, whatever their retention says.",
};

/// What became of a security event.
pub(super) static INVESTIGATIONS: Table = Table {
    name: "investigations",
    kind: Kind::Register,
    title: "Investigations",
    seed: "",
    columns: &[
        id(""),
        Column::int("security_audit_id", 1, i64::MAX, "", "The record investigated: `security_audit_log.id`."),
        Column::int("security_event_id", 1, i64::MAX, "", "The finding investigated: `security_events.id`."),
        Column::text("title", 255, "", "What it is about.").required(),
        Column::int("status", 0, 3, "", "State; the numbers are those of `security_audit_log.investigation_status`.")
            .or(DefaultValue::Int(1))
            .names(&[(0, "None"), (1, "Pending"), (2, "InProgress"), (3, "Resolved")]),
        user("opened_by", "", "Who opened it."),
        user("assigned_to", "", "Who works on it."),
        user("resolved_by", "", "Who resolved it."),
        Column::text("outcome", 1000, "", "What came of it."),
        Column::time("opened_at", "", "Time it was opened.").or(Now),
        Column::time("started_at", "", "Time work on it began."),
        Column::time("updated_at", "", "Time of the last change.").or(Now),
        Column::time("resolved_at", "", "Time it was resolved."),
    ],
    ledger_columns: &[],
    indexes: &[
        index("ix_investigations_status", &["status", "opened_at DESC"], ""),
        index("ix_investigations_record", &["security_audit_id"], ""),
        index("ix_investigations_event", &["security_event_id"], ""),
    ],
    foreign_keys: &[
        to_user("opened_by", ""),
        to_user("assigned_to", ""),
        ForeignKey { column: "security_event_id", table: "security_events", target: "id", seed: "" },
    ],
    checks: &[Check {
        name: "ck_investigations_resolved",
        sql: "(status = 3) = (resolved_at IS NOT NULL)",
        doc: "A resolved investigation has the time it was resolved, and no other has.",
    }],
    doc: "The changing part of a security event: the log keeps what happened, this keeps what was done about it.",
};
