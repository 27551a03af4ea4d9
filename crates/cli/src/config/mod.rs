//! Configuration: file, environment and flags are merged into settings, and settings resolved into what the engine and the server take.

mod doors;
mod reference;
mod settings;
mod units;

pub use reference::reference;
use settings::AccessMode as Mode;
pub use settings::{LogFormat, Settings};
pub use units::{parse_duration, parse_server_size};

use crate::args::Flags;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Provider};
use muniment_access::Masking;
use muniment_engine::EngineConfig;
use muniment_engine::query::QueryLimits;
use muniment_server::{AccessMode, OidcConfig, TlsConfig};
use settings::KEYS;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Begins the name of every environment variable that holds a setting; `__` stands for the dot of a key.
const PREFIX: &str = "MUNIMENT_";
/// Names the configuration file, and is no setting.
const FILE_VARIABLE: &str = "MUNIMENT_CONFIG";
/// What comes after the prefix in variables that are no settings: the configuration file, and what commands need to talk to a server:
/// the key that they show, and the authority that they trust.
const NO_SETTINGS: [&str; 3] = ["config", "key", "ca"];
/// The configuration file that is read if none is named.
const DEFAULT_FILE: &str = "muniment.toml";

/// A setting given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag.
    pub flag: &'static str,
    /// The key it sets.
    pub key: &'static str,
    /// The value.
    pub value: String,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "the environment variable {name}"),
            Self::Flag("demo") => write!(f, "the demo, which keeps to folders of its own"),
            Self::Flag(flag) => write!(f, "the flag {flag}"),
        }
    }
}

/// What can be wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("reading {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<figment::Error>,
    },
    /// There is no such key.
    #[error("there is no key `{key}`, which comes from {place}{}", hint(key))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it was given.
        place: Place,
    },
    /// A value is not what its key holds.
    #[error("`{key}`{}: {reason}", place.as_ref().map(|place| format!(", from {place}")).unwrap_or_default())]
    Value {
        /// The key.
        key: String,
        /// Where the value was given.
        place: Option<Place>,
        /// What is wrong with it.
        reason: String,
    },
}

fn hint(unknown: &str) -> String {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let near = KEYS.iter().find(|key| last(key.name) == last(unknown) || key.name.ends_with(unknown) || distance(key.name, unknown) <= 2);
    near.map(|key| format!(" (did you mean `{}`?)", key.name)).unwrap_or_default()
}

/// Levenshtein's distance of two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The configuration in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the engine is set up.
    pub engine: EngineConfig,
    /// Limits of each query.
    pub query: QueryLimits,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Whether callers have to say who they are.
    pub access: AccessMode,
    /// What is masked by configuration, and what of documents is shown.
    pub masking: Masking,
    /// The certificate to show.
    pub tls: Option<TlsConfig>,
    /// The identity provider.
    pub oidc: Option<OidcConfig>,
    /// How long a session of the console lasts.
    pub session: Duration,
    /// Form of the program's own messages.
    pub log_format: LogFormat,
    /// Which of them are written, if that was set: a command that is no service writes fewer by default.
    pub log_level: Option<String>,
}

/// A configuration with what it was made from.
#[derive(Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    settings: Settings,
    places: BTreeMap<String, Place>,
}

