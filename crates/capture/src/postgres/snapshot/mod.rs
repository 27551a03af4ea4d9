//! Baselines: the rows that are there when capture begins, or begins again, as SNAPSHOT records between the changes of the stream.
//!
//! The stream is never held up, and no transaction is kept open: rows are read in chunks, each in a transaction of its own. A chunk that saw a certain set of
//! transactions is handed out once the stream has passed all of them. A row of it that was changed by a transaction which the chunk did not see, and which
//! the stream has handed out meanwhile, is left out: its change tells its state. So each row's records are in the order of its states, whichever of
//! them is the first.
//!
//! How far a baseline is stands in the position behind a space, and is stored in the commit of the chunk's records: a chunk is recorded once, and after a crash
//! the next one follows. Which tables are due is noted in the audited database (`muniment.attached`), where attaching, new tables and rewriting DDL put it.

mod chunk;
mod reader;

use super::position::Position;
use super::stream::ReplicationSource;
use crate::error::Result;
use crate::source::{Batch, Source};
use async_trait::async_trait;
pub(crate) use chunk::Progress;
use chunk::{Chunk, Recent};
use reader::Outcome;
pub(super) use reader::Reader;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How often tables whose baseline is due are looked for. A DDL record makes it sooner.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Pause after a failed look.
const PAUSE: Duration = Duration::from_secs(5);
/// A committed transaction becomes visible to others a moment after the stream may have sent it. So long the first chunk waits.
const SETTLE: Duration = Duration::from_millis(100);

/// The part of a stored position that the stream knows.
pub fn stream_part(position: &str) -> &str {
    position.split_once(' ').map_or(position, |(stream, _)| stream)
}

/// What is being done for a baseline.
enum Work {
    /// Nothing until then.
    Idle(Instant),
    /// Changes are noted; a chunk will be read then, if what was handed out before is durable.
    Settling(Instant),
    /// A chunk is being read.
    Reading(JoinHandle<(Box<Reader>, Result<Outcome>)>),
    /// A chunk waits for the stream.
    Waiting(Box<Chunk>),
    /// The last chunk of a table waits to be durable.
    Ending,
}

/// The stream with baselines in between.
pub struct SnapshotSource {
    inner: ReplicationSource,
    /// `None` while it reads.
    reader: Option<Box<Reader>>,
    work: Work,
    /// Position of the stream as it was handed out last, and as it was confirmed last.
    handed_out: Option<String>,
    confirmed: Option<String>,
    /// How far the newest baseline is.
    progress: Option<Progress>,
    recent: Recent,
}

impl Drop for SnapshotSource {
    fn drop(&mut self) {
        if let Work::Reading(task) = &self.work {
            task.abort();
        }
    }
}

impl SnapshotSource {
    /// Wraps a stream.
    pub(super) fn new(inner: ReplicationSource, reader: Reader) -> Self {
        let work = Work::Idle(Instant::now());
        Self { inner, reader: Some(Box::new(reader)), work, handed_out: None, confirmed: None, progress: None, recent: Recent::default() }
    }

    fn stamped(&self, stream: &str) -> String {
        match &self.progress {
            Some(progress) => format!("{stream} {progress}"),
            None => stream.to_owned(),
        }
    }

    /// Takes note of a batch of the stream, and gives it the position with the baseline's progress.
    fn pass(&mut self, mut batch: Batch) -> Result<Batch> {
        match &mut self.work {
            Work::Settling(_) | Work::Reading(_) => self.recent.note(&batch.changes),
            Work::Waiting(chunk) => {
                chunk.leave_out(&batch.changes);
                self.recent.note(&batch.changes);
            }
            Work::Idle(at) if batch.ddl => *at = Instant::now(),
            Work::Idle(_) | Work::Ending => {}
        }
        batch.is_awaited |= !matches!(self.work, Work::Idle(_));
        let position = self.stamped(&batch.position);
        self.handed_out = Some(std::mem::replace(&mut batch.position, position));
        Ok(batch)
    }

