//! `muniment access`: keys and roles, through the server that holds the data folder, or directly. Directly no key is asked for: whoever owns the folder decides
//! who gets in.

pub mod args;
mod show;
pub mod unmask;

use crate::config::Config;
use crate::data_folder::{self, Writer};
use crate::error::{CliError, Result};
use crate::ingest::client::{Client, percent_encoded};
use crate::logging;
use args::{AccessCommand, CreateKey, KeysCommand, RolesCommand, Through};
use muniment_access::Role;
use muniment_engine::identity::{ChangedBy, CreatedKey, KeyInfo, NewKey, RoleGrant};
use muniment_engine::{Engine, now};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs the command.
pub async fn run(config: Config, command: AccessCommand) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    match command {
        AccessCommand::Keys { command, through } => with(&config, &through, async |door| keys(door, command, &through).await).await,
        AccessCommand::Roles { command, through } => with(&config, &through, async |door| roles(door, command, &through).await).await,
        AccessCommand::Whoami(through) => {
            let url = through.server.clone().or_else(|| data_folder::running_server(config.data()));
            let url = url.ok_or_else(|| CliError::Usage("no server runs on the data folder; --server names one".to_owned()))?;
            let me: Value = ask(&url, "GET", "/api/v1/access/me", None)?;
            print(&through, &me, || show::me(&me))
        }
    }
}

/// Opens the door, does something, and closes it.
async fn with(config: &Config, through: &Through, work: impl AsyncFnOnce(&Writer) -> Result<ExitCode>) -> Result<ExitCode> {
    let door = match through.server.clone() {
        Some(url) => Writer::Server(url),
        None => {
            data_folder::must_exist(config.data())?;
            data_folder::write(config).await?
        }
    };
    let outcome = work(&door).await;
    if let Writer::Here(engine) = door {
        engine.shutdown().await?;
    }
    outcome
}

/// Who acts where there is no server to recognise them: whoever runs this program.
fn operator(through: &Through) -> ChangedBy {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown".to_owned());
    let user: String = user.chars().filter(|c| !c.is_control()).take(64).collect();
    ChangedBy {
        username: format!("{user} (at the data folder)"),
        user_agent: Some(concat!("muniment/", env!("CARGO_PKG_VERSION")).to_owned()),
        reason: through.reason.clone(),
        ..ChangedBy::default()
    }
}

async fn keys(door: &Writer, command: KeysCommand, through: &Through) -> Result<ExitCode> {
    match command {
        KeysCommand::Create(wish) => {
            let created = create(door, wish, through).await?;
            print(through, &created, || show::created(&created))
        }
        KeysCommand::List => {
            let keys: Vec<KeyInfo> = match door {
                Writer::Here(engine) => engine.identities().keys(now()).await?,
                Writer::Server(url) => ask(url, "GET", "/api/v1/access/keys", None)?,
            };
            print(through, &keys, || show::keys(&keys))
        }
        KeysCommand::Rotate { id, grace } => {
            let created: CreatedKey = match door {
                Writer::Here(engine) => {
                    let grace = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
                    engine.identities().rotate_key(id, grace, now(), &operator(through)).await?
                }
                Writer::Server(url) => ask(url, "POST", &format!("/api/v1/access/keys/{id}/rotate?grace={}", grace.as_secs()), None)?,
            };
            print(through, &created, || show::created(&created))
        }
        KeysCommand::Revoke { id } => {
            let revoked: KeyInfo = match door {
                Writer::Here(engine) => engine.identities().revoke_key(id, now(), &operator(through)).await?,
                Writer::Server(url) => ask(url, "DELETE", &format!("/api/v1/access/keys/{id}{}", why(through)), None)?,
            };
            print(through, &revoked, || format!("key {id} ({}) is revoked\n", revoked.name))
        }
    }
}

fn role(name: &str) -> Result<Role> {
    name.parse().map_err(|error: muniment_access::UnknownRole| CliError::Usage(error.to_string()))
}

