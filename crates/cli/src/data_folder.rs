//! The data folder as commands meet it: free, held by a running server, or not there.

use crate::config::Config;
use crate::error::{CliError, Result};
use muniment_engine::query::QueryEngine;
use muniment_engine::{Engine, EngineError};
use muniment_store::{Mode, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tells other commands where the server of this folder is.
const SERVER_FILE: &str = "server.json";

/// What a running server writes into its data folder.
#[derive(Debug, Serialize, Deserialize)]
struct Running {
    url: String,
    pid: u32,
}

/// Keeps `server.json` as long as it lives.
#[derive(Debug)]
pub struct ServerFile(PathBuf);

impl ServerFile {
    /// Writes the file.
    pub fn write(folder: &Path, url: &str) -> Result<Self> {
        let path = folder.join(SERVER_FILE);
        let running = serde_json::json!(Running { url: url.to_owned(), pid: std::process::id() });
        std::fs::write(&path, format!("{running}\n")).map_err(CliError::file("writing", &path))?;
        Ok(Self(path))
    }
}

impl Drop for ServerFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "could not be removed");
        }
    }
}

/// The URL of the server that holds this folder, as far as it has left word.
pub fn running_server(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(SERVER_FILE)).ok()?;
    serde_json::from_str::<Running>(&text).ok().map(|running| running.url)
}

/// Opens the data folder for reading, also beside a running server.
pub async fn read(config: &Config) -> Result<Arc<Store>> {
    let (store, _) = Store::open(config.data(), Mode::Read).await?;
    Ok(store)
}

/// Opens the data folder for questions.
pub async fn ask(config: &Config) -> Result<QueryEngine> {
    Ok(QueryEngine::new(read(config).await?, config.query)?)
}

/// Who may write to the data folder.
pub enum Writer {
    /// This process, through its own engine.
    Here(Arc<Engine>),
    /// A running server.
    Server(String),
}

/// Opens the data folder for writing, or finds the server that holds it.
pub async fn write(config: &Config) -> Result<Writer> {
    match Engine::open(config.engine.clone()).await {
        Ok(engine) => Ok(Writer::Here(engine)),
        Err(EngineError::Store(StoreError::Locked { path })) => match running_server(&path) {
            Some(url) => Ok(Writer::Server(url)),
            None => Err(StoreError::Locked { path }.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Refuses a folder without a store, so that a mistyped name creates nothing.
pub fn must_exist(folder: &Path) -> Result<()> {
    if folder.join("muniment.db").exists() {
        return Ok(());
    }
    Err(StoreError::Absent { path: folder.to_owned() }.into())
}
