//! `muniment key rotate`: through the server that holds the data folder, or directly.

use crate::config::Config;
use crate::data_folder::{self, Writer};
use crate::error::Result;
use crate::ingest::client::Client;
use crate::logging;
use std::process::ExitCode;

/// Replaces the signing key and prints the new verifier key.
pub async fn rotate(config: Config, server: Option<String>) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    let server = match server {
        Some(url) => url,
        None => {
            data_folder::must_exist(config.data())?;
            match data_folder::write(&config).await? {
                Writer::Server(url) => url,
                Writer::Here(engine) => {
                    let key = engine.rotate_key().await;
                    engine.shutdown().await?;
                    println!("{}", key?);
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    };
    let answer = tokio::task::block_in_place(|| Client::new(&server).post("/api/v1/keys/rotate"))?;
    match answer["key"].as_str() {
        Some(key) => println!("{key}"),
        None => println!("{answer}"),
    }
    Ok(ExitCode::SUCCESS)
}