async fn create(door: &Writer, wish: CreateKey, through: &Through) -> Result<CreatedKey> {
    let roles = wish.role.iter().map(|name| role(name)).collect::<Result<BTreeSet<Role>>>()?;
    let limit = |names: Vec<String>| (!names.is_empty()).then(|| names.into_iter().collect());
    let user_id = match &wish.user {
        Some(user) => Some(user_id(door, user).await?),
        None => None,
    };
    let expires_at = wish.expires.map(|time| now().saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)));
    let new = NewKey { name: wish.name, roles, tables: limit(wish.table), actions: limit(wish.action), user_id, expires_at };
    match door {
        Writer::Here(engine) => Ok(engine.identities().create_key(&new, now(), &operator(through)).await?),
        Writer::Server(url) => {
            let body = serde_json::to_value(&new).map_err(|error| CliError::Usage(error.to_string()))?;
            ask(url, "POST", &format!("/api/v1/access/keys{}", why(through)), Some(body))
        }
    }
}

/// A user's number; a name is looked up where that is possible.
async fn user_id(door: &Writer, user: &str) -> Result<i64> {
    match door {
        Writer::Here(engine) => Ok(engine.identities().user(user).await?.id()),
        Writer::Server(url) => match user.parse() {
            Ok(id) => Ok(id),
            Err(_) => {
                let question = json!({ "query": "SELECT id FROM users WHERE username = $1", "parameters": [user] });
                let rows: Value = ask(url, "POST", "/api/v1/sql", Some(question))?;
                rows[0]["id"].as_i64().ok_or_else(|| CliError::Usage(format!("there is no user {user}")))
            }
        },
    }
}

async fn roles(door: &Writer, command: RolesCommand, through: &Through) -> Result<ExitCode> {
    match command {
        RolesCommand::List => {
            let grants: Vec<RoleGrant> = match door {
                Writer::Here(engine) => engine.identities().role_grants().await?,
                Writer::Server(url) => ask(url, "GET", "/api/v1/access/roles", None)?,
            };
            print(through, &grants, || show::grants(&grants))
        }
        RolesCommand::Grant { user, role: name } => {
            match door {
                Writer::Here(engine) => grant(engine, &user, role(&name)?, through).await?,
                Writer::Server(url) => ask::<Value>(url, "PUT", &of_user(&user, &name, through), None).map(drop)?,
            }
            print(through, &Value::Null, || format!("{user} has the role {name}\n"))
        }
        RolesCommand::Revoke { user, role: name } => {
            match door {
                Writer::Here(engine) => {
                    let id = engine.identities().user(&user).await?.id();
                    engine.identities().revoke_role(id, role(&name)?, &operator(through)).await?;
                }
                Writer::Server(url) => ask::<Value>(url, "DELETE", &of_user(&user, &name, through), None).map(drop)?,
            }
            print(through, &Value::Null, || format!("{user} has not the role {name} any more\n"))
        }
    }
}

async fn grant(engine: &Arc<Engine>, user: &str, role: Role, through: &Through) -> Result<()> {
    let id = engine.identities().user(user).await?.id();
    Ok(engine.identities().grant_role(id, role, now(), &operator(through)).await?)
}

fn of_user(user: &str, role: &str, through: &Through) -> String {
    format!("/api/v1/access/users/{}/roles/{}{}", percent_encoded(user), percent_encoded(role), why(through))
}

fn why(through: &Through) -> String {
    through.reason.as_ref().map(|reason| format!("?reason={}", percent_encoded(reason))).unwrap_or_default()
}

fn ask<T: DeserializeOwned>(url: &str, method: &str, path: &str, body: Option<Value>) -> Result<T> {
    let answer = tokio::task::block_in_place(|| Client::new(url).ask(method, path, body.as_ref()))?;
    serde_json::from_value(answer).map_err(|error| CliError::Usage(format!("{url} answered something else than expected: {error}")))
}

fn print(through: &Through, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<ExitCode> {
    if through.json {
        println!("{}", serde_json::to_string_pretty(value).map_err(|error| CliError::Usage(error.to_string()))?);
    } else {
        print!("{}", text());
    }
    Ok(ExitCode::SUCCESS)
}