/// Merges file, environment and flags over the defaults, in rising precedence.
///
/// # Errors
/// For a key that does not exist or a value that does not fit; the error names both and where they were given.
pub fn load(flags: &Flags) -> Result<Loaded, ConfigError> {
    let mut figment = Figment::from(Serialized::defaults(Settings::default()));
    let mut places = BTreeMap::new();
    if let Some(path) = file_to_read(flags)? {
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        let provider = Toml::string(&text);
        let data = provider.data().map_err(|source| ConfigError::Syntax { path: path.clone(), source: Box::new(source) })?;
        for key in leaves(data.into_values()) {
            known(&key, || Place::File(path.clone()), &mut places)?;
        }
        figment = figment.merge(provider);
    }
    let variables =
        Env::prefixed(PREFIX).filter(|name| !NO_SETTINGS.iter().any(|other| name.as_str().eq_ignore_ascii_case(other))).split("__");
    for key in leaves(variables.data().map_err(|error| value_error(&error, &places))?.into_values()) {
        let name = format!("{PREFIX}{}", key.replace('.', "__").to_uppercase());
        known(&key, || Place::Variable(name), &mut places)?;
    }
    figment = figment.merge(variables);
    for flag in &flags.settings {
        places.insert(flag.key.to_owned(), Place::Flag(flag.flag));
        figment = figment.merge((flag.key, &flag.value));
    }
    let settings: Settings = figment.extract().map_err(|error| value_error(&error, &places))?;
    let config = resolve(&settings, &places)?;
    Ok(Loaded { config, settings, places })
}

fn file_to_read(flags: &Flags) -> Result<Option<PathBuf>, ConfigError> {
    let named = flags.file.clone().or_else(|| std::env::var_os(FILE_VARIABLE).map(PathBuf::from));
    Ok(named.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists())))
}

/// Notes where a key was given, if there is such a key.
fn known(key: &str, place: impl FnOnce() -> Place, places: &mut BTreeMap<String, Place>) -> Result<(), ConfigError> {
    if KEYS.iter().any(|known| known.name == key) {
        places.insert(key.to_owned(), place());
        return Ok(());
    }
    Err(ConfigError::UnknownKey { key: key.to_owned(), place: place() })
}

