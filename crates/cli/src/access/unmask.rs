//! `muniment unmask`: masked contents in clear, for a reason. Asked of a server, which knows who asks and who decides.

use super::show::{columns, time};
use crate::config::Config;
use crate::data_folder;
use crate::error::{CliError, Result};
use crate::ingest::client::Client;
use crate::logging;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Unmask {
    #[command(subcommand)]
    command: UnmaskCommand,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Ask this server, such as http://127.0.0.1:7117 [default: the one that holds the data folder]
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
}

#[derive(Debug, Subcommand)]
enum UnmaskCommand {
    /// Ask to see masked contents of a table in clear
    Request(Wish),
    /// List requests and what became of them, oldest first: your own, or all if you may decide about them
    List {
        /// Only those that nobody has decided about yet
        #[arg(long)]
        pending: bool,
    },
    /// Show one request
    Show {
        /// Its number, as list shows it
        id: i64,
    },
    /// Approve somebody else's request
    Approve(Decision),
    /// Refuse somebody else's request
    Refuse(Decision),
    /// End a grant before its time, or take a request back
    End(Decision),
}

/// What is to be seen.
#[derive(Debug, Args)]
struct Wish {
    /// The log or register, such as sys_audit_log
    table: String,
    /// Why it is needed; it goes on the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only the record with this id; may be repeated
    #[arg(long, value_name = "ID", conflicts_with = "entity")]
    id: Vec<i64>,
    /// Only the changes of one row of an audited table, such as `--entity case.hoso 17`
    #[arg(long, num_args = 2, value_names = ["TABLE", "KEY"])]
    entity: Option<Vec<String>>,
    /// For how long, such as 30min [default: 1h]
    #[arg(long = "for", value_name = "TIME", value_parser = crate::config::parse_duration)]
    time: Option<Duration>,
}

#[derive(Debug, Args)]
struct Decision {
    /// Number of the request, as list shows it
    id: i64,
    /// What is to be said about it, for the record
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

impl Wish {
    fn body(&self) -> Result<Value> {
        let mut body = Map::from_iter([("table".to_owned(), json!(self.table)), ("reason".to_owned(), json!(self.reason))]);
        if !self.id.is_empty() {
            body.insert("ids".to_owned(), json!(self.id));
        }
        if let Some([table, key]) = self.entity.as_deref() {
            body.insert("entity".to_owned(), json!({ "table": table, "key": key }));
        }
        if let Some(time) = self.time {
            if time.subsec_nanos() > 0 || time.as_secs() % 60 > 0 || time.is_zero() {
                return Err(CliError::Usage("--for takes whole minutes, such as 30min or 2h".to_owned()));
            }
            body.insert("minutes".to_owned(), json!(time.as_secs() / 60));
        }
        Ok(Value::Object(body))
    }
}

/// Runs the command.
pub async fn run(config: Config, options: Unmask) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    let url = options.server.or_else(|| data_folder::running_server(config.data()));
    let url = url.ok_or_else(|| CliError::Usage("no server runs on the data folder; --server names one".to_owned()))?;
    let ask =
        |method: &str, path: &str, body: Option<Value>| tokio::task::block_in_place(|| Client::new(&url).ask(method, path, body.as_ref()));
    let decide = |decision: &Decision, word: &str| {
        let body = decision.note.as_ref().map_or_else(|| json!({}), |note| json!({ "note": note }));
        ask("POST", &format!("/api/v1/unmasking/{}/{word}", decision.id), Some(body))
    };
    let answer = match &options.command {
        UnmaskCommand::Request(wish) => ask("POST", "/api/v1/unmasking", Some(wish.body()?))?,
        UnmaskCommand::List { pending } => list(*pending, |path| ask("GET", path, None))?,
        UnmaskCommand::Show { id } => ask("GET", &format!("/api/v1/unmasking/{id}"), None)?,
        UnmaskCommand::Approve(decision) => decide(decision, "approve")?,
        UnmaskCommand::Refuse(decision) => decide(decision, "refuse")?,
        UnmaskCommand::End(decision) => decide(decision, "end")?,
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&answer).map_err(|error| CliError::Usage(error.to_string()))?);
    } else {
        print!("{}", shown(&options.command, &answer));
    }
    Ok(ExitCode::SUCCESS)
}

/// All requests, page by page.
fn list(pending: bool, ask: impl Fn(&str) -> Result<Value>) -> Result<Value> {
    let (mut all, mut path) = (Vec::new(), "/api/v1/unmasking".to_owned());
    loop {
        let mut page = ask(&path)?;
        if let Value::Array(requests) = page["requests"].take() {
            all.extend(requests.into_iter().filter(|request| !pending || request["status"] == "PENDING"));
        }
        match page["next"].as_i64() {
            Some(next) => path = format!("/api/v1/unmasking?after={next}"),
            None => return Ok(Value::Array(all)),
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn instant(value: &Value) -> String {
    value.as_i64().map_or_else(|| "-".to_owned(), time)
}

/// What a request is limited to.
fn of(request: &Value) -> String {
    if let Some(ids) = request["ids"].as_array() {
        return format!("records {}", ids.iter().map(text).collect::<Vec<_>>().join(", "));
    }
    match &request["entity"] {
        Value::Object(entity) => format!("{} {}", text(&entity["table"]), text(&entity["key"])),
        _ => "everything".to_owned(),
    }
}

fn shown(command: &UnmaskCommand, answer: &Value) -> String {
    let (id, state) = (text(&answer["id"]), text(&answer["status"]).to_lowercase());
    match command {
        UnmaskCommand::List { .. } => requests(answer.as_array().map_or(&[], Vec::as_slice)),
        UnmaskCommand::Show { .. } => request(answer),
        UnmaskCommand::Request(_) if state == "pending" => {
            format!("Request {id} waits for somebody to approve it; then it is good until {}.\n", instant(&answer["expires_at"]))
        }
        UnmaskCommand::Request(_) => {
            format!("Grant {id} is good until {}. Use it with the header `Muniment-Unmasking: {id}`.\n", instant(&answer["expires_at"]))
        }
        UnmaskCommand::Approve(_) => format!("Request {id} is {state}; it is good until {}.\n", instant(&answer["expires_at"])),
        UnmaskCommand::Refuse(_) | UnmaskCommand::End(_) => format!("Request {id} is {state}.\n"),
    }
}

fn requests(requests: &[Value]) -> String {
    if requests.is_empty() {
        return "There is none.\n".to_owned();
    }
    let row = |request: &Value| {
        vec![
            text(&request["id"]),
            text(&request["status"]).to_lowercase(),
            text(&request["table"]),
            of(request),
            text(&request["requested_by"]),
            instant(&request["expires_at"]),
            text(&request["decided_by"]),
            text(&request["reason"]),
        ]
    };
    let heads = ["id", "state", "table", "of", "requested by", "until", "decided by", "reason"];
    columns(&heads, &requests.iter().map(row).collect::<Vec<_>>())
}

fn request(request: &Value) -> String {
    let lines = [
        ("id", text(&request["id"])),
        ("state", text(&request["status"]).to_lowercase()),
        ("table", text(&request["table"])),
        ("of", of(request)),
        ("reason", text(&request["reason"])),
        ("requested by", text(&request["requested_by"])),
        ("requested at", instant(&request["requested_at"])),
        ("until", instant(&request["expires_at"])),
        ("decided by", text(&request["decided_by"])),
        ("decided at", instant(&request["decided_at"])),
        ("note", text(&request["decision_note"])),
    ];
    lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}
