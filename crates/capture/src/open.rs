//! One door to all ways in: which there are for a URL, what attaching to it does, and the source that reads it.

use crate::error::{CaptureError, Result};
use crate::health::Monitor;
use crate::plan::{AttachOptions, Plan, check_name, default_name};
use crate::postgres::{self, attach, detach};
use crate::queue;
use crate::source::Source;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// PostgreSQL by logical replication.
pub const POSTGRES: &str = "postgres";
/// PostgreSQL by triggers.
pub const POSTGRES_QUEUE: &str = "postgres-queue";
/// SQLite by triggers.
pub const SQLITE: &str = "sqlite";

/// Muniment's own registers, by triggers in the commit database.
pub const REGISTERS: &str = "registers";
/// Longest pause between two looks at the registers' queue: they change rarely, and every server has them.
const REGISTERS_PAUSE: Duration = Duration::from_millis(250);
/// What records call the schema of the registers.
pub const REGISTERS_SCHEMA: &str = "muniment";

/// How changes come out of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By logical replication.
    #[default]
    Replication,
    /// By triggers and a queue table in the database.
    Queue,
}

/// An attached source, as it is stored.
#[derive(Clone, Copy)]
pub struct SourceSpec<'a> {
    /// Name.
    pub name: &'a str,
    /// The way in, see [`kind`].
    pub kind: &'a str,
    /// Where it is, with the password.
    pub url: &'a str,
    /// [`AttachOptions`] as JSON.
    pub options: &'a str,
}

/// A source to be read, and what looks at it from outside.
pub struct Opened {
    /// The source.
    pub source: Box<dyn Source>,
    /// What looks at it, if there is something to see.
    pub monitor: Option<Box<dyn Monitor>>,
}

fn unknown(url: &str) -> CaptureError {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    CaptureError::Refused(format!(
        "{scheme:?} is no database that can be attached: expected postgres://user@host/database or sqlite:///path/to/file"
    ))
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// The options that a source was attached with.
///
/// # Errors
/// If they can't be read.
pub(crate) fn attach_options(spec: &SourceSpec<'_>) -> Result<AttachOptions> {
    serde_json::from_str(spec.options).map_err(|error| CaptureError::Malformed(format!("the options of source {}: {error}", spec.name)))
}

/// Name of a source of an SQLite file: as asked for, or by the file's name.
fn sqlite_name(url: &str, options: &AttachOptions) -> Result<String> {
    let stem = std::path::Path::new(url.trim_start_matches("sqlite:")).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = options.name.clone().unwrap_or_else(|| default_name("sqlite", stem.as_deref().unwrap_or("file")));
    check_name(&name)?;
    Ok(name)
}

/// Has the changes of registers in this commit database captured from now on.
///
/// # Errors
/// If the database can't be opened, refuses a statement, or is of a kind without triggers.
pub async fn audit_registers(url: &str, registers: &[&muniment_model::Table]) -> Result<()> {
    if !url.starts_with("sqlite:") {
        return Err(unknown(url));
    }
    let names = |columns: &mut dyn Iterator<Item = &muniment_model::Column>| columns.map(|column| column.name.to_owned()).collect();
    let describe = |register: &&muniment_model::Table| queue::sqlite::TableDescription {
        name: register.name.to_owned(),
        columns: names(&mut register.columns.iter()),
        key: vec!["id".to_owned()],
        excluded: Vec::new(),
        masked: names(&mut register.columns.iter().filter(|column| column.secret)),
    };
    queue::sqlite::audit(url, &registers.iter().map(describe).collect::<Vec<_>>()).await
}

/// The kind of a source by its URL.
///
/// # Errors
/// If the URL is of no database that can be attached.
pub fn kind(url: &str, mode: Mode) -> Result<&'static str> {
    match mode {
        Mode::Replication if is_postgres(url) => Ok(POSTGRES),
        Mode::Queue if is_postgres(url) => Ok(POSTGRES_QUEUE),
        _ if url.starts_with("sqlite:") => Ok(SQLITE),
        _ => Err(unknown(url)),
    }
}

