//! Every table, column, default, check, foreign key and index of the seeds is represented.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use muniment_model::{Column, DefaultValue, Type, schema_markdown, table, tables};

/// One line for each column: table, column, then its definition as in the seeds.
const COLUMNS: &str = "
SYS_AUDIT_QUEUE ID BIGINT PRIMARY KEY IDENTITY
SYS_AUDIT_QUEUE TableName NVARCHAR(128) NOT NULL
SYS_AUDIT_QUEUE PrimaryKey NVARCHAR(100) NOT NULL
SYS_AUDIT_QUEUE Operation NVARCHAR(10) NOT NULL -- INSERT, UPDATE, DELETE
SYS_AUDIT_QUEUE QueuedAt DATETIME2 DEFAULT GETDATE()
SYS_AUDIT_QUEUE ProcessedAt DATETIME2
SYS_AUDIT_QUEUE IsProcessed BIT DEFAULT 0
SYS_AUDIT_QUEUE ProcessingAttempts INT DEFAULT 0
SYS_AUDIT_QUEUE LastError NVARCHAR(1000)
SYS_AUDIT_LOG ID BIGINT PRIMARY KEY IDENTITY
SYS_AUDIT_LOG TableName NVARCHAR(128) NOT NULL
SYS_AUDIT_LOG Operation NVARCHAR(10) NOT NULL
SYS_AUDIT_LOG PrimaryKey NVARCHAR(100) NOT NULL
SYS_AUDIT_LOG OldValues JSON
SYS_AUDIT_LOG NewValues JSON
SYS_AUDIT_LOG ChangeDetails NVARCHAR(1000)
SYS_AUDIT_LOG ChangedBy BIGINT
SYS_AUDIT_LOG ChangedByUsername NVARCHAR(100)
SYS_AUDIT_LOG ChangedAt DATETIME2 DEFAULT GETDATE()
SYS_AUDIT_LOG IPAddress INET
SYS_AUDIT_LOG UserAgent NVARCHAR(500)
SYS_AUDIT_LOG SessionID NVARCHAR(128)
SYS_AUDIT_LOG ChangeReason NVARCHAR(200)
SYS_AUDIT_LOG BusinessContext NVARCHAR(200)
SYS_AUDIT_LOG WorkflowInstanceId NVARCHAR(255)
SYS_AUDIT_LOG ComplianceLevel TINYINT DEFAULT 1 -- 1=Standard, 2=Sensitive, 3=Confidential
SYS_AUDIT_LOG RetentionYears INT DEFAULT retention
SYS_AUDIT_LOG ChangeSize INT DEFAULT computed
SYS_AUDIT_LOG ProcessingTime INT
SECURITY_AUDIT_LOG SecurityAuditID BIGINT PRIMARY KEY IDENTITY
SECURITY_AUDIT_LOG EventType NVARCHAR(50) NOT NULL
SECURITY_AUDIT_LOG EventCategory NVARCHAR(50) NOT NULL -- AUTHENTICATION, AUTHORIZATION, DATA_ACCESS, SYSTEM
SECURITY_AUDIT_LOG Severity TINYINT NOT NULL -- 1=Info, 2=Warning, 3=Error, 4=Critical
SECURITY_AUDIT_LOG UserID BIGINT
SECURITY_AUDIT_LOG Username NVARCHAR(100)
SECURITY_AUDIT_LOG SessionID NVARCHAR(128)
SECURITY_AUDIT_LOG IPAddress INET NOT NULL
SECURITY_AUDIT_LOG UserAgent NVARCHAR(1000)
SECURITY_AUDIT_LOG RequestPath NVARCHAR(500)
SECURITY_AUDIT_LOG HTTPMethod NVARCHAR(10)
SECURITY_AUDIT_LOG ResourceAccessed NVARCHAR(500)
SECURITY_AUDIT_LOG PermissionChecked NVARCHAR(200)
SECURITY_AUDIT_LOG AccessGranted BIT
SECURITY_AUDIT_LOG FailureReason NVARCHAR(1000)
SECURITY_AUDIT_LOG RiskScore TINYINT DEFAULT 0 -- 0-100
SECURITY_AUDIT_LOG ThreatIndicators JSON
SECURITY_AUDIT_LOG GeolocationData JSON
SECURITY_AUDIT_LOG RequiresInvestigation BIT DEFAULT 0
SECURITY_AUDIT_LOG InvestigationStatus TINYINT DEFAULT 0 -- 0=None, 1=Pending, 2=InProgress, 3=Resolved
SECURITY_AUDIT_LOG InvestigatedBy BIGINT
SECURITY_AUDIT_LOG InvestigatedAt DATETIME2
SECURITY_AUDIT_LOG EventTime DATETIME2 DEFAULT GETDATE()
SYSTEM_PERFORMANCE_LOG PerformanceLogID BIGINT PRIMARY KEY IDENTITY
SYSTEM_PERFORMANCE_LOG MetricName NVARCHAR(100) NOT NULL
SYSTEM_PERFORMANCE_LOG MetricCategory NVARCHAR(50) NOT NULL -- DATABASE, API, WORKFLOW, EXTERNAL
SYSTEM_PERFORMANCE_LOG MetricValue DECIMAL(18,6) NOT NULL
SYSTEM_PERFORMANCE_LOG MetricUnit NVARCHAR(20)
SYSTEM_PERFORMANCE_LOG ComponentName NVARCHAR(100)
SYSTEM_PERFORMANCE_LOG OperationName NVARCHAR(200)
SYSTEM_PERFORMANCE_LOG RequestID NVARCHAR(255)
SYSTEM_PERFORMANCE_LOG ThresholdWarning DECIMAL(18,6)
SYSTEM_PERFORMANCE_LOG ThresholdCritical DECIMAL(18,6)
SYSTEM_PERFORMANCE_LOG IsThresholdExceeded BIT DEFAULT computed
SYSTEM_PERFORMANCE_LOG AdditionalData JSON
SYSTEM_PERFORMANCE_LOG SamplingRate DECIMAL(5,4) DEFAULT 1.0 -- 0.0 to 1.0
SYSTEM_PERFORMANCE_LOG MeasuredAt DATETIME2 DEFAULT GETDATE()
auth_audit_log id serial PK
auth_audit_log user_id integer
auth_audit_log event_type varchar NOT NULL
auth_audit_log event_status varchar DEFAULT 'SUCCESS'
auth_audit_log ip_address inet
auth_audit_log user_agent text
auth_audit_log device_fingerprint varchar
auth_audit_log location jsonb
auth_audit_log details jsonb DEFAULT '{}'
auth_audit_log risk_score integer DEFAULT 0
auth_audit_log session_id varchar
auth_audit_log correlation_id uuid DEFAULT gen_random_uuid()
auth_audit_log created_at timestamp DEFAULT NOW()
auth_audit_log processed_at timestamp
auth_audit_log blockchain_hash hash
auth_audit_log previous_hash hash
auth_audit_log signature varchar
security_events id serial PK
security_events user_id integer
security_events event_category varchar NOT NULL
security_events severity_level varchar NOT NULL
security_events threat_type varchar
security_events source_ip inet
security_events target_resource varchar
security_events attack_vector varchar
security_events detection_method varchar
security_events mitigation_action varchar
security_events is_resolved boolean DEFAULT FALSE
security_events false_positive boolean DEFAULT FALSE
security_events analyst_notes text
security_events created_at timestamp DEFAULT NOW()
security_events resolved_at timestamp
security_events resolved_by varchar
rate_limit_violations id serial PK
rate_limit_violations user_id integer
rate_limit_violations ip_address inet NOT NULL
rate_limit_violations endpoint varchar NOT NULL
rate_limit_violations request_count integer NOT NULL
rate_limit_violations limit_threshold integer NOT NULL
rate_limit_violations time_window_minutes integer NOT NULL
rate_limit_violations violation_type varchar
rate_limit_violations user_agent text
rate_limit_violations blocked_duration_minutes integer DEFAULT 0
rate_limit_violations created_at timestamp DEFAULT NOW()
rate_limit_violations unblocked_at timestamp
user_sessions id serial PK
user_sessions session_id varchar UNIQUE NOT NULL
user_sessions user_id integer
user_sessions device_fingerprint varchar
user_sessions ip_address inet
user_sessions user_agent text
user_sessions location jsonb
user_sessions created_at timestamp DEFAULT NOW()
user_sessions last_activity_at timestamp DEFAULT NOW()
user_sessions expires_at timestamp NOT NULL
user_sessions is_active boolean DEFAULT TRUE
user_sessions logout_reason varchar
user_sessions logout_at timestamp
compliance_reports id serial PK
compliance_reports report_type varchar NOT NULL
compliance_reports report_period_start timestamp NOT NULL
compliance_reports report_period_end timestamp NOT NULL
compliance_reports total_records integer DEFAULT 0
compliance_reports report_data jsonb NOT NULL
compliance_reports report_hash varchar NOT NULL
compliance_reports created_at timestamp DEFAULT NOW()
compliance_reports submitted_to_authority boolean DEFAULT FALSE
compliance_reports submission_date timestamp
compliance_reports authority_acknowledgment varchar
api_access_log id serial PK
api_access_log user_id integer
api_access_log request_id uuid DEFAULT gen_random_uuid()
api_access_log method varchar NOT NULL
api_access_log endpoint varchar NOT NULL
api_access_log request_headers jsonb
api_access_log request_body_hash varchar
api_access_log response_status integer
api_access_log response_time_ms integer
api_access_log bytes_sent integer DEFAULT 0
api_access_log bytes_received integer DEFAULT 0
api_access_log ip_address inet
api_access_log user_agent text
api_access_log api_key_id varchar
api_access_log rate_limit_remaining integer
api_access_log created_at timestamp DEFAULT NOW()
data_retention_policies id serial PK
data_retention_policies table_name varchar NOT NULL
data_retention_policies retention_period_days integer NOT NULL
data_retention_policies archive_after_days integer
data_retention_policies delete_after_days integer
data_retention_policies last_cleanup_at timestamp
data_retention_policies is_active boolean DEFAULT TRUE
data_retention_policies created_at timestamp DEFAULT NOW()
data_retention_policies updated_at timestamp DEFAULT NOW()";

