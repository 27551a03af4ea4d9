//! `muniment limits`: rate limits, who exceeded them, and blocks; through the server that holds the data folder, or directly.

use crate::config::Config;
use crate::data_folder::{self, Writer};
use crate::error::{CliError, Result};
use crate::ingest::client::Client;
use crate::logging;
use clap::{Args, Subcommand, ValueEnum};
use muniment_engine::limits::{CountedBy, Limit};
use muniment_engine::{ChangedBy, Engine};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Limits {
    #[command(subcommand)]
    command: LimitsCommand,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Ask this server, such as http://127.0.0.1:7117, even if the data folder is free
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
}

#[derive(Debug, Subcommand)]
enum LimitsCommand {
    /// List the limits
    List,
    /// Make a limit, or replace the one of this name
    ///
    /// `muniment limits set login --endpoint /login --by address --limit 5 --window 1m --block 15m` lets an address try five times a minute, and shuts it out for a
    /// quarter of an hour if it tries more often.
    Set(Set),
    /// Remove a limit; what it has led to stays
    Remove {
        /// Its name
        name: String,
    },
    /// Ask whether a call may go on, as an application does; exit code 1 if it may not
    Check(Check),
    /// List who exceeded a limit, newest first
    Violations {
        /// Only those whose block is in force
        #[arg(long)]
        blocked: bool,
        /// This many at most
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
    /// Lift the block of a violation
    Unblock {
        /// Number of the violation
        id: i64,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// Whose calls are counted together.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    /// Those of a user
    User,
    /// Those from an address
    Address,
    /// Those with an API key
    Key,
    /// Everybody's of an endpoint
    Endpoint,
}

#[derive(Debug, Args)]
struct Set {
    /// Its name
    name: String,
    /// Whose calls are counted together
    #[arg(long, value_enum)]
    by: By,
    /// Calls allowed within the window
    #[arg(long, value_name = "N")]
    limit: i64,
    /// Length of the window, from 1s to 1d
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = crate::config::parse_duration)]
    window: Duration,
    /// Calls allowed at once by the check [default: as many as within the window]
    #[arg(long, value_name = "N")]
    burst: Option<i64>,
    /// How long who exceeds it is blocked, in whole minutes [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration)]
    block: Option<Duration>,
    /// The endpoint it is for; one that ends in `*` is for all that begin so [default: every endpoint]
    #[arg(long, value_name = "PATH")]
    endpoint: Option<String>,
    /// The method it is for [default: every method]
    #[arg(long)]
    method: Option<String>,
    /// The one user (number), address, network or key it is for, in place of the limit for everybody
    #[arg(long)]
    subject: Option<String>,
    /// Protect the API of Muniment itself, too
    #[arg(long)]
    own_api: bool,
    /// Don't answer applications that ask
    #[arg(long)]
    no_check: bool,
    /// Don't hold the records of api_access_log against it
    #[arg(long)]
    no_log: bool,
    /// Keep it without putting it in force
    #[arg(long)]
    inactive: bool,
}

#[derive(Debug, Args)]
struct Check {
    /// What is called
    endpoint: String,
    /// How
    #[arg(long)]
    method: Option<String>,
    /// The user, by number
    #[arg(long, value_name = "ID")]
    user: Option<i64>,
    /// The address
    #[arg(long, value_name = "ADDR")]
    address: Option<String>,
    /// The API key
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// How many calls it counts as
    #[arg(long, default_value_t = 1, value_name = "N")]
    cost: i64,
    /// Only look; take nothing
    #[arg(long)]
    dry_run: bool,
}

impl Set {
    fn to_limit(&self) -> Result<Limit> {
        let whole = |time: Duration, unit: u64, flag: &str| {
            let fits = time.subsec_nanos() == 0 && time.as_secs().is_multiple_of(unit);
            fits.then(|| (time.as_secs() / unit) as i64).ok_or_else(|| CliError::Usage(format!("{flag} is a whole number of {} s", unit)))
        };
        Ok(Limit {
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            method: self.method.clone(),
            counted_by: match self.by {
                By::User => CountedBy::User,
                By::Address => CountedBy::Address,
                By::Key => CountedBy::Key,
                By::Endpoint => CountedBy::Endpoint,
            },
            subject: self.subject.clone(),
            limit_threshold: self.limit,
            time_window_seconds: whole(self.window, 1, "--window")?,
            burst: self.burst,
            block_minutes: self.block.map_or(Ok(0), |block| whole(block, 60, "--block"))?,
            on_check: !self.no_check,
            on_log: !self.no_log,
            on_own_api: self.own_api,
            is_active: !self.inactive,
        })
    }
}

