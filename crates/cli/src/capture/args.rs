//! Arguments of `attach`, `detach` and `sources`.

use crate::config::parse_server_size;
use clap::{Args, ValueEnum};
use muniment_capture::open::Mode;
use muniment_capture::plan::{AttachOptions, Baseline, Fallback, Identity, WhenFull};

/// How changes come out of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArgument {
    /// Logical replication: next to no cost for the database
    Replication,
    /// Triggers and a queue table, where replication is not allowed
    Queue,
}

/// What is written about old rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IdentityArgument {
    /// All columns
    Full,
    /// The key only: less WAL; old values then come from the log
    Key,
}

/// Whether existing rows are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SnapshotArgument {
    /// Only changes from now on
    None,
    /// Every row that is there now
    Initial,
}

/// What gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFullArgument {
    /// The audit: the server drops changes that were not read, and the gap is recorded
    LoseAudit,
    /// The audited database: it keeps them until its disk is full
    StopDatabase,
}

/// How changes without context are attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AttributionArgument {
    /// By looking at the server's sessions; costs the application nothing
    Activity,
    /// By a statement trigger that names the session in the transaction; certain
    Trigger,
}

/// Databases for which statements can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DialectArgument {
    /// SQL Server
    Sqlserver,
}

#[derive(Debug, Args)]
pub struct Attach {
    /// The database: postgres://user:password@host/database or sqlite:///path/to/file. The password may also come from PGPASSWORD or ~/.pgpass
    #[arg(required_unless_present = "dialect")]
    pub url: Option<String>,
    /// Tables to capture, such as case.hoso, 'identity.*' or '*.*'; may be repeated
    #[arg(long, value_name = "PATTERN", required = true)]
    pub table: Vec<String>,
    /// Columns that never leave the database, such as identity.users.password; may be repeated
    #[arg(long, value_name = "COLUMN")]
    pub exclude_column: Vec<String>,
    /// Columns whose values are replaced by *** before they are stored; may be repeated
    #[arg(long, value_name = "COLUMN")]
    pub mask_column: Vec<String>,
    /// application_name of the application: its changes without context are no findings; may be repeated
    #[arg(long, value_name = "NAME")]
    pub known_application: Vec<String>,
    /// What the database logs about old rows
    #[arg(long, value_enum, default_value = "full")]
    pub identity: IdentityArgument,
    /// How changes come out of the database
    #[arg(long, value_enum, default_value = "replication")]
    pub mode: ModeArgument,
    /// Whether rows that are there now are recorded first
    #[arg(long, value_enum, default_value = "initial")]
    pub snapshot: SnapshotArgument,
    /// Most WAL that the server keeps for slots that fall behind, such as 20GB: sets max_slot_wal_keep_size for the whole server
    #[arg(long, value_name = "SIZE", value_parser = parse_server_size)]
    pub max_slot_wal_keep: Option<u64>,
    /// What gives way if nobody reads the changes for long
    #[arg(long, value_enum)]
    pub when_full: Option<WhenFullArgument>,
    /// How changes are attributed if the application says nothing
    #[arg(long, value_enum, default_value = "activity")]
    pub attribution: AttributionArgument,
    /// Name of the source [default: pg:DATABASE]
    #[arg(long)]
    pub name: Option<String>,
    /// Print what would be done, with reasons, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the statements for another database, to be reviewed and run there; tables with their keys, as dbo.orders(id)
    #[arg(long, value_enum, requires = "print")]
    pub dialect: Option<DialectArgument>,
    /// With --dialect: print
    #[arg(long, requires = "dialect")]
    pub print: bool,
    /// Ask this server, such as http://127.0.0.1:7117, even if the data folder is free
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}

impl Attach {
    /// The options among the arguments.
    pub fn options(&self) -> AttachOptions {
        AttachOptions {
            name: self.name.clone(),
            tables: self.table.clone(),
            exclude_columns: self.exclude_column.clone(),
            mask_columns: self.mask_column.clone(),
            known_applications: self.known_application.clone(),
            identity: match self.identity {
                IdentityArgument::Full => Identity::Full,
                IdentityArgument::Key => Identity::Key,
            },
            snapshot: match self.snapshot {
                SnapshotArgument::None => Baseline::None,
                SnapshotArgument::Initial => Baseline::Initial,
            },
            attribution: match self.attribution {
                AttributionArgument::Activity => Fallback::Activity,
                AttributionArgument::Trigger => Fallback::Trigger,
            },
            max_slot_wal_keep: self.max_slot_wal_keep,
            when_full: self.when_full.map(|choice| match choice {
                WhenFullArgument::LoseAudit => WhenFull::LoseAudit,
                WhenFullArgument::StopDatabase => WhenFull::StopDatabase,
            }),
        }
    }

    /// How changes come out.
    pub fn mode(&self) -> Mode {
        match self.mode {
            ModeArgument::Replication => Mode::Replication,
            ModeArgument::Queue => Mode::Queue,
        }
    }
}

#[derive(Debug, Args)]
pub struct Detach {
    /// Name of the source
    pub name: String,
    /// Print what would be done, with reasons, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the database as it is: for one that is gone
    #[arg(long, conflicts_with = "dry_run")]
    pub forget: bool,
    /// Give up what is not read yet, instead of reading it first
    #[arg(long)]
    pub discard: bool,
    /// Ask this server, even if the data folder is free
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}

#[derive(Debug, Args)]
pub struct Sources {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Ask this server, even if the data folder is free
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}
