//! What attaching will do, said before it is done: what is in the way, and the statements with their reasons. Common to all ways in.

use crate::error::{CaptureError, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Most characters of a statement in an error.
const SHOWN_CHARS: usize = 100;
/// Most characters of a source's name.
const NAME_CHARS: usize = 64;

/// What the audited database writes about the old row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// All columns of the old row (`REPLICA IDENTITY FULL`).
    #[default]
    Full,
    /// The key only: less WAL; old values then come from the log itself.
    Key,
}

/// Whether existing rows are recorded first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// Only changes from now on.
    None,
    /// Every row that is there, as a SNAPSHOT record.
    #[default]
    Initial,
}

/// How a change is attributed if the application says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// By looking at the server's sessions: costs the application nothing, and may miss a short one.
    #[default]
    Activity,
    /// By a statement trigger that names the session in the transaction: certain, and costs something at each statement.
    Trigger,
}

/// What gives way if nobody reads the changes for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The audit: the server drops changes that were not read, and the gap is recorded.
    LoseAudit,
    /// The audited database: it keeps them until its disk is full.
    StopDatabase,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttachOptions {
    /// Name of the source; by default the way in and the database: `pg:app`.
    pub name: Option<String>,
    /// Patterns of tables: `case.hoso`, `identity.*`, `*.*`.
    pub tables: Vec<String>,
    /// Columns that never leave the source: `identity.users.password`. The table may be a pattern.
    pub exclude_columns: Vec<String>,
    /// Columns whose values are replaced by `***` before they are stored.
    pub mask_columns: Vec<String>,
    /// Values of `application_name` whose changes without context are no findings.
    pub known_applications: Vec<String>,
    /// What is written about old rows.
    pub identity: Identity,
    /// Whether existing rows are recorded.
    pub snapshot: Baseline,
    /// Attribution of changes without context.
    pub attribution: Fallback,
    /// Most bytes of changes that the server keeps for a reader; sets `max_slot_wal_keep_size` for the whole server.
    pub max_slot_wal_keep: Option<u64>,
    /// What gives way beyond that.
    pub when_full: Option<WhenFull>,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good to know.
    Note,
    /// Something will not be captured, or may harm the database later.
    Warning,
    /// Attaching is refused until this is changed.
    Refusal,
}

/// Something that was found while looking at the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanFinding {
    /// How grave it is.
    pub level: Level,
    /// What it is about: a table, a setting, a privilege.
    pub subject: String,
    /// What it means and what can be done.
    pub text: String,
}

/// A statement to be run in the audited database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The SQL, without the semicolon at its end.
    pub sql: String,
    /// Why it is needed.
    pub why: String,
}

impl Statement {
    /// A statement with its reason.
    pub fn new(sql: impl Into<String>, why: impl Into<String>) -> Self {
        Self { sql: sql.into(), why: why.into() }
    }

    /// Says that the database refused this statement, by the start of its first line.
    pub(crate) fn failed(&self) -> impl FnOnce(sqlx::Error) -> CaptureError {
        let first = self.sql.lines().find(|line| !line.trim_start().starts_with("--")).unwrap_or_default();
        CaptureError::database(first.chars().take(SHOWN_CHARS).collect::<String>())
    }
}

/// All that attaching or detaching will do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the source.
    pub name: String,
    /// What was found.
    pub findings: Vec<PlanFinding>,
    /// Statements of a transaction before it, after which a queue gets nothing any more: when all that is in it has been read, the rest may go.
    #[serde(default)]
    pub before: Vec<Statement>,
    /// Statements of one transaction: all or none.
    pub transaction: Vec<Statement>,
    /// Statements after it, which can't be part of a transaction.
    pub after: Vec<Statement>,
    /// Tables concerned, with their schema.
    pub tables: Vec<String>,
    /// Whether the database knows the source already.
    #[serde(default)]
    pub is_registered: bool,
}

impl Plan {
    /// An empty plan for a source.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a finding.
    pub fn find(&mut self, level: Level, subject: impl Into<String>, text: impl Into<String>) {
        self.findings.push(PlanFinding { level, subject: subject.into(), text: text.into() });
    }

    /// Refuses a schema `muniment` that is not ours: whoever has made it owns what is put into it.
    pub(crate) fn refuse_schema(&mut self) {
        let text = "it belongs to another role, who could remove or replace what attaching puts there: DROP SCHEMA muniment CASCADE first";
        self.find(Level::Refusal, "schema muniment", text);
    }

    /// Says what becomes of what is still in a queue that is detached.
    pub(crate) fn find_waiting(&mut self, changes: i64, dead: i64) {
        if changes > 0 {
            self.find(Level::Note, "queue", format!("{changes} changes are not stored yet: they are read first"));
        }
        if dead > 0 {
            let text =
                format!("{dead} dead letters, which could not be recorded, are only there: look at them, then --discard gives them up");
            self.find(Level::Refusal, "queue", text);
        }
    }

    /// Does it all the same: what would refuse it is a warning.
    pub fn overrule(&mut self) {
        self.findings.iter_mut().filter(|finding| finding.level == Level::Refusal).for_each(|finding| finding.level = Level::Warning);
    }

    /// Refuses a table whose primary key would not be recorded as it is: its rows could not be told apart.
    pub(crate) fn judge_key(&mut self, table: &str, key: &[String], is_hidden: impl Fn(&str) -> bool) {
        for column in key.iter().filter(|column| is_hidden(column)) {
            let text = format!("{column} is part of its primary key, by which a row's changes are found: it can't be masked or left out");
            self.find(Level::Refusal, table, text);
        }
    }

    /// Refuses a plan with something in the way.
    ///
    /// # Errors
    /// [`CaptureError::Refused`] with all refusals.
    pub fn permitted(&self) -> Result<()> {
        let refusals: Vec<String> = self
            .findings
            .iter()
            .filter(|finding| finding.level == Level::Refusal)
            .map(|finding| format!("{}: {}", finding.subject, finding.text))
            .collect();
        if refusals.is_empty() { Ok(()) } else { Err(CaptureError::Refused(refusals.join("\n"))) }
    }

    /// The statements as a script that can be reviewed and run by hand, each with its reason.
    pub fn script(&self) -> String {
        let mut text = String::new();
        for transaction in [&self.before, &self.transaction].into_iter().filter(|statements| !statements.is_empty()) {
            text.push_str("BEGIN;\n");
            transaction.iter().for_each(|statement| write_statement(statement, &mut text));
            text.push_str("\nCOMMIT;\n");
        }
        self.after.iter().for_each(|statement| write_statement(statement, &mut text));
        text
    }
}

fn write_statement(statement: &Statement, text: &mut String) {
    let why = statement.why.lines().map(|line| format!("-- {line}\n")).collect::<String>();
    let _ = write!(text, "\n{why}{};\n", statement.sql.trim_end().trim_end_matches(';'));
}

/// Checks the name of a source: 1 to 64 of `a-z`, `0-9`, `_`, `:`, `.` and `-`.
///
/// # Errors
/// [`CaptureError::Refused`] if it is another.
pub fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:.-".contains(c);
    if (1..=NAME_CHARS).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(CaptureError::Refused(format!(
        "{name:?} is no name of a source: 1 to {NAME_CHARS} of a-z, 0-9, _ : . and - are allowed; choose one with --name"
    )))
}

/// A name of a source made from a database's: other characters become `_`.
pub fn default_name(prefix: &str, database: &str) -> String {
    let clean = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c) { c } else { '_' };
    format!("{prefix}:{}", database.to_lowercase().chars().map(clean).take(NAME_CHARS - 16).collect::<String>())
}
