//! Taking in files and streams: cut into chunks at line ends, prepared on all cores, committed in order. How far a source has been taken in is stored in the
//! commit that holds its records, so a run that was killed continues where the last durable chunk ended: nothing twice, nothing lost.

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ingest::{Prepared, Receipt, SourcePosition, log_named};
use muniment_model::{Format, Table};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::Xxh3;

/// Bytes of a chunk: large enough for parallel work and few commits, small enough to bound memory.
const CHUNK_BYTES: usize = 3 << 20;
/// Chunks that may wait for their commit: the next commit is made of what gathers during the last.
const COMMITTING: usize = 7;

/// A source of NDJSON records.
pub struct FileIngest<'a> {
    /// The log.
    pub log: &'a str,
    /// Name under which the position is kept; without it a second run takes everything in again.
    pub source: Option<String>,
    /// What to read.
    pub reader: Box<dyn Read + Send>,
}

/// How far a source has been taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read and durable, with those of earlier runs.
    pub bytes: u64,
    /// Lines among them, with those of earlier runs.
    pub lines: u64,
    /// Records stored by this run.
    pub records: u64,
}

/// A durable position: bytes, lines, and the hash of all bytes before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    bytes: u64,
    lines: u64,
    digest: u128,
}

impl Position {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let (bytes, lines) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { bytes, lines, digest: u128::from_str_radix(parts.next()?, 16).ok()? })
    }

    /// As the commit database keeps it; empty at the beginning.
    pub(crate) fn to_stored(self) -> String {
        if self.bytes == 0 { String::new() } else { format!("{} {} {:032x}", self.bytes, self.lines, self.digest) }
    }
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadOn {
    /// As much as was wanted.
    Full,
    /// There is no more for the moment.
    Paused,
    /// There is no more.
    Ended,
}

/// A source cut at line ends.
pub(crate) struct Chunks {
    reader: Box<dyn Read + Send>,
    rest: Vec<u8>,
    digest: Xxh3,
    position: Position,
    limit: usize,
    spare: Spare,
}

/// Buffers of chunks that were taken in, for those to come: asking the system for megabytes each time costs more than reading them.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// Whole lines, in a buffer that is spare once they are taken in.
struct Chunk {
    bytes: Vec<u8>,
    spare: Spare,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.bytes));
    }
}

impl Chunks {
    /// The chunks of a source whose lines have at most `limit` bytes. A reader may say that it has nothing for the moment ([`ErrorKind::WouldBlock`]), and
    /// wait when it is asked again: then the whole lines that it has given are a chunk.
    pub(crate) fn new(reader: Box<dyn Read + Send>, limit: usize) -> Self {
        Self { reader, rest: Vec::new(), digest: Xxh3::new(), position: Position::default(), limit, spare: Spare::default() }
    }

    /// Bytes and lines read so far.
    pub(crate) fn reached(&self) -> (u64, u64) {
        (self.position.bytes, self.position.lines)
    }

    fn read_up_to(&mut self, buffer: &mut Vec<u8>, length: usize) -> std::io::Result<ReadOn> {
        let wanted = length.saturating_sub(buffer.len());
        buffer.reserve_exact(wanted);
        #[expect(clippy::disallowed_methods, reason = "`take` limits it")]
        let read = std::io::Read::by_ref(&mut self.reader).take(wanted as u64).read_to_end(buffer);
        match read {
            Ok(read) if read < wanted => Ok(ReadOn::Ended),
            Ok(_) => Ok(ReadOn::Full),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(ReadOn::Paused),
            Err(error) => Err(error),
        }
    }

    /// Skips what an earlier run has taken in, and checks that it is still the same.
    pub(crate) fn skip(&mut self, to: Position) -> Result<()> {
        let changed = || EngineError::Parameter {
            name: "source",
            reason: format!("its first {} bytes are not those that were taken in before; give it another --source name", to.bytes),
        };
        let mut buffer = Vec::new();
        while self.position.bytes < to.bytes {
            buffer.clear();
            let step = (to.bytes - self.position.bytes).min(CHUNK_BYTES as u64) as usize;
            let outcome = self.read_up_to(&mut buffer, step).map_err(EngineError::file("reading", "the source"))?;
            if buffer.is_empty() && outcome != ReadOn::Paused {
                return Err(changed());
            }
            self.digest.update(&buffer);
            self.position.bytes += buffer.len() as u64;
        }
        if self.digest.digest128() != to.digest {
            return Err(changed());
        }
        self.position = to;
        Ok(())
    }

    /// The next whole lines, and the position after them; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(Vec<u8>, Position)>> {
        let mut buffer = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer.append(&mut self.rest);
        let mut length = CHUNK_BYTES.max(buffer.len());
        loop {
            let outcome = self.read_up_to(&mut buffer, length).map_err(EngineError::file("reading", "the source"))?;
            let last_line = || buffer.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            let cut = if outcome == ReadOn::Ended { Some(buffer.len()) } else { last_line() };
            if let Some(cut) = cut {
                if buffer.is_empty() {
                    return Ok(None);
                }
                self.rest = buffer.split_off(cut);
                self.digest.update(&buffer);
                self.position.bytes += cut as u64;
                self.position.lines += buffer.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.position.digest = self.digest.digest128();
                return Ok(Some((buffer, self.position)));
            }
            if outcome == ReadOn::Paused {
                continue;
            }
            if buffer.len() >= self.limit {
                return Err(EngineError::LongLine { line: self.position.lines + 1, limit: self.limit });
            }
            length = (length * 2).min(self.limit);
        }
    }
}

