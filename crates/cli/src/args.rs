//! The command line as it is typed.

use crate::config::Flag;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// An audit and security log that can prove itself.
///
/// Exit codes: 0 for success, 1 if records were refused or a verification failed, 2 if the command is wrong or could not do its work.
#[derive(Debug, Parser)]
#[command(name = "muniment", version, propagate_version = true, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command. They win over the environment, which wins over the configuration file.
#[derive(Debug, Args)]
pub struct Global {
    /// The data folder [default: muniment-data]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The configuration file [default: muniment.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on, for serve and demo [default: 127.0.0.1:7117]
    #[arg(long, global = true, value_name = "ADDR")]
    listen: Option<String>,
    /// Who may use the server, for serve and demo: keys (who shows one), or open (everybody on this machine) [default: keys]
    #[arg(long, global = true, value_name = "MODE")]
    access: Option<String>,
    /// A file with the key to show to the server; the environment variable MUNIMENT_KEY can hold the key itself
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A PEM file with the authority that vouches for the server's certificate; the environment variable MUNIMENT_CA can name it, too
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Form of the program's own messages: pretty or json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Which of the program's own messages to write, such as `info` or `warn,muniment_engine=debug`
    #[arg(long, global = true, value_name = "FILTER")]
    log_level: Option<String>,
}

/// What was given to the configuration on the command line.
#[derive(Debug, Default)]
pub struct Flags {
    /// The configuration file, if named.
    pub file: Option<PathBuf>,
    /// Settings.
    pub settings: Vec<Flag>,
}

impl Global {
    /// The settings among the flags. `demo` has a data folder of its own, so that it never writes to one that is in use.
    pub fn flags(&self, command: &Command) -> Flags {
        let text = |value: &PathBuf| value.to_string_lossy().into_owned();
        let mut settings = Vec::new();
        let mut set = |flag: &'static str, key: &'static str, value: Option<String>| {
            settings.extend(value.map(|value| Flag { flag, key, value }));
        };
        let demo = matches!(command, Command::Demo(_));
        let data = self.data.as_ref().map(text).or_else(|| demo.then(|| "muniment-demo".to_owned()));
        if demo {
            let folder = data.clone().unwrap_or_default();
            set("demo", "publish", Some(format!("{}-checkpoints", folder.trim_end_matches('/'))));
        }
        set(if self.data.is_some() { "--data" } else { "demo" }, "data", data);
        set("--listen", "listen", self.listen.clone());
        set("--access", "access.mode", self.access.clone());
        set("--log-format", "log.format", self.log_format.clone());
        set("--log-level", "log.level", self.log_level.clone());
        Flags { file: self.config.clone(), settings }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the HTTP API on a data folder, until interrupted
    Serve,
    /// Serve a demonstration: an agency at work, with a few attacks
    Demo(Demo),
    /// Take in files or standard input
    ///
    /// A run that was interrupted can be repeated: what was stored is not stored again, and nothing is left out.
    Ingest(Ingest),
    /// Ask a question in SQL
    Sql(Sql),
    /// Show every change of one entity, with who, when, why and what
    History(History),
    /// Show an entity, or all entities of a table, as they were at a time
    At(At),
    /// Capture the changes of a database's tables from now on
    ///
    /// Looks first at what would break, says what it will do, and does all of it or nothing. Repeat it to add tables.
    Attach(crate::capture::args::Attach),
    /// Stop capturing a database, and remove what attaching has set up in it
    Detach(crate::capture::args::Detach),
    /// List the attached databases, and how far behind they are
    Sources(crate::capture::args::Sources),
    /// Compare an attached database with what the log says it holds, row by row
    ///
    /// Exit code 1 if there is any difference.
    Reconcile(crate::reconcile::Reconcile),
    /// Rate limits: make them, ask them, see who exceeded them, lift blocks
    Limits(crate::limits::Limits),
    /// Show how the running server is doing: queue, lag, errors, latency
    Monitoring(crate::measures::Monitoring),
    /// Measurements by buckets of time, and their thresholds
    Metrics(crate::measures::Metrics),
    /// Show who is answerable for each field of an entity: its value, since when, by whom, why
    Blame(Blame),
    /// Show all changes of a source's transaction
    Transaction(Transaction),
    /// Write the SQL that takes back a record, a transaction, or what a user did; it is not run
    Undo(Undo),
    /// Verify the data folder, or an exported bundle
    Verify(Verify),
    /// Write a bundle that can be verified elsewhere
    Export(Export),
    /// Write the proof of one record
    Prove(Prove),
    /// Check a proof file
    Check(Check),
    /// Print the newest checkpoint
    Checkpoint,
    /// Manage who may use the server: keys, and roles of users
    Access {
        #[command(subcommand)]
        command: crate::access::args::AccessCommand,
    },
    /// Ask to see masked contents in clear, and decide about it
    ///
    /// A grant is for whoever asked, for a time, and is used by naming it with each question: `Muniment-Unmasking: <number>`.
    Unmask(crate::access::unmask::Unmask),
    /// Manage the signing key
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// The directory of users: add, list, import, deactivate
    Users(crate::registers::users::Users),
    /// Sessions of users: who is logged in, and ending it
    Sessions(crate::registers::sessions::Sessions),
    /// Investigations of security records, and findings
    Cases(crate::registers::cases::Cases),
    /// Move all records to Parquet files and merge small files, now
    Compact,
    /// Print the configuration in force, and where each value comes from
    Config {
        /// Print the reference page of all keys instead (Markdown)
        #[arg(long)]
        reference: bool,
    },
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Events a second, on average, once the past is filled in
    #[arg(long, default_value_t = 30.0, value_name = "N", value_parser = rate)]
    pub events_per_second: f64,
    /// Stop after this time, such as `30s`; without it, run until interrupted
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration)]
    pub duration: Option<Duration>,
    /// Events of the 30 days past to begin with, in a new data folder
    #[arg(long, default_value_t = 60_000, value_name = "N")]
    pub backfill: u64,
    /// Start of the random sequence: the same number makes the same events
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

