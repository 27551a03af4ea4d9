//! The configuration as it is written: every key once, with its type, default and meaning.

use super::units::{Size, Span};
use muniment_engine::EngineConfig;
use muniment_engine::query::QueryLimits;
use muniment_server::ServerConfig;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The configuration as it is written. [`KEYS`] says what each key means.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub data: PathBuf,
    pub listen: String,
    pub origin: Option<String>,
    #[serde(deserialize_with = "folders")]
    pub publish: Option<Vec<PathBuf>>,
    pub heartbeat: Span,
    pub idempotency: Span,
    pub access: Access,
    pub tls: Tls,
    pub oidc: Oidc,
    pub limits: Limits,
    pub flush: Flush,
    pub compaction: Compaction,
    pub capture: Capture,
    pub monitoring: Monitoring,
    pub users: Users,
    pub sessions: Sessions,
    pub query: Query,
    pub log: Log,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    pub mode: AccessMode,
    pub masked: Vec<String>,
    pub shown: Vec<String>,
    pub unmasking_approval: bool,
    pub unmasking_longest: Span,
    pub session: Span,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    pub issuer: Option<String>,
    pub client_id: Option<String>,
    pub client_secret_file: Option<PathBuf>,
    pub public_url: Option<String>,
    pub audience: Option<String>,
    pub scopes: String,
    pub roles_claim: String,
    pub roles: Vec<String>,
    pub ca: Option<PathBuf>,
}

/// Whether callers have to say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// They show a key, a token or a session.
    Keys,
    /// Everybody may do everything.
    Open,
}