impl Engine {
    /// Takes in a source of NDJSON. `report` hears of each durable chunk.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] names lines by their number in the source. Chunks before the bad one are stored; once the line is corrected, another run
    /// with the same source name continues.
    pub async fn ingest_source(self: &Arc<Self>, source: FileIngest<'_>, mut report: impl FnMut(Progress)) -> Result<Progress> {
        let table = log_named(source.log)?;
        let name = source.source.map(|name| format!("{}:{name}", source.log));
        let mut chunks = Chunks::new(source.reader, self.limits().body_bytes);
        if let Some(name) = &name
            && let Some(kept) = self.store().db().position(name).await?
        {
            let kept = Position::parse(&kept)
                .ok_or_else(|| muniment_store::StoreError::Damaged(format!("the position of {name} can't be read")))?;
            chunks = blocking(move || chunks.skip(kept).map(|()| chunks)).await?;
        }
        let mut progress = Progress { bytes: chunks.position.bytes, lines: chunks.position.lines, records: 0 };
        report(progress);
        let mut before = chunks.position.to_stored();
        let mut lines = progress.lines;
        let spare = chunks.spare.clone();
        let mut chunks = read_ahead(chunks);
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let mut preparing: VecDeque<(Position, JoinHandle<Result<Prepared>>)> = VecDeque::new();
        let mut committing: VecDeque<(Position, oneshot::Receiver<Result<Receipt>>)> = VecDeque::new();
        let (mut ended, mut failed) = (false, None);
        loop {
            tokio::select! {
                Some((position, receipt)) = front(&mut committing) => {
                    committing.pop_front();
                    let receipt = receipt.map_err(|_| EngineError::Stopped)??;
                    let records = progress.records + receipt.records as u64;
                    progress = Progress { bytes: position.bytes, lines: position.lines, records };
                    report(progress);
                }
                Some((position, prepared)) = front(&mut preparing), if committing.len() < COMMITTING => {
                    preparing.pop_front();
                    let mut prepared = match prepared.map_err(|_| EngineError::Stopped)? {
                        Ok(prepared) => prepared,
                        Err(error) => {
                            preparing.clear();
                            (ended, failed) = (true, Some(error));
                            continue;
                        }
                    };
                    let after = std::mem::replace(&mut before, position.to_stored());
                    let value = before.clone();
                    prepared.position = name.clone().map(|source| SourcePosition { source, value, after: Some(after) });
                    self.wait_for_space().await;
                    committing.push_back((position, self.enqueue(prepared).await?));
                }
                chunk = chunks.recv(), if !ended && preparing.len() <= cores => match chunk {
                    Some(Ok((bytes, position))) => {
                        let before = std::mem::replace(&mut lines, position.lines);
                        preparing.push_back((position, self.prepare_chunk(table, bytes, &spare, (position.lines + 1 - before, before))));
                    }
                    Some(Err(error)) => (ended, failed) = (true, Some(error)),
                    None => ended = true,
                },
                else => return failed.map_or(Ok(progress), Err),
            }
        }
    }

    /// Prepares a chunk of at most `lines.0` records after `lines.1` lines. Ids are taken now, so that they follow the source's order.
    fn prepare_chunk(
        self: &Arc<Self>,
        table: &'static Table,
        bytes: Vec<u8>,
        spare: &Spare,
        lines: (u64, u64),
    ) -> JoinHandle<Result<Prepared>> {
        let shared = self.shared.clone();
        let first_id = shared.allocate_ids(table, lines.0 as usize);
        let chunk = Chunk { bytes, spare: spare.clone() };
        tokio::spawn(async move {
            let prepared = shared.prepare_in_turn(table, chunk, Format::Ndjson, Some(first_id)).await;
            prepared.map_err(|error| match error {
                EngineError::Invalid(mut rejection) => {
                    rejection.errors.iter_mut().for_each(|error| error.line += lines.1);
                    EngineError::Invalid(rejection)
                }
                other => other,
            })
        })
    }

    pub(crate) async fn wait_for_space(&self) {
        while self.store().hot_size().0 > self.limits().hot_bytes {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

/// Reads chunks on a thread of its own, one ahead of who takes them.
fn read_ahead(mut chunks: Chunks) -> mpsc::Receiver<Result<(Vec<u8>, Position)>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        while let Some(next) = chunks.next().transpose() {
            let failed = next.is_err();
            if sender.blocking_send(next).is_err() || failed {
                break;
            }
        }
    });
    receiver
}

/// What the oldest of several waits for, once it is there; `None` if there is none. It stays where it is.
async fn front<T>(waiting: &mut VecDeque<(Position, impl Future<Output = T> + Unpin)>) -> Option<(Position, T)> {
    let (position, task) = waiting.front_mut()?;
    Some((*position, task.await))
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Stopped)?
}
