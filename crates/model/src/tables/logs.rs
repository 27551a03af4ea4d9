//! The five logs. Their columns are written once here; a sender gives the data columns, the ledger adds its own.

use crate::DefaultValue::{self, ChangeSize, Now, RandomUuid, RetentionYears, ThresholdReached};
use crate::{Column, ForeignKey, Index, Kind, Table, Type};

const ANY: (i64, i64) = (i64::MIN, i64::MAX);
const INT32: i64 = i32::MAX as i64;

/// What the ledger adds. The first argument is the seed's primary key; the others are its hash columns, if it has them.
const fn ledger(id: &'static str, hash: &'static str, previous: &'static str, signature: &'static str) -> [Column; 7] {
    [
        Column::int("id", 1, i64::MAX, id, "Number of the record, unique within the log. Gaps are normal.").or(DefaultValue::Identity),
        Column::int("stream_index", 0, i64::MAX, "", "Position in the stream, from 0, without gaps.").required(),
        Column::time("recorded_at", "", "Time of the commit. Never decreases within a stream.").required(),
        Column::new("blockchain_hash", Type::Hash, hash, "Leaf hash of the record, which covers its payload and the record before it.").required(),
        Column::new("erased_payload_hash", Type::Hash, "", "Payload hash of an erased record, whose data columns are null; null for every other."),
        Column::new("previous_hash", Type::Hash, previous, "`blockchain_hash` of the record before it in the stream. Not stored; derived on read."),
        Column::text("signature", 4000, signature, "The first signed checkpoint that covers the record. Not stored; derived on read."),
    ]
}

const fn retention(seed: &'static str) -> Column {
    Column::int("retention_years", 1, 100, seed, "Years the record is kept. Decides the stream that the record belongs to.")
        .or(RetentionYears)
        .unit("years")
}