const INDEXES: &str = "
sys_audit_queue IX_Queue_Unprocessed is_processed, queued_at
sys_audit_queue IX_Queue_Table table_name, queued_at DESC
sys_audit_queue IX_Queue_Processing processing_attempts, queued_at
sys_audit_log IX_Audit_Table_Date table_name, changed_at DESC
sys_audit_log IX_Audit_User changed_by, changed_at DESC
sys_audit_log IX_Audit_Context business_context, changed_at DESC
sys_audit_log IX_Audit_PrimaryKey table_name, primary_key, changed_at DESC
sys_audit_log IX_Audit_Workflow workflow_instance_id, changed_at DESC
sys_audit_log PK_SYS_AUDIT_LOG id, changed_at
sys_audit_log IX_AuditLog_Partitioned changed_at, id
security_audit_log IX_Security_Event event_type, event_time DESC
security_audit_log IX_Security_User user_id, event_time DESC
security_audit_log IX_Security_IP ip_address, event_time DESC
security_audit_log IX_Security_Risk risk_score DESC, event_time DESC
security_audit_log IX_Security_Investigation requires_investigation, investigation_status
system_performance_log IX_Performance_Metric_Time metric_name, measured_at DESC
system_performance_log IX_Performance_Category_Time metric_category, measured_at DESC
system_performance_log IX_Performance_Threshold is_threshold_exceeded, measured_at DESC";