/// The dotted names of all values; a section that is given as a plain value counts as one.
fn leaves(profiles: impl Iterator<Item = Dict>) -> Vec<String> {
    fn walk(prefix: &str, dict: &Dict, found: &mut Vec<String>) {
        for (name, value) in dict {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Dict(_, inner) if !inner.is_empty() => walk(&path, inner, found),
                Value::Dict(..) if KEYS.iter().any(|key| key.name.starts_with(&format!("{path}."))) => {}
                _ => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    profiles.for_each(|dict| walk("", &dict, &mut found));
    found
}

fn value_error(error: &figment::Error, places: &BTreeMap<String, Place>) -> ConfigError {
    let key = error.path.join(".");
    ConfigError::Value { place: places.get(&key).cloned(), key, reason: error.kind.to_string() }
}

fn resolve(settings: &Settings, places: &BTreeMap<String, Place>) -> Result<Config, ConfigError> {
    let wrong = |key: &str, reason: String| ConfigError::Value { key: key.to_owned(), place: places.get(key).cloned(), reason };
    let address = settings.listen.to_socket_addrs().ok().and_then(|mut found| found.next());
    let listen = address.ok_or_else(|| wrong("listen", format!("`{}` is not an address and a port", settings.listen)))?;
    let access = settings.access.mode;
    if access == Mode::Open && !listen.ip().is_loopback() {
        return Err(wrong(
            "access.mode",
            format!("`open` lets everybody in, so it goes with a loopback address only, and not with {listen}"),
        ));
    }
    let size = |key: &str, bytes: u64| usize::try_from(bytes).map_err(|_| wrong(key, "it is too large for this machine".to_owned()));
    let mut engine = EngineConfig::new(&settings.data);
    engine.origin.clone_from(&settings.origin);
    if let Some(publish) = &settings.publish {
        engine.publish.clone_from(publish);
    }
    engine.heartbeat = settings.heartbeat.0;
    engine.idempotency = settings.idempotency.0;
    engine.unmasking.approval = settings.access.unmasking_approval;
    engine.unmasking.longest = settings.access.unmasking_longest.0;
    engine.grace = settings.compaction.grace.0;
    engine.capture.lag_bytes = settings.capture.lag_bytes.0;
    engine.capture.lag_time = settings.capture.lag_time.0;
    engine.limits.body_bytes = size("limits.body_bytes", settings.limits.body_bytes.0)?;
    engine.limits.records = settings.limits.records;
    engine.limits.memory_bytes = size("limits.memory_bytes", settings.limits.memory_bytes.0)?;
    engine.limits.hot_bytes = settings.limits.hot_bytes.0;
    engine.protection.requests_per_minute = settings.limits.requests_per_minute;
    engine.protection.record_requests = settings.limits.record_requests;
    engine.monitoring.record = settings.monitoring.record;
    engine.first_sight = settings.users.first_sight;
    engine.sessions.lifetime = settings.sessions.lifetime.0;
    engine.sessions.concurrent = settings.sessions.concurrent;
    engine.monitoring.interval = settings.monitoring.interval.0;
    engine.flush.bytes = settings.flush.bytes.0;
    engine.flush.batches = settings.flush.batches;
    engine.flush.age = i64::try_from(settings.flush.age.0.as_micros()).map_err(|_| wrong("flush.age", "it is too long".to_owned()))?;
    engine.flush.file_records = settings.flush.file_records;
    engine.compaction.target_records = settings.compaction.target_records;
    engine.compaction.min_files = settings.compaction.min_files;
    for (key, value) in positive(settings) {
        if value == 0 {
            return Err(wrong(key, "it must not be zero".to_owned()));
        }
    }
    if engine.limits.body_bytes > muniment_model::MAX_BODY_BYTES {
        return Err(wrong("limits.body_bytes", format!("it is at most {}", units::Size(muniment_model::MAX_BODY_BYTES as u64))));
    }
    let query = QueryLimits {
        memory_bytes: size("query.memory", settings.query.memory.0)?,
        time: settings.query.time.0,
        rows: settings.query.rows,
        ..QueryLimits::default()
    };
    let log_level = places.contains_key("log.level").then(|| settings.log.level.clone());
    let (tls, oidc) = (doors::tls(settings, &wrong)?, doors::oidc(settings, &wrong)?);
    let (session, masking) = (settings.access.session.0, doors::masking(settings, &wrong)?);
    Ok(Config { engine, query, listen, access: access.into(), masking, tls, oidc, session, log_format: settings.log.format, log_level })
}

/// Settings that mean nothing if they are zero.
fn positive(settings: &Settings) -> [(&'static str, u128); 15] {
    [
        ("access.session", settings.access.session.0.as_millis()),
        ("heartbeat", settings.heartbeat.0.as_millis()),
        ("sessions.lifetime", settings.sessions.lifetime.0.as_millis()),
        ("monitoring.interval", settings.monitoring.interval.0.as_millis()),
        ("limits.body_bytes", settings.limits.body_bytes.0.into()),
        ("limits.records", settings.limits.records as u128),
        ("limits.memory_bytes", settings.limits.memory_bytes.0.into()),
        ("limits.hot_bytes", settings.limits.hot_bytes.0.into()),
        ("flush.batches", settings.flush.batches as u128),
        ("flush.file_records", settings.flush.file_records.into()),
        ("compaction.target_records", settings.compaction.target_records.into()),
        ("compaction.min_files", settings.compaction.min_files as u128),
        ("query.memory", settings.query.memory.0.into()),
        ("query.time", settings.query.time.0.as_millis()),
        ("query.rows", settings.query.rows.into()),
    ]
}

impl Loaded {
    /// The configuration in force as TOML, with where each value that is not a default comes from.
    pub fn print(&self) -> String {
        let mut shown = self.settings.clone();
        shown.publish = Some(self.config.engine.publish.clone());
        let values = reference::values(&shown);
        let mut text = String::new();
        let mut section = "";
        for key in KEYS {
            let (inside, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if inside != section {
                section = inside;
                text += &format!("\n[{section}]\n");
            }
            let place = self.places.get(key.name).map(|place| format!("  # from {place}")).unwrap_or_default();
            match values.get(key.name) {
                Some(value) => text += &format!("{name} = {value}{place}\n"),
                None => text += &format!("# {name} is not set: {}\n", key.absent),
            }
        }
        text
    }
}

impl Config {
    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.engine.data
    }
}