/// Changes of data.
pub(super) static SYS_AUDIT_LOG: Table = Table {
    name: "sys_audit_log",
    kind: Kind::Log { default_retention_years: 7 },
    title: "Changes of data",
    seed: "[audit].SYS_AUDIT_LOG",
    columns: &[
        Column::text("table_name", 128, "SYS_AUDIT_LOG.TableName", "The table that changed, with its schema: `case.hoso`.").required().lookup(),
        Column::text("operation", 10, "SYS_AUDIT_LOG.Operation", "What happened to the row. `TRUNCATE`, `DDL` and `SNAPSHOT` are Muniment's own.")
            .required()
            .values(super::registers::OPERATIONS),
        Column::text("primary_key", 100, "SYS_AUDIT_LOG.PrimaryKey", "Key of the row that changed, as text.").required().lookup(),
        Column::json("old_values", "SYS_AUDIT_LOG.OldValues", "The row before the change. The seed has NVARCHAR(4000), compressed; here it may be longer, and the file is compressed."),
        Column::json("new_values", "SYS_AUDIT_LOG.NewValues", "The row after the change. The seed has NVARCHAR(4000), compressed; here it may be longer, and the file is compressed."),
        Column::text("change_details", 1000, "SYS_AUDIT_LOG.ChangeDetails", "Summary of the changes that matter."),
        Column::int("changed_by", ANY.0, ANY.1, "SYS_AUDIT_LOG.ChangedBy", "Who made the change: `users.id`.").lookup(),
        Column::text("changed_by_username", 100, "SYS_AUDIT_LOG.ChangedByUsername", "Name of that user at the time.").lookup(),
        Column::time("changed_at", "SYS_AUDIT_LOG.ChangedAt", "Time of the change.").or(Now),
        Column::inet("ip_address", "SYS_AUDIT_LOG.IPAddress", "Address the change came from.").lookup(),
        Column::text("user_agent", 500, "SYS_AUDIT_LOG.UserAgent", "Program the change came from."),
        Column::text("session_id", 128, "SYS_AUDIT_LOG.SessionID", "Session the change was made in.").lookup(),
        Column::text("change_reason", 200, "SYS_AUDIT_LOG.ChangeReason", "Why the change was made."),
        Column::text("business_context", 200, "SYS_AUDIT_LOG.BusinessContext", "Business process, such as `HoSo Processing` or `Admin Update`."),
        Column::text("workflow_instance_id", 255, "SYS_AUDIT_LOG.WorkflowInstanceId", "Workflow instance the change was part of.").lookup(),
        Column::int("compliance_level", 1, 3, "SYS_AUDIT_LOG.ComplianceLevel", "Sensitivity of the data.")
            .or(DefaultValue::Int(1))
            .names(&[(1, "Standard"), (2, "Sensitive"), (3, "Confidential")]),
        retention("SYS_AUDIT_LOG.RetentionYears"),
        Column::int("change_size", 0, INT32, "SYS_AUDIT_LOG.ChangeSize", "Size of the change data.").or(ChangeSize).unit("bytes"),
        Column::int("processing_time", 0, INT32, "SYS_AUDIT_LOG.ProcessingTime", "Time it took to process the change.").unit("ms"),
        Column::text("transaction_id", 128, "", "The source's transaction: source, number and position of its commit.").lookup(),
        Column::text("source_position", 128, "", "Where the change stands in its source: its identity there, so that reading it again adds nothing."),
        Column::text("correlation_id", 128, "", "Ties together what one request of the application caused.").lookup(),
        Column::text("attribution", 12, "", "How it is known who made the change: the application said so, only the database's own user is known, or nobody could be named. Null if the sender speaks for itself.")
            .values(&["APPLICATION", "DATABASE", "NONE"]),
    ],
    ledger_columns: &ledger("SYS_AUDIT_LOG.ID", "", "", ""),
    indexes: &[
        Index { name: "ix_audit_table_date", columns: &["table_name", "changed_at DESC"], seed: "IX_Audit_Table_Date",
            stands_for: "month partition, page index on changed_at, bloom filter and page index on table_name" },
        Index { name: "ix_audit_user", columns: &["changed_by", "changed_at DESC"], seed: "IX_Audit_User",
            stands_for: "bloom filter on changed_by, month partition, page index on changed_at" },
        Index { name: "ix_audit_context", columns: &["business_context", "changed_at DESC"], seed: "IX_Audit_Context",
            stands_for: "page index on business_context (few values: dictionary scan), month partition" },
        Index { name: "ix_audit_primary_key", columns: &["table_name", "primary_key", "changed_at DESC"], seed: "IX_Audit_PrimaryKey",
            stands_for: "filter on the pair of table_name and primary_key in each row group, no other rows are decoded; month partition" },
        Index { name: "ix_audit_workflow", columns: &["workflow_instance_id", "changed_at DESC"], seed: "IX_Audit_Workflow",
            stands_for: "bloom filter on workflow_instance_id, month partition" },
        Index { name: "pk_sys_audit_log", columns: &["id", "changed_at"], seed: "PK_SYS_AUDIT_LOG",
            stands_for: "id and time range of each file in the catalog, page index on id" },
        Index { name: "ix_audit_log_partitioned", columns: &["changed_at", "id"], seed: "IX_AuditLog_Partitioned",
            stands_for: "one file holds one month (pf_AuditLog_Month, ps_AuditLog_Month) of recorded_at; page index on changed_at" },
    ],
    foreign_keys: &[],
    checks: &[],
    doc: "Every insert, update and delete in an audited system, with the row before and after it, who made the change, from where, and why.",
};

