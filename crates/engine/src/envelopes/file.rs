//! Envelopes in files and streams: chunk after chunk, each with the file's position in its commit, so that a run that was killed continues.

use super::{check_name, rejected, state_json};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ingest::SourcePosition;
use crate::query::QueryEngine;
use crate::source::{Chunks, Position, blocking};
use muniment_capture::envelope::{self, Format, KeyHints, Options, State};
use muniment_store::StoreError;
use std::io::Read;
use std::sync::Arc;

/// A file or stream of envelopes, one message a line.
pub struct EnvelopeFile {
    /// Which envelopes.
    pub format: Format,
    /// Name of the source: part of the changes' identities.
    pub source: String,
    /// Key columns that messages don't name.
    pub keys: KeyHints,
    /// Name under which the position is kept; without it a second run reads everything again, and stores what it doesn't know.
    pub position: Option<String>,
    /// What to read.
    pub reader: Box<dyn Read + Send>,
}

/// How far a file of envelopes has been taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnvelopeProgress {
    /// Bytes read and durable, with those of earlier runs.
    pub bytes: u64,
    /// Lines among them, with those of earlier runs.
    pub lines: u64,
    /// Changes stored by this run.
    pub records: u64,
    /// Changes that the log had.
    pub repeated: u64,
}

impl Engine {
    /// Takes in a file or stream of envelopes. `report` hears of each durable chunk.
    ///
    /// # Errors
    /// As [`Engine::ingest_envelopes`]; messages are named by their line. A chunk before the bad one is stored.
    pub async fn ingest_envelope_file(
        self: &Arc<Self>,
        query: &QueryEngine,
        file: EnvelopeFile,
        mut report: impl FnMut(EnvelopeProgress),
    ) -> Result<EnvelopeProgress> {
        check_name(&file.source)?;
        let _turn = self.envelope_turns().of(&file.source).await;
        let name = file.position.map(|name| format!("{}:{name}", file.format.name()));
        let mut chunks = Chunks::new(file.reader, self.limits().body_bytes);
        let (mut before, mut state) = (String::new(), State::default());
        if let Some(name) = &name
            && let Some(kept) = self.store().db().position(name).await?
        {
            let damaged = || StoreError::Damaged(format!("the position of {name} can't be read"));
            let reached = Position::parse(&kept).ok_or_else(damaged)?;
            state = kept.splitn(4, ' ').nth(3).and_then(|state| serde_json::from_str(state).ok()).ok_or_else(damaged)?;
            chunks = blocking(move || chunks.skip(reached).map(|()| chunks)).await?;
            before = kept;
        }
        let mut progress = EnvelopeProgress::default();
        loop {
            (progress.bytes, progress.lines) = chunks.reached();
            report(progress);
            let (returned, next) = blocking(move || chunks.next().map(|next| (chunks, next))).await?;
            chunks = returned;
            let Some((bytes, reached)) = next else { return Ok(progress) };
            let (format, source, keys) = (file.format, file.source.clone(), file.keys.clone());
            let decode = move || {
                let options = Options { format, source: &source, keys: &keys, now: crate::now() };
                envelope::decode(&bytes, &options, state).map_err(rejected)
            };
            let decoded = blocking(decode).await.map_err(|error| at_line(error, progress.lines))?;
            if decoded.unidentified() && name.is_none() {
                let reason =
                    "its messages have no position of their source, so what is read from standard input could be stored twice; use a file";
                return Err(EngineError::Parameter { name: "file", reason: reason.to_owned() });
            }
            let mut fresh = self.fresh(query, decoded).await?;
            state = fresh.state;
            let value = format!("{} {}", reached.to_stored(), state_json(&state)?);
            let after = std::mem::replace(&mut before, value.clone());
            fresh.prepared.position = name.clone().map(|source| SourcePosition { source, value, after: Some(after) });
            self.wait_for_space().await;
            if fresh.records > 0 || name.is_some() {
                self.submit(fresh.prepared).await?;
            }
            progress.records += fresh.records as u64;
            progress.repeated += fresh.repeated as u64;
        }
    }
}

/// Messages of a chunk as lines of the file.
fn at_line(error: EngineError, before: u64) -> EngineError {
    match error {
        EngineError::Invalid(mut rejection) => {
            rejection.errors.iter_mut().for_each(|error| error.line += before);
            EngineError::Invalid(rejection)
        }
        other => other,
    }
}
