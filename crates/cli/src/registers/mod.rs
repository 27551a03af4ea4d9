//! `muniment users`, `sessions` and `cases`: through the server that holds the data folder, or directly.

pub mod cases;
pub mod sessions;
pub mod users;

use crate::config::Config;
use crate::data_folder::{self, Writer};
use crate::error::{CliError, Result};
use crate::ingest::client::Client;
use crate::logging;
use clap::Args;
use muniment_engine::{ChangedBy, Engine};
use serde_json::Value;
use std::process::ExitCode;
use std::sync::Arc;

/// Flags that these commands share.
#[derive(Debug, Args)]
pub struct Common {
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Ask this server, such as http://127.0.0.1:7117, even if the data folder is free
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Why, for the record of the change
    #[arg(long, global = true, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What a command asks a server.
pub struct Question {
    method: &'static str,
    path: String,
    body: Option<Value>,
    /// A file in place of a body, with its media type.
    file: Option<(&'static str, Vec<u8>)>,
}

impl Question {
    fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), body: None, file: None }
    }

    fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: "POST", path: path.into(), body: Some(body), file: None }
    }

    fn file(path: impl Into<String>, kind: &'static str, contents: Vec<u8>) -> Self {
        Self { method: "POST", path: path.into(), body: None, file: Some((kind, contents)) }
    }
}

/// A command that a server answers, or the engine itself.
pub trait Ask {
    /// What a server is asked.
    fn question(&self) -> Result<Question>;
    /// The same, done here.
    async fn here(&self, engine: &Arc<Engine>, by: &ChangedBy) -> Result<Value>;
    /// The answer for people.
    fn show(&self, answer: &Value) -> String;
}

/// Asks, and prints the answer.
async fn run(config: Config, common: Common, command: &impl Ask) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    let writer = match &common.server {
        Some(url) => Writer::Server(url.clone()),
        None => {
            data_folder::must_exist(config.data())?;
            data_folder::write(&config).await?
        }
    };
    let answer = match &writer {
        Writer::Server(url) => {
            let question = command.question()?;
            let client = Client::new(url).with_reason(common.reason.clone());
            tokio::task::block_in_place(|| match &question.file {
                Some((kind, contents)) => client.send_file(&question.path, kind, contents),
                None => client.ask(question.method, &question.path, question.body.as_ref()),
            })?
        }
        Writer::Here(engine) => {
            let username = crate::capture::user().unwrap_or_else(|| "local".to_owned());
            let by = ChangedBy { username, reason: common.reason.clone(), ..ChangedBy::default() };
            let answer = command.here(engine, &by).await;
            engine.shutdown().await?;
            answer?
        }
    };
    if common.json {
        println!("{}", serde_json::to_string_pretty(&answer).map_err(|error| CliError::Usage(error.to_string()))?);
    } else {
        print!("{}", command.show(&answer));
    }
    Ok(ExitCode::SUCCESS)
}

/// A name as part of a path.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A path with those of its parameters that are given.
fn query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_ref()?))));
    let given: Vec<String> = given.collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

/// Fields that are given, as an object.
fn object(fields: &[(&str, Option<Value>)]) -> Value {
    Value::Object(fields.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?))).collect())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// Rows as a table of some of their fields, or what is said if there is none.
fn rows<const N: usize>(answer: &Value, keys: &[&str; N], none: &str) -> String {
    match answer.as_array().map(Vec::as_slice) {
        None | Some([]) => format!("{none}\n"),
        Some(rows) => crate::columns::table(keys, rows.iter().map(|row| keys.iter().map(|key| text(&row[*key])).collect())),
    }
}

/// Fields of one row, one on a line.
fn fields(answer: &Value) -> String {
    let plain = |value: &Value| !value.is_null() && !value.is_array();
    let given = answer.as_object().into_iter().flatten().filter(|(_, value)| plain(value));
    given.map(|(name, value)| format!("{name}: {}\n", text(value))).collect()
}