/// Log-ins and other authentication events.
pub(super) static AUTH_AUDIT_LOG: Table = Table {
    name: "auth_audit_log",
    kind: Kind::Log { default_retention_years: 5 },
    title: "Authentication events",
    seed: "auth_audit_log",
    columns: &[
        Column::int("user_id", ANY.0, ANY.1, "auth_audit_log.user_id", "Who: `users.id`. Null if the user is not known.").lookup(),
        Column::text("event_type", 255, "auth_audit_log.event_type", "What happened, such as `LOGIN`, `LOGOUT`, `PASSWORD_CHANGE`.").required(),
        Column::text("event_status", 255, "auth_audit_log.event_status", "How it ended, such as `SUCCESS` or `FAILURE`.").or(DefaultValue::Text("SUCCESS")),
        Column::inet("ip_address", "auth_audit_log.ip_address", "Address it came from.").lookup(),
        Column::text("user_agent", 1000, "auth_audit_log.user_agent", "Program it came from."),
        Column::text("device_fingerprint", 255, "auth_audit_log.device_fingerprint", "Fingerprint of the device.").lookup(),
        Column::json("location", "auth_audit_log.location", "Where the address is."),
        Column::json("details", "auth_audit_log.details", "Whatever else is known.").or(DefaultValue::Text("{}")),
        Column::int("risk_score", 0, 100, "auth_audit_log.risk_score", "Risk, from 0 (none) to 100.").or(DefaultValue::Int(0)),
        Column::text("session_id", 255, "auth_audit_log.session_id", "Session it belongs to.").lookup(),
        Column::new("correlation_id", Type::Uuid, "auth_audit_log.correlation_id", "Ties together the records of one happening.").or(RandomUuid).lookup(),
        Column::time("created_at", "auth_audit_log.created_at", "Time of the event.").or(Now),
        Column::time("processed_at", "auth_audit_log.processed_at", "Time the sender had processed it."),
        retention(""),
    ],
    ledger_columns: &ledger("auth_audit_log.id", "auth_audit_log.blockchain_hash", "auth_audit_log.previous_hash", "auth_audit_log.signature"),
    indexes: &[],
    foreign_keys: &[ForeignKey { column: "user_id", table: "users", target: "id", seed: "users ||--o{ auth_audit_log : \"generates\"" }],
    checks: &[],
    doc: "Log-ins, log-outs, failures and everything else that has to do with who somebody is.",
};

/// Events of security interest.
pub(super) static SECURITY_AUDIT_LOG: Table = Table {
    name: "security_audit_log",
    kind: Kind::Log { default_retention_years: 5 },
    title: "Security events as they happened",
    seed: "[audit].SECURITY_AUDIT_LOG",
    columns: &[
        Column::text("event_type", 50, "SECURITY_AUDIT_LOG.EventType", "What happened: `LOGIN`, `LOGOUT`, `PERMISSION_CHANGE`, `ACCESS_DENIED` and so on.").required(),
        Column::text("event_category", 50, "SECURITY_AUDIT_LOG.EventCategory", "Class of the event.")
            .required()
            .values(&["AUTHENTICATION", "AUTHORIZATION", "DATA_ACCESS", "SYSTEM"]),
        Column::int("severity", 1, 4, "SECURITY_AUDIT_LOG.Severity", "How grave it is.")
            .required()
            .names(&[(1, "Info"), (2, "Warning"), (3, "Error"), (4, "Critical")]),
        Column::int("user_id", ANY.0, ANY.1, "SECURITY_AUDIT_LOG.UserID", "Who: `users.id`. Null if the user is not known.").lookup(),
        Column::text("username", 100, "SECURITY_AUDIT_LOG.Username", "Name of that user at the time, or the name that was tried.").lookup(),
        Column::text("session_id", 128, "SECURITY_AUDIT_LOG.SessionID", "Session it belongs to.").lookup(),
        Column::inet("ip_address", "SECURITY_AUDIT_LOG.IPAddress", "Address it came from.").required().lookup(),
        Column::text("user_agent", 1000, "SECURITY_AUDIT_LOG.UserAgent", "Program it came from."),
        Column::text("request_path", 500, "SECURITY_AUDIT_LOG.RequestPath", "Path of the HTTP request."),
        Column::text("http_method", 10, "SECURITY_AUDIT_LOG.HTTPMethod", "Method of the HTTP request."),
        Column::text("resource_accessed", 500, "SECURITY_AUDIT_LOG.ResourceAccessed", "What was reached for."),
        Column::text("permission_checked", 200, "SECURITY_AUDIT_LOG.PermissionChecked", "The permission that decided."),
        Column::bool("access_granted", "SECURITY_AUDIT_LOG.AccessGranted", "Whether access was granted; null if none was asked for."),
        Column::text("failure_reason", 1000, "SECURITY_AUDIT_LOG.FailureReason", "Why it failed."),
        Column::int("risk_score", 0, 100, "SECURITY_AUDIT_LOG.RiskScore", "Risk, from 0 (none) to 100.").or(DefaultValue::Int(0)),
        Column::json("threat_indicators", "SECURITY_AUDIT_LOG.ThreatIndicators", "What points to a threat.").array(),
        Column::json("geolocation_data", "SECURITY_AUDIT_LOG.GeolocationData", "Where the address is. The seed has NVARCHAR(500); here it may be longer."),
        Column::bool("requires_investigation", "SECURITY_AUDIT_LOG.RequiresInvestigation", "Whether somebody has to look into it.").or(DefaultValue::Bool(false)),
        Column::int("investigation_status", 0, 3, "SECURITY_AUDIT_LOG.InvestigationStatus", "State of the investigation. The record keeps what was sent; in SQL the column shows how the newest of `investigations` stands, and `recorded_investigation_status` what was sent.")
            .or(DefaultValue::Int(0))
            .names(&[(0, "None"), (1, "Pending"), (2, "InProgress"), (3, "Resolved")]),
        Column::int("investigated_by", ANY.0, ANY.1, "SECURITY_AUDIT_LOG.InvestigatedBy", "Who investigated: `users.id`.").lookup(),
        Column::time("investigated_at", "SECURITY_AUDIT_LOG.InvestigatedAt", "Time of the investigation."),
        Column::time("event_time", "SECURITY_AUDIT_LOG.EventTime", "Time of the event.").or(Now),
        Column::json("details", "", "Whatever else is known; of reading: what was asked, the rows and bytes answered, and why."),
        retention(""),
    ],
    ledger_columns: &ledger("SECURITY_AUDIT_LOG.SecurityAuditID", "", "", ""),
    indexes: &[
        Index { name: "ix_security_event", columns: &["event_type", "event_time DESC"], seed: "IX_Security_Event",
            stands_for: "page index on event_type (few values: dictionary scan), month partition, page index on event_time" },
        Index { name: "ix_security_user", columns: &["user_id", "event_time DESC"], seed: "IX_Security_User",
            stands_for: "bloom filter on user_id, month partition, page index on event_time" },
        Index { name: "ix_security_ip", columns: &["ip_address", "event_time DESC"], seed: "IX_Security_IP",
            stands_for: "bloom filter on ip_address, month partition, page index on event_time" },
        Index { name: "ix_security_risk", columns: &["risk_score DESC", "event_time DESC"], seed: "IX_Security_Risk",
            stands_for: "row-group and page statistics of risk_score, month partition" },
        Index { name: "ix_security_investigation", columns: &["requires_investigation", "investigation_status"], seed: "IX_Security_Investigation",
            stands_for: "row-group and page statistics of both columns; open cases are found in investigations by ix_investigations_status" },
    ],
    foreign_keys: &[
        ForeignKey { column: "user_id", table: "users", target: "id", seed: "FK_SECURITY_AUDIT_USER" },
        ForeignKey { column: "investigated_by", table: "users", target: "id", seed: "FK_SECURITY_AUDIT_INVESTIGATOR" },
    ],
    checks: &[],
    doc: "Attempts to get in or to get at something, granted or not, with the risk they carry.",
};