    /// The chunk that waits, if the stream has passed all that it saw.
    fn due(&mut self) -> Result<Option<Batch>> {
        let (Work::Waiting(chunk), Some(stream)) = (&self.work, &self.handed_out) else { return Ok(None) };
        let position: Position = stream.parse()?;
        let passed = if position.ordinal.is_some() { position.lsn > chunk.high } else { position.lsn >= chunk.high };
        if !passed {
            return Ok(None);
        }
        let stream = stream.clone();
        let Work::Waiting(chunk) = std::mem::replace(&mut self.work, Work::Ending) else { return Ok(None) };
        self.progress = Some(chunk.progress.clone());
        let (changes, records) = chunk.into_lines();
        let batch = Batch { changes, records, position: self.stamped(&stream), is_awaited: true, ..Batch::default() };
        let ended = self.progress.as_ref().is_some_and(|progress| progress.is_end());
        if !ended {
            self.read();
        }
        if batch.records == 0 && !ended { Ok(None) } else { Ok(Some(batch)) }
    }

    /// Begins to read the next chunk.
    fn read(&mut self) {
        let Some(mut reader) = self.reader.take() else { return };
        let after = self.progress.clone();
        self.work = Work::Reading(tokio::spawn(async move {
            let outcome = reader.step(after).await;
            (reader, outcome)
        }));
    }

    fn heard(&mut self, reader: Box<Reader>, outcome: Result<Outcome>) {
        self.reader = Some(reader);
        match outcome {
            Ok(Outcome::Nothing) => {
                self.progress = None;
                self.recent = Recent::default();
                self.work = Work::Idle(Instant::now() + LOOK_EVERY);
            }
            Ok(Outcome::Chunk(mut chunk)) => {
                if self.recent.leave_out_of(&mut chunk) {
                    self.work = Work::Waiting(chunk);
                } else {
                    self.read();
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a baseline could not be read; it is tried again");
                self.work = Work::Settling(Instant::now() + PAUSE);
            }
        }
    }

    /// Begins what is due now.
    fn wake(&mut self) {
        match self.work {
            Work::Idle(_) => self.work = Work::Settling(Instant::now() + SETTLE),
            // What was handed out before changes were noted has to be visible: it is, a moment after it was confirmed.
            Work::Settling(_) if self.confirmed != self.handed_out => self.work = Work::Settling(Instant::now() + SETTLE),
            _ => self.read(),
        }
    }
}

/// Waits for the chunk that is being read; for ever if none is.
async fn read_chunk(work: &mut Work) -> Option<(Box<Reader>, Result<Outcome>)> {
    match work {
        Work::Reading(task) => task.await.ok(),
        _ => std::future::pending().await,
    }
}

#[async_trait]
impl Source for SnapshotSource {
    async fn start(&mut self, position: Option<&str>) -> Result<()> {
        if let Work::Reading(task) = &self.work {
            task.abort();
        }
        self.inner.start(position.map(stream_part)).await?;
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => Box::new(Reader::like(&self.inner)?),
        };
        if self.inner.baseline_need().gap.is_some() {
            // Before anything is handed out, so that it is not forgotten.
            reader.again().await?;
            self.inner.baseline_taken();
        }
        self.reader = Some(reader);
        self.progress = position.and_then(|position| position.split_once(' ')).and_then(|(_, progress)| progress.parse().ok());
        self.handed_out = position.map(|position| stream_part(position).to_owned());
        self.confirmed.clone_from(&self.handed_out);
        self.recent = Recent::default();
        self.work = Work::Idle(Instant::now());
        Ok(())
    }

    async fn next(&mut self) -> Result<Batch> {
        loop {
            if let Some(batch) = self.due()? {
                return Ok(batch);
            }
            let wake = match &self.work {
                Work::Idle(at) | Work::Settling(at) => Some(*at),
                _ => None,
            };
            tokio::select! {
                batch = self.inner.next() => return self.pass(batch?),
                read = read_chunk(&mut self.work) => match read {
                    Some((reader, outcome)) => self.heard(reader, outcome),
                    None => {
                        self.reader = Some(Box::new(Reader::like(&self.inner)?));
                        self.work = Work::Settling(Instant::now() + PAUSE);
                    }
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.wake(),
            }
        }
    }

    async fn confirm(&mut self, position: &str) -> Result<()> {
        let stream = stream_part(position);
        self.confirmed = Some(stream.to_owned());
        let reached = position.split_once(' ').map(|(_, progress)| progress);
        if matches!(self.work, Work::Ending)
            && let Some(progress) = &self.progress
            && reached == Some(progress.to_string().as_str())
        {
            self.read();
        }
        self.inner.confirm(stream).await
    }
}
