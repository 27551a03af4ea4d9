//! `muniment cases`: investigations of security records, and findings.

use super::{Ask, Common, Question, fields, object, query, rows, text};
use crate::config::Config;
use crate::error::Result;
use clap::{Args, Subcommand, ValueEnum};
use muniment_engine::cases::{CaseFilter, EvidenceRequest, FindingFilter, NewCase, Resolution, Status, Step};
use muniment_engine::{ChangedBy, Engine};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Args)]
pub struct Cases {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: CasesCommand,
}

#[derive(Debug, Subcommand)]
enum CasesCommand {
    /// List investigations, by number
    List {
        /// In this state
        #[arg(long, value_enum)]
        status: Option<State>,
        /// That this user works on, by number
        #[arg(long, value_name = "ID")]
        assigned_to: Option<i64>,
        /// Only those after this number
        #[arg(long, value_name = "ID")]
        after: Option<i64>,
        /// This many at most
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
    /// Show an investigation with its notes and evidence
    Show {
        /// Its number
        id: i64,
    },
    /// Open an investigation; it is pending until somebody starts
    Open {
        /// What it is about
        title: String,
        /// The record of security_audit_log that is investigated
        #[arg(long, value_name = "ID")]
        record: Option<i64>,
        /// The finding of security_events that is investigated
        #[arg(long, value_name = "ID")]
        finding: Option<i64>,
        /// Who is to work on it, by number
        #[arg(long, value_name = "ID")]
        assigned_to: Option<i64>,
        /// What is known at the beginning
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Give an investigation to a user
    Assign {
        /// Its number
        id: i64,
        /// The user's number
        user: i64,
    },
    /// Begin to work on an investigation
    Start {
        /// Its number
        id: i64,
    },
    /// Resolve an investigation
    Resolve {
        /// Its number
        id: i64,
        /// What came of it
        #[arg(long, value_name = "TEXT")]
        outcome: String,
    },
    /// Write something down
    Note {
        /// Number of the investigation
        id: i64,
        /// What was found or done
        note: String,
    },
    /// Link a record as evidence
    Evidence {
        /// Number of the investigation
        id: i64,
        /// The record's log
        log: String,
        /// The record's id
        record: i64,
        /// What it shows
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// List findings of security_events that are not dealt with
    Findings {
        /// Those that are, too
        #[arg(long)]
        all: bool,
        /// Only those after this number
        #[arg(long, value_name = "ID")]
        after: Option<i64>,
        /// This many at most
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
    /// Close a finding
    ResolveFinding {
        /// Its number
        id: i64,
        /// It turned out to be nothing
        #[arg(long)]
        false_positive: bool,
        /// What was found out
        #[arg(long, value_name = "TEXT")]
        notes: String,
        /// What was done about it
        #[arg(long, value_name = "TEXT")]
        mitigation: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// Opened
    Pending,
    /// Somebody works on it
    InProgress,
    /// Closed
    Resolved,
}

impl State {
    fn status(self) -> Status {
        match self {
            Self::Pending => Status::Pending,
            Self::InProgress => Status::InProgress,
            Self::Resolved => Status::Resolved,
        }
    }
}

/// Runs the command.
pub async fn run(config: Config, options: Cases) -> Result<ExitCode> {
    super::run(config, options.common, &options.command).await
}

fn number(value: Option<i64>) -> Option<String> {
    value.map(|value| value.to_string())
}

impl Ask for CasesCommand {
    fn question(&self) -> Result<Question> {
        let case = |id: &i64, more: &str| format!("/api/v1/investigations/{id}{more}");
        Ok(match self {
            Self::List { status, assigned_to, after, limit } => Question::get(query(
                "/api/v1/investigations",
                &[
                    ("status", status.map(|status| status.status().name().to_owned())),
                    ("assigned_to", number(*assigned_to)),
                    ("after", number(*after)),
                    ("limit", Some(limit.to_string())),
                ],
            )),
            Self::Show { id } => Question::get(case(id, "")),
            Self::Open { title, record, finding, assigned_to, note } => Question::post(
                "/api/v1/investigations",
                object(&[
                    ("title", Some(json!(title))),
                    ("security_audit_id", record.map(Value::from)),
                    ("security_event_id", finding.map(Value::from)),
                    ("assigned_to", assigned_to.map(Value::from)),
                    ("note", note.clone().map(Value::from)),
                ]),
            ),
            Self::Assign { id, user } => Question::post(case(id, "/assign"), json!({ "user_id": user })),
            Self::Start { id } => Question::post(case(id, "/status"), json!({ "status": Status::InProgress })),
            Self::Resolve { id, outcome } => Question::post(case(id, "/status"), json!({ "status": Status::Resolved, "outcome": outcome })),
            Self::Note { id, note } => Question::post(case(id, "/notes"), json!({ "note": note })),
            Self::Evidence { id, log, record, note } => {
                Question::post(case(id, "/evidence"), json!({ "log": log, "id": record, "note": note }))
            }
            Self::Findings { all, after, limit } => Question::get(query(
                "/api/v1/findings",
                &[("resolved", (!all).then(|| "false".to_owned())), ("after", number(*after)), ("limit", Some(limit.to_string()))],
            )),
            Self::ResolveFinding { id, false_positive, notes, mitigation } => Question::post(
                format!("/api/v1/findings/{id}/resolve"),
                json!({ "false_positive": false_positive, "analyst_notes": notes, "mitigation_action": mitigation }),
            ),
        })
    }

    async fn here(&self, engine: &Arc<Engine>, by: &ChangedBy) -> Result<Value> {
        Ok(match self {
            Self::List { status, assigned_to, after, limit } => {
                let status = status.map(State::status);
                let filter = CaseFilter { status, assigned_to: *assigned_to, after: *after, limit: Some(*limit), ..CaseFilter::default() };
                json!(engine.cases(&filter).await?)
            }
            Self::Show { id } => engine.case(*id).await?,
            Self::Open { title, record, finding, assigned_to, note } => {
                let new = NewCase {
                    title: title.clone(),
                    security_audit_id: *record,
                    security_event_id: *finding,
                    assigned_to: *assigned_to,
                    note: note.clone(),
                };
                engine.open_case(&new, by).await?
            }
            Self::Assign { id, user } => engine.assign_case(*id, Some(*user), by).await?,
            Self::Start { id } => engine.step_case(*id, &Step { status: Status::InProgress, outcome: None, note: None }, by).await?,
            Self::Resolve { id, outcome } => {
                let step = Step { status: Status::Resolved, outcome: Some(outcome.clone()), note: None };
                engine.step_case(*id, &step, by).await?
            }
            Self::Note { id, note } => engine.note_case(*id, note, by).await?,
            Self::Evidence { id, log, record, note } => {
                engine.add_evidence(*id, &EvidenceRequest { log: log.clone(), id: *record, note: note.clone() }, by).await?
            }
            Self::Findings { all, after, limit } => {
                let resolved = (!all).then_some(false);
                json!(engine.findings(&FindingFilter { resolved, user_id: None, after: *after, limit: Some(*limit) }).await?)
            }
            Self::ResolveFinding { id, false_positive, notes, mitigation } => {
                let resolution =
                    Resolution { false_positive: *false_positive, analyst_notes: notes.clone(), mitigation_action: mitigation.clone() };
                engine.resolve_finding(*id, &resolution, by).await?
            }
        })
    }

    fn show(&self, answer: &Value) -> String {
        match self {
            Self::List { .. } => {
                rows(answer, &["id", "status", "title", "security_audit_id", "assigned_to", "opened_at", "outcome"], "There is none.")
            }
            Self::Findings { .. } => rows(
                answer,
                &["id", "created_at", "severity_level", "threat_type", "user_id", "source_ip", "is_resolved", "false_positive"],
                "There is none.",
            ),
            Self::ResolveFinding { id, .. } => format!("Finding {id} is resolved.\n"),
            Self::Show { .. } => shown(answer),
            _ => format!("Investigation {} is {}.\n", text(&answer["id"]), text(&answer["status"]).replace('_', " ")),
        }
    }
}

fn shown(case: &Value) -> String {
    let mut text_of = fields(case);
    for note in case["notes_added"].as_array().into_iter().flatten() {
        text_of.push_str(&format!("\n{} {}: {}\n", text(&note["created_at"]), text(&note["author"]), text(&note["note"])));
    }
    for record in case["evidence"].as_array().into_iter().flatten() {
        let (log, id, hash) = (text(&record["log_name"]), text(&record["record_id"]), text(&record["blockchain_hash"]));
        text_of.push_str(&format!("\nevidence: {log} {id}, {hash}: {}\n", text(&record["note"])));
    }
    text_of
}
