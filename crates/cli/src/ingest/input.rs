//! A file or standard input as a stream of NDJSON: unpacked, and with JSON over several lines brought to one line a record.

use super::json_lines::{JsonLines, spans_lines};
use super::live::{Live, Pauses};
use crate::args::InputFormat;
use crate::error::{CliError, Result};
use std::fs::File;
use std::io::{Cursor, ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes looked at to find out what a stream is.
const PREFIX_BYTES: u64 = 64 << 10;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Something to take in.
pub struct Input {
    /// Its name for people.
    pub name: String,
    /// What a number in an error counts: `line` or `record`.
    pub unit: &'static str,
    /// Its size on disk, if it has one.
    pub size: Option<u64>,
    /// How much of that has been read.
    pub read: ReadBytes,
    /// The records, one a line.
    pub reader: Box<dyn Read + Send>,
}

/// Counts the bytes read of a file.
#[derive(Clone, Debug, Default)]
pub struct ReadBytes(Arc<AtomicU64>);

impl ReadBytes {
    /// The number until now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Counted {
    file: File,
    read: ReadBytes,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read.0.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Input {
    /// Opens a file, or standard input for `-`. What is packed with gzip or zstd is known by its first bytes, whatever its name.
    pub fn open(path: &Path, format: InputFormat) -> Result<Self> {
        let (name, file) = if path == Path::new("-") {
            let name = "standard input".to_owned();
            let file = std::io::stdin().as_fd().try_clone_to_owned().map_err(CliError::file("opening", &name))?;
            (name, File::from(file))
        } else {
            (path.display().to_string(), File::open(path).map_err(CliError::file("opening", path))?)
        };
        let metadata = file.metadata().map_err(CliError::file("opening", path))?;
        if metadata.is_dir() {
            return Err(CliError::Usage(format!("{name} is a folder")));
        }
        let read = ReadBytes::default();
        let failed = |error| CliError::file("reading", path)(error);
        let counted = Counted { file, read: read.clone() };
        let (stream, pauses): (Box<dyn Read + Send>, _) = if metadata.is_file() {
            (Box::new(counted), None)
        } else {
            let (live, pauses) = Live::new(counted);
            (Box::new(live), Some(pauses))
        };
        let (packed, reader) = peek(stream, 4).map_err(failed)?;
        let plain: Box<dyn Read + Send> = if packed.starts_with(GZIP) {
            Box::new(flate2::read::MultiGzDecoder::new(reader))
        } else if packed.starts_with(ZSTD) {
            Box::new(zstd::stream::read::Decoder::new(reader).map_err(failed)?)
        } else {
            pauses.iter().for_each(Pauses::tell);
            Box::new(reader)
        };
        let (prefix, plain) = peek(plain, PREFIX_BYTES).map_err(failed)?;
        let json = match format {
            InputFormat::Json => true,
            InputFormat::Ndjson => false,
            InputFormat::Auto | InputFormat::Debezium | InputFormat::Wal2json => spans_lines(&prefix),
        };
        let reader: Box<dyn Read + Send> = if json { Box::new(JsonLines::new(Patient(plain))) } else { Box::new(plain) };
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Self { name, unit: if json { "record" } else { "line" }, size, read, reader })
    }
}

/// The first bytes of a stream, and the stream with them still in it. Of one that pauses, a line is enough.
fn peek<R: Read>(mut reader: R, bytes: u64) -> std::io::Result<(Vec<u8>, impl Read)> {
    let mut prefix = Vec::new();
    loop {
        #[expect(clippy::disallowed_methods, reason = "the reader is bounded")]
        let read = reader.by_ref().take(bytes - prefix.len() as u64).read_to_end(&mut prefix);
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock && !prefix.contains(&b'\n') => {}
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => return Ok((prefix.clone(), Cursor::new(prefix).chain(reader))),
        }
    }
}

/// A stream whose pauses nobody hears of.
struct Patient<R>(R);

impl<R: Read> Read for Patient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}
