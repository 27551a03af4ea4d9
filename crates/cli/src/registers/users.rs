//! `muniment users`: the directory.

use super::{Ask, Common, Question, encoded, fields, object, query, rows, text};
use crate::config::Config;
use crate::error::{CliError, Result};
use clap::{Args, Subcommand, ValueEnum};
use muniment_engine::people::{Existing, ImportFormat, UserFilter, UserKey};
use muniment_engine::{ChangedBy, Engine};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Args)]
pub struct Users {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: UsersCommand,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// Add a user
    Add(Add),
    /// List users, by number
    List {
        /// Only those that are not active
        #[arg(long)]
        inactive: bool,
        /// Only those of this source, such as first_sight
        #[arg(long)]
        source: Option<String>,
        /// Only those after this number
        #[arg(long, value_name = "ID")]
        after: Option<i64>,
        /// This many at most
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
    /// Show a user, by number, log-in name or external id
    Show {
        /// Number, log-in name or external id
        user: String,
    },
    /// Deactivate a user, who stays in the directory
    Deactivate {
        /// Number, log-in name or external id
        user: String,
    },
    /// Activate a user again
    Activate {
        /// Number, log-in name or external id
        user: String,
    },
    /// Give a user another external id
    AddId {
        /// Number, log-in name or external id
        user: String,
        /// The user's key in another system: text or UUID
        external_id: String,
        /// The other system
        #[arg(long)]
        system: Option<String>,
    },
    /// Take users from a CSV file with a heading, or from one JSON object a line; all or none
    ///
    /// Fields are username, display_name, email, external_id, source and id.
    Import {
        /// The file; its name ends in .csv, or it is taken for JSON lines
        file: PathBuf,
        /// What is done with users whose log-in name is there already
        #[arg(long, value_enum, default_value_t = IfThere::Refuse)]
        existing: IfThere,
    },
}

#[derive(Debug, Args)]
struct Add {
    /// Log-in name
    username: String,
    /// Name to show
    #[arg(long)]
    name: Option<String>,
    /// E-mail address
    #[arg(long)]
    email: Option<String>,
    /// The user's key in the system that the user comes from
    #[arg(long, value_name = "ID")]
    external_id: Option<String>,
    /// The system that the user comes from [default: local]
    #[arg(long)]
    source: Option<String>,
    /// Number that records refer to [default: the next free one]
    #[arg(long)]
    id: Option<i64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IfThere {
    /// They are errors
    Refuse,
    /// Their fields are changed to what the file says
    Update,
    /// They stay as they are
    Skip,
}

impl IfThere {
    fn existing(self) -> (Existing, &'static str) {
        match self {
            Self::Refuse => (Existing::Refuse, "refuse"),
            Self::Update => (Existing::Update, "update"),
            Self::Skip => (Existing::Skip, "skip"),
        }
    }
}

/// Runs the command.
pub async fn run(config: Config, options: Users) -> Result<ExitCode> {
    super::run(config, options.common, &options.command).await
}

fn add_body(add: &Add) -> Value {
    let text = |value: &Option<String>| value.clone().map(Value::from);
    object(&[
        ("username", Some(json!(add.username))),
        ("display_name", text(&add.name)),
        ("email", text(&add.email)),
        ("external_id", text(&add.external_id)),
        ("source", text(&add.source)),
        ("id", add.id.map(Value::from)),
    ])
}

fn map(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

fn format(file: &std::path::Path) -> (ImportFormat, &'static str) {
    let csv = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    if csv { (ImportFormat::Csv, "text/csv") } else { (ImportFormat::Ndjson, "application/x-ndjson") }
}

impl Ask for UsersCommand {
    fn question(&self) -> Result<Question> {
        let user = |user: &str, more: &str| format!("/api/v1/users/{}{more}", encoded(user));
        Ok(match self {
            Self::Add(add) => Question::post("/api/v1/users", add_body(add)),
            Self::List { inactive, source, after, limit } => Question::get(query(
                "/api/v1/users",
                &[
                    ("active", inactive.then(|| "false".to_owned())),
                    ("source", source.clone()),
                    ("after", after.map(|after| after.to_string())),
                    ("limit", Some(limit.to_string())),
                ],
            )),
            Self::Show { user: name } => Question::get(user(name, "")),
            Self::Deactivate { user: name } => Question::post(user(name, "/deactivate"), json!({})),
            Self::Activate { user: name } => Question::post(user(name, "/activate"), json!({})),
            Self::AddId { user: name, external_id, system } => {
                let body = object(&[("external_id", Some(json!(external_id))), ("system", system.clone().map(Value::from))]);
                Question::post(user(name, "/external-ids"), body)
            }
            Self::Import { file, existing } => {
                let path = format!("/api/v1/users/import?existing={}", existing.existing().1);
                Question::file(path, format(file).1, std::fs::read(file).map_err(CliError::file("reading", file))?)
            }
        })
    }

    async fn here(&self, engine: &Arc<Engine>, by: &ChangedBy) -> Result<Value> {
        let key = |name: &str| UserKey::from(name);
        Ok(match self {
            Self::Add(add) => engine.add_user(&map(add_body(add)), by).await?,
            Self::List { inactive, source, after, limit } => {
                let (active, after) = (inactive.then_some(false), after.unwrap_or(i64::MIN));
                json!(engine.users(&UserFilter { active, source: source.clone(), after, limit: *limit }).await?)
            }
            Self::Show { user } => engine.user(&key(user)).await?,
            Self::Deactivate { user } => engine.set_user_active(&key(user), false, by).await?,
            Self::Activate { user } => engine.set_user_active(&key(user), true, by).await?,
            Self::AddId { user, external_id, system } => {
                let body = object(&[("external_id", Some(json!(external_id))), ("system", system.clone().map(Value::from))]);
                engine.add_external_id(&key(user), &map(body), by).await?
            }
            Self::Import { file, existing } => {
                let contents = std::fs::read(file).map_err(CliError::file("reading", file))?;
                json!(engine.import_users(&contents, format(file).0, existing.existing().0, by).await?)
            }
        })
    }

    fn show(&self, answer: &Value) -> String {
        let named = || format!("{} (number {})", text(&answer["username"]), text(&answer["id"]));
        match self {
            Self::Add(_) => format!("{} is added.\n", named()),
            Self::List { .. } => {
                rows(answer, &["id", "username", "display_name", "external_id", "source", "is_active"], "There is no such user.")
            }
            Self::Show { .. } => {
                let ids = answer["external_ids"].as_array().into_iter().flatten();
                let ids = ids.map(|id| format!("external id: {} ({})\n", text(&id["external_id"]), text(&id["system"])));
                fields(answer) + &ids.collect::<String>()
            }
            Self::Deactivate { .. } => format!("{} is deactivated.\n", named()),
            Self::Activate { .. } => format!("{} is active.\n", named()),
            Self::AddId { external_id, .. } => format!("{} is also {external_id}.\n", named()),
            Self::Import { .. } => {
                format!(
                    "{} added, {} updated, {} unchanged\n",
                    text(&answer["added"]),
                    text(&answer["updated"]),
                    text(&answer["unchanged"])
                )
            }
        }
    }
}
