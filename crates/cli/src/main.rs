//! The `muniment` command: serves, takes in, asks, proves and verifies.

mod access;
mod args;
mod capture;
mod columns;
mod compact;
mod config;
mod data_folder;
mod demo;
mod entity;
mod error;
mod evidence;
mod ingest;
mod keys;
mod limits;
mod logging;
mod measures;
mod progress;
mod reconcile;
mod reconstruct;
mod registers;
mod serve;
mod sql;

use args::{Arguments, Command};
use clap::Parser;
use config::{Config, Loaded};
use error::{CliError, Result};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { global, command } = arguments;
    if let Command::Config { reference: true } = command {
        print!("{}", config::reference());
        return Ok(ExitCode::SUCCESS);
    }
    ingest::client::show_key(global.key_file.as_deref())?;
    ingest::client::trust(global.ca.as_deref())?;
    let loaded = config::load(&global.flags(&command))?;
    if let Command::Config { .. } = command {
        print!("{}", loaded.print());
        return Ok(ExitCode::SUCCESS);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::file("starting", "the asynchronous runtime"))?;
    runtime.block_on(execute(command, loaded))
}

async fn execute(command: Command, loaded: Loaded) -> Result<ExitCode> {
    let config: Config = loaded.config;
    match command {
        Command::Serve => serve::run(config).await,
        Command::Demo(options) => demo::run(config, options).await,
        Command::Ingest(options) => ingest::run(config, options).await,
        Command::Sql(options) => sql::run(config, options).await,
        Command::History(options) => entity::history(config, options).await,
        Command::At(options) => entity::at(config, options).await,
        Command::Attach(options) => capture::attach(config, options).await,
        Command::Detach(options) => capture::detach(config, options).await,
        Command::Sources(options) => capture::sources(config, options).await,
        Command::Reconcile(options) => reconcile::run(config, options).await,
        Command::Limits(options) => limits::run(config, options).await,
        Command::Monitoring(options) => measures::monitoring(config, options).await,
        Command::Metrics(options) => measures::metrics(config, options).await,
        Command::Blame(options) => reconstruct::blame(config, options).await,
        Command::Transaction(options) => reconstruct::transaction(config, options).await,
        Command::Undo(options) => reconstruct::undo(config, options).await,
        Command::Verify(options) => evidence::verify(config, options).await,
        Command::Export(options) => evidence::export(config, options).await,
        Command::Prove(options) => evidence::prove(config, options).await,
        Command::Check(options) => evidence::check(&options),
        Command::Checkpoint => evidence::checkpoint(config).await,
        Command::Access { command } => access::run(config, command).await,
        Command::Unmask(options) => access::unmask::run(config, options).await,
        Command::Key { command: args::KeyCommand::Rotate { server } } => keys::rotate(config, server).await,
        Command::Users(options) => registers::users::run(config, options).await,
        Command::Sessions(options) => registers::sessions::run(config, options).await,
        Command::Cases(options) => registers::cases::run(config, options).await,
        Command::Compact => compact::run(config).await,
        Command::Config { .. } => Ok(ExitCode::SUCCESS),
    }
}
