//! The peers, measured by `bench/peers.py`; each answers one JSON object.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::process::output;

/// What a peer measured.
pub struct Measured(Value);

impl Measured {
    /// A figure of that name.
    pub fn figure(&self, name: &str) -> Result<f64> {
        self.0[name].as_f64().ok_or_else(|| Error::new(format!("the peer gave no `{name}`: {}", self.0)))
    }

    /// Its name and version.
    pub fn name(&self) -> &str {
        self.0["peer"].as_str().unwrap_or("peer")
    }
}

/// Rows a second of `rows` events into ClickHouse or SQLite.
pub fn ingest(mut peers: Command, peer: &str, events: &Path, rows: u64, folder: &Path) -> Result<Measured> {
    peers.arg(peer).arg("--events").arg(events).args(["--rows", &rows.to_string()]).arg("--folder").arg(folder);
    measure(peers)
}

/// Seconds of DuckDB's aggregations over the Parquet files of a pattern.
pub fn duckdb(mut peers: Command, pattern: &str) -> Result<Measured> {
    peers.args(["duckdb", "--parquet", pattern]);
    measure(peers)
}

fn measure(mut command: Command) -> Result<Measured> {
    let text = output(&mut command)?;
    let value = serde_json::from_str(text.trim()).context(|| format!("the peer printed something other than JSON: {text}"))?;
    Ok(Measured(value))
}