const FOREIGN_KEYS: &str = "
security_audit_log user_id users FK_SECURITY_AUDIT_USER
security_audit_log investigated_by users FK_SECURITY_AUDIT_INVESTIGATOR
auth_audit_log user_id users users ||--o{ auth_audit_log : \"generates\"
security_events user_id users users ||--o{ security_events : \"triggers\"
rate_limit_violations user_id users users ||--o{ rate_limit_violations : \"causes\"
user_sessions user_id users users ||--o{ user_sessions : \"creates\"
api_access_log user_id users users ||--o{ api_access_log : \"makes requests\"
compliance_reports data_retention_policy_id data_retention_policies data_retention_policies ||--o{ compliance_reports : \"governs\"";

fn lines(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.trim().lines()
}

fn check_type(column: &Column, seed: &str) {
    let fits = match seed {
        "BIGINT" | "INT" | "TINYINT" | "integer" | "serial" => matches!(column.ty, Type::Int { .. }),
        "DATETIME2" | "timestamp" => column.ty == Type::Timestamp,
        "BIT" | "boolean" => column.ty == Type::Bool,
        "JSON" | "jsonb" => column.ty == Type::Json { max_bytes: 1 << 20 },
        "INET" | "inet" => column.ty == Type::Inet,
        "uuid" => column.ty == Type::Uuid,
        "hash" => column.ty == Type::Hash,
        "varchar" | "text" => matches!(column.ty, Type::Text { max_chars: 255.. }),
        "DECIMAL(18,6)" => column.ty == Type::Decimal { precision: 18, scale: 6 },
        "DECIMAL(5,4)" => column.ty == Type::Decimal { precision: 5, scale: 4 },
        _ => {
            let limit = seed.strip_prefix("NVARCHAR(").unwrap().strip_suffix(')').unwrap().parse().unwrap();
            column.ty == Type::Text { max_chars: limit }
        }
    };
    assert!(fits, "{}: {seed} became {:?}", column.seed, column.ty);
}

fn check_default(column: &Column, definition: &str) {
    let Some((_, default)) = definition.split_once("DEFAULT ") else {
        let identity = definition.contains("IDENTITY") || definition.contains("PK");
        let expected = if identity { DefaultValue::Identity } else { DefaultValue::None };
        assert_eq!(column.default, expected, "{}", column.seed);
        return;
    };
    let expected = match (default, column.ty) {
        ("GETDATE()" | "NOW()", _) => DefaultValue::Now,
        ("gen_random_uuid()", _) => DefaultValue::RandomUuid,
        ("retention", _) => DefaultValue::RetentionYears,
        ("computed", Type::Bool) => DefaultValue::ThresholdReached,
        ("computed", _) => DefaultValue::ChangeSize,
        ("0" | "FALSE", Type::Bool) => DefaultValue::Bool(false),
        ("TRUE", Type::Bool) => DefaultValue::Bool(true),
        ("1.0", _) => DefaultValue::Decimal(10_000),
        ("'{}'", _) => DefaultValue::Text("{}"),
        ("'SUCCESS'", _) => DefaultValue::Text("SUCCESS"),
        (number, _) => DefaultValue::Int(number.parse().unwrap()),
    };
    assert_eq!(column.default, expected, "{}", column.seed);
}

fn check_comment(column: &Column, comment: &str) {
    for part in comment.split(", ") {
        let known = match part.split_once('=') {
            Some((value, name)) => column.names.contains(&(value.parse().unwrap(), name)),
            None if part == "0-100" => column.ty == Type::Int { min: 0, max: 100 },
            None if part == "0.0 to 1.0" => column.range == Some((0, 10_000)),
            None => column.values.contains(&part),
        };
        assert!(known, "{}: {part}", column.seed);
    }
    if let (Type::Int { min, max }, [first, .., last]) = (column.ty, column.names) {
        assert_eq!((first.0, last.0), (min, max), "{}", column.seed);
    }
}

#[test]
fn every_seed_column() {
    assert_eq!(lines(COLUMNS).count(), 160);
    for line in lines(COLUMNS) {
        let (definition, comment) = line.split_once(" -- ").unwrap_or((line, ""));
        let mut words = definition.split(' ');
        let (seed_table, seed_column, ty) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let seed = format!("{seed_table}.{seed_column}");
        let table = table(&seed_table.to_lowercase()).unwrap();
        let column =
            table.ledger_columns.iter().chain(table.columns).find(|column| column.seed == seed).unwrap_or_else(|| panic!("{seed}"));
        let plain = |name: &str| name.replace('_', "").to_lowercase();
        assert!(column.name == "id" || plain(column.name) == plain(seed_column), "{seed} became {}", column.name);
        check_type(column, ty);
        check_default(column, definition);
        assert!(!definition.contains("NOT NULL") || !column.nullable, "{seed} may be null");
        let own = ["blockchain_hash"].contains(&column.name);
        assert!(definition.contains("NOT NULL") || !column.is_required() || own, "{seed} is required");
        assert_eq!(definition.contains("UNIQUE"), column.unique && column.name != "id", "{seed}");
        if !comment.is_empty() {
            check_comment(column, comment);
        }
    }
}

#[test]
fn every_column_with_a_seed_is_in_the_list() {
    for table in tables() {
        for column in table.columns.iter().chain(table.ledger_columns).filter(|column| !column.seed.is_empty() && table.name != "users") {
            let listed = lines(COLUMNS).any(|line| line.split(' ').take(2).collect::<Vec<_>>().join(".") == column.seed);
            assert!(listed || column.name == "data_retention_policy_id", "{}", column.seed);
        }
    }
}

#[test]
fn every_seed_index() {
    for line in lines(INDEXES) {
        let mut parts = line.splitn(3, ' ');
        let (table_name, name, columns) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let index = table(table_name).unwrap().indexes.iter().find(|index| index.seed == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(index.columns.join(", "), columns);
        assert!(!index.stands_for.is_empty());
    }
}

#[test]
fn every_seed_foreign_key() {
    for line in lines(FOREIGN_KEYS) {
        let mut parts = line.splitn(4, ' ');
        let (table_name, column, target, name) =
            (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let key = table(table_name).unwrap().foreign_keys.iter().find(|key| key.seed == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((key.column, key.table, key.target), (column, target, "id"));
    }
}

#[test]
fn retention_as_in_the_seeds() {
    let years = |name| table(name).unwrap().default_retention_years();
    assert_eq!(years("sys_audit_log"), Some(7));
    assert_eq!(muniment_model::SENSITIVE_RETENTION_YEARS, 10);
    assert_eq!((years("auth_audit_log"), years("security_audit_log")), (Some(5), Some(5)));
    assert_eq!((years("api_access_log"), years("system_performance_log")), (Some(7), Some(2)));
    assert_eq!(years("users"), None);
}

#[test]
fn the_page_shows_them_all() {
    let page = schema_markdown();
    for table in tables() {
        assert!(page.contains(&format!("\n## {}\n", table.name)));
    }
    for line in lines(COLUMNS) {
        let name = line.split(' ').take(2).collect::<Vec<_>>().join(".");
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
    for name in lines(INDEXES).map(|line| line.split(' ').nth(1).unwrap()).chain(["pf_AuditLog_Month", "ps_AuditLog_Month"]) {
        assert!(page.contains(name), "{name}");
    }
}

#[test]
fn the_vocabulary_is_consistent() {
    for table in tables() {
        assert!(table.columns.len() <= 64, "{}: a record's fields are tracked in 64 bits", table.name);
        assert_eq!(table.is_log(), !table.ledger_columns.is_empty());
        for column in table.columns {
            assert!(column.name.len() < 31, "{}: names are matched in 32 bytes", column.name);
            assert!(column.default == DefaultValue::None || !column.nullable, "{}", column.name);
            assert_eq!(table.columns.iter().filter(|other| other.name == column.name).count(), 1);
            assert!(!(table.is_log() && column.ty == Type::Hash));
        }
        let columns = table.indexes.iter().flat_map(|index| index.columns).map(|name| name.trim_end_matches(" DESC"));
        for name in columns.chain(table.foreign_keys.iter().map(|key| key.column)) {
            assert!(table.column(name).is_some(), "{}.{name}", table.name);
        }
        for key in table.foreign_keys {
            assert!(muniment_model::table(key.table).unwrap().column(key.target).is_some());
        }
    }
}
