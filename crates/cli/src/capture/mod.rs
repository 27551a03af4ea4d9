//! `muniment attach`, `detach` and `sources`: through the server that holds the data folder, or directly.

pub mod args;
mod show;

use crate::config::Config;
use crate::data_folder::{self, Writer};
use crate::entity::print_json;
use crate::error::{CliError, Result};
use crate::ingest::client::Client;
use crate::logging;
use crate::sql::print;
use args::{Attach, Detach, Sources};
use muniment_capture::open;
use muniment_capture::plan::Plan;
use muniment_capture::queue::sqlserver::{self, Hidden, HiddenColumn, SqlServerTable};
use muniment_engine::capture::{Actor, AttachRequest, Attachment, Farewell, SourceStatus};
use muniment_engine::{Engine, EngineError};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::process::ExitCode;
use std::sync::Arc;

/// Attaches tables of a database.
pub async fn attach(config: Config, options: Attach) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    let Some(url) = options.url.clone() else { return print_dialect(&options) };
    let request = AttachRequest { url, mode: options.mode(), options: options.options() };
    // To say what would be done takes no data folder, and makes none.
    if options.dry_run && options.server.is_none() && data_folder::must_exist(config.data()).is_err() {
        let plan = open::plan_attach(&request.url, request.mode, &request.options, false).await.map_err(EngineError::from)?;
        return show_plan(&plan);
    }
    let writer = writer(&config, options.server.clone()).await?;
    let planned = plan(&writer, &request).await;
    let outcome = match planned {
        Ok(planned) => apply(&writer, request, planned, options.dry_run).await,
        Err(error) => Err(error),
    };
    close(writer).await?;
    outcome
}

async fn plan(writer: &Writer, request: &AttachRequest) -> Result<Attachment> {
    match writer {
        Writer::Here(engine) => Ok(Attachment { plan: engine.plan_attach(request).await?, source: None }),
        Writer::Server(url) => ask(url, "POST", &attach_path(true), Some(body(request)?)).await,
    }
}

async fn apply(writer: &Writer, request: AttachRequest, planned: Attachment, dry_run: bool) -> Result<ExitCode> {
    let plan = planned.plan;
    if dry_run {
        return show_plan(&plan);
    }
    eprint!("{}", show::findings(&plan));
    permitted(&plan)?;
    eprint!("attaching {}, {}", plan.name, show::tables(&plan));
    let captures = matches!(writer, Writer::Server(_));
    match writer {
        Writer::Here(engine) => engine.attach(request, &actor()).await?,
        Writer::Server(url) => ask(url, "POST", &attach_path(false), Some(body(&request)?)).await?,
    };
    println!("{} is attached.", plan.name);
    if !captures {
        println!("Its database keeps changes until they are read: start `muniment serve` now.");
    }
    Ok(ExitCode::SUCCESS)
}

fn permitted(plan: &Plan) -> Result<()> {
    plan.permitted().map_err(|_| CliError::Usage(format!("{} can't be attached as it is; see above", plan.name)))
}

/// Says what attaching would do.
fn show_plan(plan: &Plan) -> Result<ExitCode> {
    eprint!("{}", show::findings(plan));
    print!("-- {} {}{}", plan.name, show::tables(plan).replace('\n', "\n-- ").trim_end_matches("-- "), plan.script());
    permitted(plan)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the statements for a database that Muniment doesn't connect to: each table as `schema.table(key, key)`.
fn print_dialect(options: &Attach) -> Result<ExitCode> {
    let tables =
        options.table.iter().map(|table| SqlServerTable::parse(table)).collect::<Result<Vec<_>, _>>().map_err(EngineError::from)?;
    let left_out = options.exclude_column.iter().map(|column| HiddenColumn::parse(column, Hidden::LeftOut));
    let masked = options.mask_column.iter().map(|column| HiddenColumn::parse(column, Hidden::Masked));
    let hidden = left_out.chain(masked).collect::<Result<Vec<_>, _>>().map_err(EngineError::from)?;
    print!("{}", sqlserver::print(&tables, &hidden).map_err(EngineError::from)?);
    Ok(ExitCode::SUCCESS)
}

/// Detaches a source.
pub async fn detach(config: Config, options: Detach) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    if options.server.is_none() {
        data_folder::must_exist(config.data())?;
    }
    let writer = writer(&config, options.server.clone()).await?;
    let outcome = detach_through(&writer, &options).await;
    close(writer).await?;
    outcome
}

async fn detach_through(writer: &Writer, options: &Detach) -> Result<ExitCode> {
    let name = &options.name;
    let done: Attachment = match writer {
        Writer::Here(engine) if options.dry_run => Attachment { plan: engine.plan_detach(name).await?, source: None },
        Writer::Here(engine) => engine.detach(name, Farewell::of(options.forget, options.discard), &actor()).await?,
        Writer::Server(url) => {
            let path =
                format!("/api/v1/sources/{name}?dry_run={}&forget={}&discard={}{}", options.dry_run, options.forget, options.discard, by());
            ask(url, "DELETE", &path, None).await?
        }
    };
    eprint!("{}", show::findings(&done.plan));
    match (options.dry_run, options.forget) {
        (true, _) => print!("{}", done.plan.script()),
        (false, true) => println!("{name} is forgotten; its database is as it was."),
        (false, false) => println!("{name} is detached; what it recorded stays."),
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists the sources.
pub async fn sources(config: Config, options: Sources) -> Result<ExitCode> {
    let server = options.server.or_else(|| data_folder::running_server(config.data()));
    let sources: Vec<SourceStatus> = match server {
        Some(url) => ask(&url, "GET", "/api/v1/sources", None).await?,
        None => muniment_engine::capture::sources_of(&*data_folder::read(&config).await?).await?,
    };
    if options.json {
        print_json(&sources)?;
    } else {
        print(show::sources(&sources).as_bytes())?;
        if sources.iter().all(|source| source.kind == muniment_capture::open::REGISTERS) {
            println!("No other database is attached. `muniment attach postgres://… --table 'schema.*'` attaches one.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn writer(config: &Config, server: Option<String>) -> Result<Writer> {
    match server {
        Some(url) => Ok(Writer::Server(url)),
        None => data_folder::write(config).await,
    }
}

async fn close(writer: Writer) -> Result<()> {
    match writer {
        Writer::Here(engine) => shut_down(engine).await,
        Writer::Server(_) => Ok(()),
    }
}

async fn shut_down(engine: Arc<Engine>) -> Result<()> {
    Ok(engine.shutdown().await?)
}

/// The operating system's user, for the record.
pub fn user() -> Option<String> {
    let name = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok()?;
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    (plain && (1..=64).contains(&name.len())).then_some(name)
}

fn actor() -> Actor {
    Actor { name: user(), address: Some(std::net::Ipv4Addr::LOCALHOST.into()) }
}

fn by() -> String {
    user().map(|user| format!("&by={user}")).unwrap_or_default()
}

fn attach_path(dry_run: bool) -> String {
    format!("/api/v1/sources?dry_run={dry_run}{}", by())
}

fn body(request: &AttachRequest) -> Result<Value> {
    serde_json::to_value(request).map_err(|error| CliError::Usage(error.to_string()))
}

async fn ask<T: DeserializeOwned>(url: &str, method: &str, path: &str, body: Option<Value>) -> Result<T> {
    let answer = tokio::task::block_in_place(|| Client::new(url).ask(method, path, body.as_ref()))?;
    serde_json::from_value(answer).map_err(|error| CliError::Usage(format!("{url} answered something else than expected: {error}")))
}