/// Runs the command.
pub async fn run(config: Config, options: Limits) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    let server = match &options.server {
        Some(url) => Writer::Server(url.clone()),
        None => {
            data_folder::must_exist(config.data())?;
            data_folder::write(&config).await?
        }
    };
    let answer = match &server {
        Writer::Server(url) => tokio::task::block_in_place(|| through(url, &options.command))?,
        Writer::Here(engine) => {
            let answer = here(engine, &options.command).await;
            engine.shutdown().await?;
            answer?
        }
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&answer).map_err(|error| CliError::Usage(error.to_string()))?);
    } else {
        print!("{}", show(&options.command, &answer));
    }
    let refused = matches!(options.command, LimitsCommand::Check(_)) && answer["allowed"] == false;
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn through(url: &str, command: &LimitsCommand) -> Result<Value> {
    let client = Client::new(url);
    let path = |name: &str| format!("/api/v1/limits/{}", encoded(name));
    match command {
        LimitsCommand::List => client.ask("GET", "/api/v1/limits", None),
        LimitsCommand::Set(set) => client.ask("PUT", &path(&set.name), Some(&json!(set.to_limit()?))),
        LimitsCommand::Remove { name } => client.ask("DELETE", &path(name), None),
        LimitsCommand::Check(check) => {
            let question = json!({
                "endpoint": check.endpoint, "method": check.method, "user_id": check.user, "ip_address": check.address,
                "api_key_id": check.key, "cost": check.cost, "dry_run": check.dry_run,
            });
            client.ask("POST", "/api/v1/limits/check", Some(&question))
        }
        LimitsCommand::Violations { blocked, limit } => {
            client.ask("GET", &format!("/api/v1/limits/violations?blocked={blocked}&limit={limit}"), None)
        }
        LimitsCommand::Unblock { id, reason } => {
            client.ask("POST", &format!("/api/v1/limits/violations/{id}/unblock"), Some(&json!({ "reason": reason })))
        }
    }
}

async fn here(engine: &Engine, command: &LimitsCommand) -> Result<Value> {
    let limits = engine.rate_limits();
    let by = ChangedBy { username: crate::capture::user().unwrap_or_else(|| "local".to_owned()), ..ChangedBy::default() };
    Ok(match command {
        LimitsCommand::List => json!(limits.list().await?),
        LimitsCommand::Set(set) => {
            let limit = set.to_limit()?;
            limits.put(&limit, &by).await?;
            json!(limit)
        }
        LimitsCommand::Remove { name } => {
            limits.remove(name, &by).await?;
            json!({ "removed": name })
        }
        LimitsCommand::Check(_) => {
            return Err(CliError::Usage("who has called how often is known to a running server only: start `muniment serve`".to_owned()));
        }
        LimitsCommand::Violations { blocked, limit } => json!(limits.violations(*blocked, *limit).await?),
        LimitsCommand::Unblock { id, reason } => {
            json!(limits.unblock(*id, &ChangedBy { reason: Some(reason.clone()), ..by }).await?)
        }
    })
}

/// A text as part of a path, or as the value of a parameter.
pub fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn show(command: &LimitsCommand, answer: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    match command {
        LimitsCommand::List => match answer.as_array().map(Vec::as_slice) {
            None | Some([]) => "There is no limit. `muniment limits set` makes one.\n".to_owned(),
            Some(limits) => crate::columns::table(
                &["name", "by", "subject", "endpoint", "method", "limit", "window", "block", "on", "active"],
                limits.iter().map(|limit| {
                    let on = [("on_check", "check"), ("on_log", "log"), ("on_own_api", "own-api")];
                    let on: Vec<&str> = on.iter().filter(|(key, _)| limit[*key] == true).map(|(_, name)| *name).collect();
                    let mut row: Vec<String> =
                        ["name", "counted_by", "subject", "endpoint", "method", "limit_threshold"].map(|key| text(&limit[key])).to_vec();
                    row.push(format!("{} s", limit["time_window_seconds"]));
                    row.push(format!("{} min", limit["block_minutes"]));
                    row.extend([on.join(","), text(&limit["is_active"])]);
                    row
                }),
            ),
        },
        LimitsCommand::Violations { .. } => match answer.as_array().map(Vec::as_slice) {
            None | Some([]) => "Nobody.\n".to_owned(),
            Some(violations) => {
                let keys = [
                    "id",
                    "created_at",
                    "limit_name",
                    "subject",
                    "ip_address",
                    "endpoint",
                    "request_count",
                    "limit_threshold",
                    "blocked_until",
                ];
                crate::columns::table(&keys, violations.iter().map(|row| keys.map(|key| text(&row[key])).to_vec()))
            }
        },
        LimitsCommand::Set(set) => format!("{} is in force{}.\n", set.name, if set.inactive { " no longer" } else { "" }),
        LimitsCommand::Remove { name } => format!("{name} is removed.\n"),
        LimitsCommand::Unblock { .. } => format!("{} is no longer blocked.\n", text(&answer["subject"])),
        LimitsCommand::Check(_) => check_shown(answer),
    }
}

fn check_shown(answer: &Value) -> String {
    let seconds = |value: &Value| value.as_f64().map_or("-".to_owned(), |seconds| format!("{seconds:.1} s"));
    let mut shown = match (answer["allowed"] == true, &answer["remaining"]) {
        (true, Value::Null) => "allowed: no limit is for this call\n".to_owned(),
        (true, left) => format!("allowed, {left} left, whole again in {}\n", seconds(&answer["reset_seconds"])),
        (false, _) => format!("refused, try again after {}\n", seconds(&answer["retry_after_seconds"])),
    };
    for limit in answer["limits"].as_array().into_iter().flatten() {
        let (name, subject) = (limit["limit"].as_str().unwrap_or_default(), limit["subject"].as_str().unwrap_or_default());
        let state = if limit["blocked"] == true { "blocked" } else { "counts" };
        shown.push_str(&format!("  {name} {state} {subject}: {} of {} left\n", limit["remaining"], limit["limit_threshold"]));
    }
    shown
}