/// Requests to an API.
pub(super) static API_ACCESS_LOG: Table = Table {
    name: "api_access_log",
    kind: Kind::Log { default_retention_years: 7 },
    title: "API requests",
    seed: "api_access_log",
    columns: &[
        Column::int("user_id", ANY.0, ANY.1, "api_access_log.user_id", "Who: `users.id`. Null if the user is not known.").lookup(),
        Column::new("request_id", Type::Uuid, "api_access_log.request_id", "Identifies the request.").or(RandomUuid).lookup(),
        Column::text("method", 255, "api_access_log.method", "HTTP method, or the name of the operation.").required(),
        Column::text("endpoint", 255, "api_access_log.endpoint", "Path or service that was called.").required(),
        Column::json("request_headers", "api_access_log.request_headers", "Headers of the request."),
        Column::text("request_body_hash", 255, "api_access_log.request_body_hash", "Hash of the request's body."),
        Column::int("response_status", 0, 999, "api_access_log.response_status", "HTTP status of the answer."),
        Column::int("response_time_ms", 0, INT32, "api_access_log.response_time_ms", "Time to answer.").unit("ms"),
        Column::int("bytes_sent", 0, i64::MAX, "api_access_log.bytes_sent", "Size of the answer.").or(DefaultValue::Int(0)).unit("bytes"),
        Column::int("bytes_received", 0, i64::MAX, "api_access_log.bytes_received", "Size of the request.").or(DefaultValue::Int(0)).unit("bytes"),
        Column::inet("ip_address", "api_access_log.ip_address", "Address it came from.").lookup(),
        Column::text("user_agent", 1000, "api_access_log.user_agent", "Program it came from."),
        Column::text("api_key_id", 255, "api_access_log.api_key_id", "The API key that was used.").lookup(),
        Column::int("rate_limit_remaining", 0, INT32, "api_access_log.rate_limit_remaining", "Requests left in the rate-limit window.").unit("requests"),
        Column::time("created_at", "api_access_log.created_at", "Time of the request.").or(Now),
        retention(""),
    ],
    ledger_columns: &ledger("api_access_log.id", "", "", ""),
    indexes: &[],
    foreign_keys: &[ForeignKey { column: "user_id", table: "users", target: "id", seed: "users ||--o{ api_access_log : \"makes requests\"" }],
    checks: &[],
    doc: "Who called which endpoint, and how it was answered.",
};

