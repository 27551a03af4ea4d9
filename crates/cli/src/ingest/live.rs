//! A pipe as a reader that says when it has nothing for the moment, so that what came is stored without waiting for more.

use std::io::{Error, ErrorKind, Read, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Bytes read at once, and how many such pieces may wait.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 16;
/// Silence after which what came is handed on, and how long it waits at most if there is none.
const SILENCE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_millis(250);

/// Gives [`ErrorKind::WouldBlock`] when nothing has come for a moment, or much time has passed since it last did. The next call waits for more.
pub struct Live {
    pieces: Receiver<Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    /// When what was handed out since the last pause began.
    since: Option<Instant>,
    pauses: Pauses,
}

/// Whether pauses are told.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Arc<AtomicBool>);

impl Pauses {
    /// From now on they are.
    pub fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Live {
    /// Reads from another reader, on a thread of its own. It tells no pauses until it is asked to.
    pub fn new(mut inner: impl Read + Send + 'static) -> (Self, Pauses) {
        let (sender, pieces) = sync_channel(PIECES);
        std::thread::spawn(move || {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = match inner.read(&mut piece) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    read => read,
                };
                let ended = !matches!(read, Ok(1..));
                let piece = read.map(|length| {
                    piece.truncate(length);
                    piece
                });
                if sender.send(piece).is_err() || ended {
                    return;
                }
            }
        });
        let pauses = Pauses::default();
        (Self { pieces, piece: Vec::new(), at: 0, since: None, pauses: pauses.clone() }, pauses)
    }

    /// Gets the next piece; `false` at the end.
    fn next(&mut self) -> Result<bool> {
        let piece = if self.pauses.told() {
            match self.pieces.recv_timeout(SILENCE) {
                Ok(piece) => piece?,
                Err(RecvTimeoutError::Timeout) => return Err(self.pause()),
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        } else {
            match self.pieces.recv() {
                Ok(piece) => piece?,
                Err(_) => return Ok(false),
            }
        };
        (self.piece, self.at) = (piece, 0);
        Ok(!self.piece.is_empty())
    }

    fn pause(&mut self) -> Error {
        self.since = None;
        ErrorKind::WouldBlock.into()
    }
}

impl Read for Live {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.pauses.told() && self.since.is_some_and(|since| since.elapsed() > LONGEST) {
            return Err(self.pause());
        }
        if self.at == self.piece.len() && !self.next()? {
            return Ok(0);
        }
        self.since.get_or_insert_with(Instant::now);
        let length = buffer.len().min(self.piece.len() - self.at);
        buffer[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