impl From<AccessMode> for muniment_server::AccessMode {
    fn from(mode: AccessMode) -> Self {
        match mode {
            AccessMode::Keys => Self::Keys,
            AccessMode::Open => Self::Open,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub body_bytes: Size,
    pub records: usize,
    pub memory_bytes: Size,
    pub hot_bytes: Size,
    pub requests_per_minute: u32,
    pub record_requests: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flush {
    pub bytes: Size,
    pub batches: usize,
    pub age: Span,
    pub file_records: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compaction {
    pub target_records: u64,
    pub min_files: usize,
    pub grace: Span,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    pub lag_bytes: Size,
    pub lag_time: Span,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitoring {
    pub record: bool,
    pub interval: Span,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    pub first_sight: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    pub lifetime: Span,
    pub concurrent: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    pub memory: Size,
    pub time: Span,
    pub rows: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

/// Form of the program's own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        let engine = EngineConfig::new("muniment-data");
        let query = QueryLimits::default();
        Self {
            data: engine.data,
            listen: "127.0.0.1:7117".to_owned(),
            origin: None,
            publish: None,
            heartbeat: Span(engine.heartbeat),
            idempotency: Span(engine.idempotency),
            access: Access {
                mode: AccessMode::Keys,
                masked: Vec::new(),
                shown: Vec::new(),
                unmasking_approval: engine.unmasking.approval,
                unmasking_longest: Span(engine.unmasking.longest),
                session: Span(ServerConfig::default().session),
            },
            tls: Tls::default(),
            oidc: Oidc {
                issuer: None,
                client_id: None,
                client_secret_file: None,
                public_url: None,
                audience: None,
                scopes: "openid profile email".to_owned(),
                roles_claim: "roles".to_owned(),
                roles: Vec::new(),
                ca: None,
            },
            limits: Limits {
                body_bytes: Size(engine.limits.body_bytes as u64),
                records: engine.limits.records,
                memory_bytes: Size(engine.limits.memory_bytes as u64),
                hot_bytes: Size(engine.limits.hot_bytes),
                requests_per_minute: engine.protection.requests_per_minute,
                record_requests: engine.protection.record_requests,
            },
            flush: Flush {
                bytes: Size(engine.flush.bytes),
                batches: engine.flush.batches,
                age: Span(Duration::from_micros(engine.flush.age.unsigned_abs())),
                file_records: engine.flush.file_records,
            },
            compaction: Compaction {
                target_records: engine.compaction.target_records,
                min_files: engine.compaction.min_files,
                grace: Span(engine.grace),
            },
            capture: Capture { lag_bytes: Size(engine.capture.lag_bytes), lag_time: Span(engine.capture.lag_time) },
            monitoring: Monitoring { record: engine.monitoring.record, interval: Span(engine.monitoring.interval) },
            users: Users { first_sight: true },
            sessions: Sessions { lifetime: Span(engine.sessions.lifetime), concurrent: engine.sessions.concurrent },
            query: Query { memory: Size(query.memory_bytes as u64), time: Span(query.time), rows: query.rows },
            log: Log { format: LogFormat::Pretty, level: "info".to_owned() },
        }
    }
}

/// A list of folders, or one folder.
fn folders<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a folder or a list of folders")]
    enum Folders {
        One(PathBuf),
        Many(Vec<PathBuf>),
    }
    let given = Option::<Folders>::deserialize(deserializer)?;
    Ok(given.map(|given| match given {
        Folders::One(folder) => vec![folder],
        Folders::Many(folders) => folders,
    }))
}

/// A key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Its name; what comes before a dot is a section.
    pub name: &'static str,
    /// What it holds.
    pub kind: &'static str,
    /// What stands for it if it is not given, where that is no plain value.
    pub absent: &'static str,
    /// What it means.
    pub doc: &'static str,
}

const fn key(name: &'static str, kind: &'static str, doc: &'static str) -> Key {
    Key { name, kind, absent: "", doc }
}

/// Every key, in the order in which they are printed.
pub const KEYS: &[Key] = &[
    key("data", "folder", "The data folder: commit database, Parquet files and signing key. Created if need be."),
    key("listen", "address", "Address and port of the HTTP API; port 0 takes a free one."),
    Key {
        name: "origin",
        kind: "text",
        absent: "`muniment.local/` and eight random digits",
        doc: "Name of a new log in its checkpoints, such as `audit.example.org/agency`. A log that exists keeps its name.",
    },
    Key {
        name: "publish",
        kind: "list of folders",
        absent: "the folder beside `data`, named after it with `-checkpoints`",
        doc: "Where checkpoints are published. Best another disk or machine: whoever changes the data folder should not be able to change these. `[]` publishes nothing, and gives up the rollback fence.",
    },
    key("heartbeat", "time", "After this time without a commit a checkpoint is signed anyway, so that silence is provable."),
    key("idempotency", "time", "How long the answer to an `Idempotency-Key` is kept for retries."),
    key(
        "access.mode",
        "`keys` or `open`",
        "`keys`: every caller shows a key, a token or a session, see `docs/access.md`. `open`: everybody who reaches the address may do everything; only on loopback, for first steps and measurements.",
    ),
    key("access.session", "time", "How long a session of the console lasts."),
    key(
        "access.masked",
        "list of text",
        "What is masked, beside what always is, for roles that read *masked*: columns and fields of documents, such as `[\"sys_audit_log.change_reason\", \"*.username\", \"sys_audit_log.new_values.address.street\"]`. See `docs/access.md`.",
    ),
    key(
        "access.shown",
        "list of text",
        "Columns with JSON documents that roles which read *masked* see, but for the fields that `access.masked` names, such as `[\"sys_audit_log.old_values\", \"sys_audit_log.new_values\"]`.",
    ),
    key(
        "access.unmasking_approval",
        "`true` or `false`",
        "Whether a second person has to approve before somebody sees masked contents in clear. Without it, a reason is enough.",
    ),
    key("access.unmasking_longest", "time", "Longest time for which masked contents are shown in clear by one request."),
    Key {
        name: "tls.certificate",
        kind: "file",
        absent: "plain HTTP is spoken",
        doc: "PEM file with the certificate, and those between it and the authority's. Read again when it changes, and on SIGHUP.",
    },
    Key { name: "tls.key", kind: "file", absent: "plain HTTP is spoken", doc: "PEM file with the certificate's private key." },
    Key {
        name: "oidc.issuer",
        kind: "URL",
        absent: "nobody logs in to the console, and there are only keys",
        doc: "The identity provider, by its issuer URL.",
    },
    Key { name: "oidc.client_id", kind: "text", absent: "needed with `oidc.issuer`", doc: "What the provider knows this service as." },
    Key {
        name: "oidc.client_secret_file",
        kind: "file",
        absent: "a public client, which PKCE protects",
        doc: "File with the secret that the provider has given this service.",
    },
    Key {
        name: "oidc.public_url",
        kind: "URL",
        absent: "the address that is listened on",
        doc: "Where browsers reach this service; `/login/callback` below it is registered with the provider.",
    },
    Key { name: "oidc.audience", kind: "text", absent: "`oidc.client_id`", doc: "The audience that tokens of programs must be for." },
    key("oidc.scopes", "text", "Scopes to ask the provider for."),
    key("oidc.roles_claim", "text", "The claim that holds roles or groups; a dot leads into an object, as in `realm_access.roles`."),
    key(
        "oidc.roles",
        "list of text",
        "Which role a value of that claim stands for, such as `[\"audit-team=auditor\", \"ops=administrator\"]`. Other values mean nothing.",
    ),
    Key {
        name: "oidc.ca",
        kind: "file",
        absent: "those of the web",
        doc: "PEM file with the authorities that vouch for the provider's certificate.",
    },
    key(
        "limits.body_bytes",
        "size",
        "Most bytes of a request's body, after decompression. A larger request is answered 413. Also the longest line of a file that is taken in.",
    ),
    key("limits.records", "number", "Most records of a request."),
    key("limits.memory_bytes", "size", "Memory for all requests under way. Beyond it, new ones are answered 429."),
    key(
        "limits.hot_bytes",
        "size",
        "Bytes of records not yet in Parquet. Beyond it, new requests are answered 503 until the flush has caught up.",
    ),
    key(
        "limits.requests_per_minute",
        "number",
        "Most requests of one client address in a minute; beyond it they are answered 429. 0 for no limit. This machine's own addresses are not counted: a proxy may stand there for everybody. Finer limits are made with `muniment limits`.",
    ),
    key("limits.record_requests", "`true` or `false`", "Whether requests to Muniment's own API are recorded in `api_access_log`."),
    key("flush.bytes", "size", "A stream moves to Parquet when it holds this many bytes of hot batches,"),
    key("flush.batches", "number", "or this many of them,"),
    key("flush.age", "time", "or one of this age."),
    key("flush.file_records", "number", "Most records of a Parquet file that a flush writes."),
    key("compaction.target_records", "number", "Most records of a Parquet file that a merge writes."),
    key(
        "compaction.min_files",
        "number",
        "Neighbouring files that make a merge worth while in the current month; in past months two are enough.",
    ),
    key("compaction.grace", "time", "How long a merged file is kept for queries that began before. Should be longer than `query.time`."),
    key("capture.lag_bytes", "size", "A source that is this far behind, or"),
    key("capture.lag_time", "time", "this long, becomes a finding (`SLOT_LAG`), once until it has caught up."),
    key("monitoring.record", "`true` or `false`", "Whether Muniment's own measures are recorded in `system_performance_log`."),
    key("monitoring.interval", "time", "How often."),
    key(
        "users.first_sight",
        "`true` or `false`",
        "Whether a user that a record speaks of and the directory doesn't have is entered there, marked `first_sight`, before the record is stored.",
    ),
    key("sessions.lifetime", "time", "Time after which a session ends whose end nobody gave."),
    key(
        "sessions.concurrent",
        "number",
        "Sessions that a user may have at once; more are a finding (`CONCURRENT_SESSIONS`). 0 for any number.",
    ),
    key("query.memory", "size", "Most memory of a query."),
    key("query.time", "time", "Most time of a query, to its last row."),
    key("query.rows", "number", "Most rows of a result."),
    key("log.format", "`pretty` or `json`", "Form of the program's own messages, which go to standard error."),
    key(
        "log.level",
        "filter",
        "Which of them are written: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,muniment_engine=debug`.",
    ),
];