/// Measurements of system health.
pub(super) static SYSTEM_PERFORMANCE_LOG: Table = Table {
    name: "system_performance_log",
    kind: Kind::Log { default_retention_years: 2 },
    title: "Measurements of system health",
    seed: "[audit].SYSTEM_PERFORMANCE_LOG",
    columns: &[
        Column::text("metric_name", 100, "SYSTEM_PERFORMANCE_LOG.MetricName", "What was measured.").required(),
        Column::text("metric_category", 50, "SYSTEM_PERFORMANCE_LOG.MetricCategory", "Where it was measured.")
            .required()
            .values(&["DATABASE", "API", "WORKFLOW", "EXTERNAL"]),
        Column::decimal("metric_value", 18, 6, "SYSTEM_PERFORMANCE_LOG.MetricValue", "The value, in `metric_unit`.").required(),
        Column::text("metric_unit", 20, "SYSTEM_PERFORMANCE_LOG.MetricUnit", "Unit of the value: `ms`, `MB`, `count`, `percent`."),
        Column::text("component_name", 100, "SYSTEM_PERFORMANCE_LOG.ComponentName", "The component that was measured."),
        Column::text("operation_name", 200, "SYSTEM_PERFORMANCE_LOG.OperationName", "The operation that was measured."),
        Column::text("request_id", 255, "SYSTEM_PERFORMANCE_LOG.RequestID", "The request it was measured in.").lookup(),
        Column::decimal("threshold_warning", 18, 6, "SYSTEM_PERFORMANCE_LOG.ThresholdWarning", "Value from which on to warn, in `metric_unit`."),
        Column::decimal("threshold_critical", 18, 6, "SYSTEM_PERFORMANCE_LOG.ThresholdCritical", "Value from which on it is critical, in `metric_unit`."),
        Column::bool("is_threshold_exceeded", "SYSTEM_PERFORMANCE_LOG.IsThresholdExceeded", "Whether the value has reached a threshold, warning or critical. If the critical one is smaller than the other, small values are the bad ones.").or(ThresholdReached),
        Column::json("additional_data", "SYSTEM_PERFORMANCE_LOG.AdditionalData", "Whatever else is known."),
        Column::decimal("sampling_rate", 5, 4, "SYSTEM_PERFORMANCE_LOG.SamplingRate", "Share of the happenings that are measured, from 0 to 1.")
            .or(DefaultValue::Decimal(10_000))
            .range(0, 10_000),
        Column::time("measured_at", "SYSTEM_PERFORMANCE_LOG.MeasuredAt", "Time of the measurement.").or(Now),
        retention(""),
    ],
    ledger_columns: &ledger("SYSTEM_PERFORMANCE_LOG.PerformanceLogID", "", "", ""),
    indexes: &[
        Index { name: "ix_performance_metric_time", columns: &["metric_name", "measured_at DESC"], seed: "IX_Performance_Metric_Time",
            stands_for: "page index on metric_name (few values: dictionary scan), month partition, page index on measured_at" },
        Index { name: "ix_performance_category_time", columns: &["metric_category", "measured_at DESC"], seed: "IX_Performance_Category_Time",
            stands_for: "page index on metric_category (few values: dictionary scan), month partition" },
        Index { name: "ix_performance_threshold", columns: &["is_threshold_exceeded", "measured_at DESC"], seed: "IX_Performance_Threshold",
            stands_for: "row-group and page statistics of is_threshold_exceeded, month partition" },
    ],
    foreign_keys: &[],
    checks: &[],
    doc: "Response times, sizes and rates, with the thresholds they are held against.",
};