/// The name that a source will have.
///
/// # Errors
/// If it is no name, or the URL is of no database that can be attached.
pub fn source_name(url: &str, mode: Mode, options: &AttachOptions) -> Result<String> {
    match kind(url, mode)? {
        POSTGRES | POSTGRES_QUEUE => attach::source_name(&postgres::Server::parse(url)?, options),
        SQLITE => sqlite_name(url, options),
        _ => Err(unknown(url)),
    }
}

/// Says what attaching will do; `known` tells whether a source of this name is ours.
///
/// # Errors
/// If the database can't be asked, or the options are not valid.
pub async fn plan_attach(url: &str, mode: Mode, options: &AttachOptions, known: bool) -> Result<Plan> {
    match kind(url, mode)? {
        POSTGRES => attach::plan(url, options, known).await,
        POSTGRES_QUEUE => queue::postgres::plan(url, options).await,
        SQLITE => queue::sqlite::plan(url, options).await,
        _ => Err(unknown(url)),
    }
}

/// Does what a plan says; `fresh` tells that the source is new, and has to be undone if that fails.
///
/// # Errors
/// If something is in the way, or the database refuses a statement.
pub async fn apply_attach(url: &str, mode: Mode, plan: &Plan, fresh: bool) -> Result<()> {
    match kind(url, mode)? {
        POSTGRES => attach::apply(url, plan, fresh).await,
        POSTGRES_QUEUE => queue::postgres::apply(url, plan).await,
        SQLITE => queue::sqlite::apply(url, plan).await,
        _ => Err(unknown(url)),
    }
}

/// Says what detaching will do.
///
/// # Errors
/// If the database can't be asked.
pub async fn plan_detach(spec: &SourceSpec<'_>) -> Result<Plan> {
    match spec.kind {
        POSTGRES => detach::plan(spec.url, spec.name).await,
        POSTGRES_QUEUE => queue::postgres::detach(spec.url, spec.name).await,
        SQLITE => queue::sqlite::detach(spec.url, spec.name).await,
        _ => Err(unknown(spec.url)),
    }
}

/// Has nothing more written to the source's queue, if it has one, as the plan for detaching says.
///
/// # Errors
/// If the database refuses a statement.
pub async fn end(spec: &SourceSpec<'_>, plan: &Plan) -> Result<()> {
    match spec.kind {
        POSTGRES_QUEUE => queue::postgres::end(spec.url, plan).await,
        SQLITE => queue::sqlite::end(spec.url, plan).await,
        _ => Ok(()),
    }
}

/// Does what a plan says. The source must not be read any more.
///
/// # Errors
/// If the database refuses a statement.
pub async fn apply_detach(spec: &SourceSpec<'_>, plan: &Plan) -> Result<()> {
    match spec.kind {
        POSTGRES => detach::apply(spec.url, plan).await,
        POSTGRES_QUEUE => queue::postgres::apply(spec.url, plan).await,
        SQLITE => queue::sqlite::apply(spec.url, plan).await,
        _ => Err(unknown(spec.url)),
    }
}

/// The source of a specification. It does nothing until it is started.
///
/// # Errors
/// If the specification can't be read.
pub fn open(spec: &SourceSpec<'_>) -> Result<Opened> {
    match spec.kind {
        POSTGRES => postgres::open(spec),
        POSTGRES_QUEUE => {
            let mut options = queue::postgres::QueueOptions::new(spec.name);
            options.known_applications = attach_options(spec)?.known_applications;
            let source = Box::new(queue::postgres::QueueSource::new(spec.url, options)?);
            Ok(Opened { source, monitor: Some(Box::new(queue::postgres::QueueMonitor::new(spec.url)?)) })
        }
        SQLITE | REGISTERS => {
            let mut options = queue::sqlite::SqliteOptions::new(spec.name);
            if spec.kind == REGISTERS {
                options.schema = REGISTERS_SCHEMA.to_owned();
                options.longest_pause = REGISTERS_PAUSE;
            }
            Ok(Opened { source: Box::new(queue::sqlite::SqliteQueueSource::new(spec.url, options)), monitor: None })
        }
        _ => Err(unknown(spec.url)),
    }
}
