//! The outbox: records that followers have made, taken into their logs. The number of the last line taken is the position of a source, stored in the commit that
//! holds the line's record; lines are removed afterwards, and a line that a kill has left behind is recognised by its number.

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ingest::{Prepared, SourcePosition, log_named};
use crate::metrics::Failure;
use muniment_model::Format;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Lines taken at a time.
const LINES: u32 = 500;
/// Name under which the number of the last line taken is kept.
const SOURCE: &str = "outbox";
/// Pause after a failure, and while records wait to be written to files.
const PAUSE: Duration = Duration::from_secs(2);

pub(super) fn start(engine: &Arc<Engine>) -> JoinHandle<()> {
    tokio::spawn(run(Arc::downgrade(engine), engine.stopping()))
}

async fn run(weak: Weak<Engine>, mut stopping: watch::Receiver<bool>) {
    loop {
        let Some(engine) = weak.upgrade() else { return };
        let filled = engine.outbox_filled().clone();
        let taken = take(&engine).await;
        drop(engine);
        let wait = async {
            match taken {
                Ok(true) => {}
                Ok(false) => filled.notified().await,
                Err(error) => {
                    if let Some(engine) = weak.upgrade().filter(|_| !matches!(error, EngineError::Stopped)) {
                        engine.metrics().failed(Failure::Follow);
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "records that follow from others could not be stored yet"
                        );
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        tokio::select! {
            () = wait => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// Takes the next lines; `false` if there were none.
async fn take(engine: &Arc<Engine>) -> Result<bool> {
    let db = engine.store().db();
    let reached = db.position(SOURCE).await?.unwrap_or_default();
    let after = reached.parse().unwrap_or(0);
    let waiting = db.outbox(after, LINES).await?;
    let Some(first) = waiting.first() else {
        db.clear_outbox(after).await?;
        return Ok(false);
    };
    // Lines of one log that follow each other are one request.
    let same: Vec<_> = waiting.iter().take_while(|row| row.log == first.log).collect();
    let last = same.last().map_or(first.id, |row| row.id);
    let body: String = same.iter().map(|row| format!("{}\n", row.line)).collect();
    let mut prepared = prepare(engine, &first.log, &body, &same).await?;
    prepared.position = Some(SourcePosition { source: SOURCE.to_owned(), value: last.to_string(), after: Some(reached) });
    engine.submit(prepared).await?;
    db.clear_outbox(last).await?;
    Ok(true)
}

/// Prepares lines. A line that its log doesn't take would stop all behind it: it is left out, and told.
async fn prepare(engine: &Arc<Engine>, log: &str, body: &str, rows: &[&muniment_store::follow::OutboxRow]) -> Result<Prepared> {
    let table = log_named(log)?;
    match engine.shared.prepare(table, body.as_bytes(), Format::Ndjson, None).await {
        Err(EngineError::Invalid(rejection)) => {
            tracing::error!(log, lines = rows.len(), %rejection, "a record that follows from others is not valid and is left out");
            engine.metrics().failed(Failure::Follow);
            let mut valid = String::new();
            for row in rows {
                if engine.shared.prepare(table, row.line.as_bytes(), Format::Ndjson, None).await.is_ok() {
                    valid.push_str(&row.line);
                    valid.push('\n');
                }
            }
            engine.shared.prepare(table, valid.as_bytes(), Format::Ndjson, None).await
        }
        prepared => prepared,
    }
}
