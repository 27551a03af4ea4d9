//! `muniment compact`: moves all records to Parquet files and merges small ones.

use crate::config::Config;
use crate::data_folder::{self, Writer};
use crate::error::{CliError, Result};
use crate::logging;
use std::process::ExitCode;

/// Runs the command.
pub async fn run(config: Config) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    data_folder::must_exist(config.data())?;
    let engine = match data_folder::write(&config).await? {
        Writer::Here(engine) => engine,
        Writer::Server(url) => {
            let folder = config.data().display();
            return Err(CliError::Usage(format!("{folder} is held by the server at {url}, which moves and merges records by itself")));
        }
    };
    let flushed = engine.flush_all().await;
    let swept = engine.store().sweep_replaced(muniment_engine::now()).await;
    let snapshot = engine.store().snapshot();
    engine.shutdown().await?;
    flushed?;
    swept.map_err(muniment_engine::EngineError::from)?;
    for (name, stream) in &snapshot {
        let bytes: u64 = stream.files.iter().map(|file| file.bytes).sum();
        let records: u64 = stream.files.iter().map(|file| file.extent.records()).sum();
        println!("{name}: {records} records in {} files, {bytes} bytes", stream.files.len());
    }
    Ok(ExitCode::SUCCESS)
}