/// A time on the command line, as µs UTC.
pub fn time(text: &str) -> Result<i64, String> {
    muniment_engine::history::parse_time(text).map_err(|_| "expected a time such as 2026-01-31T12:00:00Z, or a date".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=10_000.0).contains(&rate) => Ok(rate),
        _ => Err("expected a number from 0.01 to 10000".to_owned()),
    }
}

/// Form of the records in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// Find out from the beginning of the file
    Auto,
    /// One JSON object a line
    Ndjson,
    /// JSON objects over any number of lines, one after the other or in one array
    Json,
    /// Change events of Debezium, one after the other or in one array, for sys_audit_log
    Debezium,
    /// Output of wal2json, format version 1 or 2, for sys_audit_log
    Wal2json,
}

#[derive(Debug, Args)]
pub struct Ingest {
    /// The log to store the records in, such as sys_audit_log [default for debezium and wal2json: sys_audit_log]
    #[arg(long, required_unless_present = "format")]
    pub log: Option<String>,
    /// Form of the records
    #[arg(long, value_enum, default_value_t = InputFormat::Auto)]
    pub format: InputFormat,
    /// Name under which the position is kept, so that a second run continues [default: the file's absolute path; none for standard input]
    ///
    /// For debezium and wal2json it names the database instead: changes that were taken in under this name are not stored again, from whatever file they come
    /// [default: the format's name].
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Key columns that messages of debezium and wal2json don't name: `id`, or `case.hoso:id;case.part:hoso_id,number`
    #[arg(long, value_name = "COLUMNS")]
    pub key: Option<String>,
    /// Send to this server, such as `http://127.0.0.1:7117`, even if the data folder is free
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Files, plain or compressed (.gz, .zst); `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ResultFormat {
    /// Drawn with lines
    Table,
    /// Comma-separated values with a header
    Csv,
    /// One JSON array
    Json,
    /// One JSON object a line
    Ndjson,
    /// An Arrow IPC stream
    Arrow,
}

#[derive(Debug, Args)]
pub struct Sql {
    /// Form of the result [default: table at a terminal, csv in a pipe]
    #[arg(long, value_enum)]
    pub format: Option<ResultFormat>,
    /// The question; without it, it is read from standard input
    pub query: Option<String>,
}

#[derive(Debug, Args)]
pub struct History {
    /// The table, such as case.hoso
    pub table: String,
    /// Key of the row
    pub key: String,
    /// The source that the table is captured from, if several have one of its name
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct At {
    /// The table, such as case.hoso
    pub table: String,
    /// Key of the row; without it, all rows
    pub key: Option<String>,
    /// The time, such as 2026-01-31T12:00:00Z or 2026-01-31 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub time: Option<i64>,
    /// The source that the table is captured from, if several have one of its name
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Blame {
    /// The table, such as case.hoso
    pub table: String,
    /// Key of the row
    pub key: String,
    /// As of this time, such as 2026-01-31T12:00:00Z or 2026-01-31 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub time: Option<i64>,
    /// The source that the table is captured from, if several have one of its name
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Transaction {
    /// Its transaction_id, as history --json shows it
    pub id: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Whose SQL to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// PostgreSQL
    Postgresql,
    /// SQLite
    Sqlite,
    /// MySQL and MariaDB
    Mysql,
    /// SQL Server
    Sqlserver,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("selection").required(true).args(["record", "transaction", "user", "user_id"])))]
pub struct Undo {
    /// Take back this record of sys_audit_log
    #[arg(long, value_name = "ID")]
    pub record: Option<i64>,
    /// Take back this transaction
    #[arg(long, value_name = "ID")]
    pub transaction: Option<String>,
    /// Take back what this user did, by name; needs --from and --to
    #[arg(long, value_name = "NAME", requires = "from", requires = "to")]
    pub user: Option<String>,
    /// Take back what this user did, by number; needs --from and --to
    #[arg(long, value_name = "ID", requires = "from", requires = "to")]
    pub user_id: Option<i64>,
    /// The user's changes at or after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<i64>,
    /// The user's changes before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<i64>,
    /// Only changes of this source: a script is for one database
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Whose SQL to write
    #[arg(long, value_enum, default_value_t = Dialect::Postgresql)]
    pub dialect: Dialect,
    /// Key columns where the rows don't show which they are: `id`, or `case.hoso:id;case.part:hoso_id,number`
    #[arg(long, value_name = "COLUMNS")]
    pub key: Option<String>,
    /// Print JSON: the script, or why there is none
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// An exported bundle; without it, the data folder is verified
    pub bundle: Option<PathBuf>,
    /// The verifier key to trust, or a file that holds it
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// A checkpoint published earlier (a file): what it covered must still be there [default: those in the folders that checkpoints are published to]
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Form of the records in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    /// Parquet
    Parquet,
    /// One JSON object a line
    Ndjson,
}

#[derive(Debug, Args)]
pub struct Export {
    /// Folder to write to; it must not exist yet or be empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Form of the records
    #[arg(long, value_enum, default_value_t = RecordFormat::Parquet)]
    pub record_format: RecordFormat,
    /// Only this log; may be repeated
    #[arg(long)]
    pub log: Vec<String>,
    /// Only records stored at or after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<i64>,
    /// Only records stored before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<i64>,
}

#[derive(Debug, Args)]
pub struct Prove {
    /// The log
    pub log: String,
    /// The record's id
    pub id: i64,
    /// File to write to [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Check {
    /// The proof file
    pub proof: PathBuf,
    /// The verifier key to trust, or a file that holds it
    #[arg(long, value_name = "KEY")]
    pub key: String,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Replace the signing key by a new one, with a checkpoint signed by both
    Rotate {
        /// Ask this server, even if the data folder is free
        #[arg(long, value_name = "URL")]
        server: Option<String>,
    },
}
