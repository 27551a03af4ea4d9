//! Taking in through a running server: whole lines in requests of bounded size, one after the other, so that their order is kept.
//!
//! Each request carries an idempotency key made of source, offset and content, so it can be sent again. With a source it carries the position reached, too,
//! in the form in which the engine keeps it; whoever can read the data folder continues from there, and a file may grow between two runs.

use super::Taken;
use super::client::Client;
use super::input::Input;
use crate::error::{CliError, Result};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use uuid::Uuid;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Bytes and lines after which a request is complete.
const REQUEST_BYTES: usize = 2 << 20;
const REQUEST_LINES: u64 = 20_000;
const BUFFER_BYTES: usize = 256 << 10;

/// Where records are sent.
pub struct Remote<'a> {
    /// The server.
    pub url: &'a str,
    /// The log.
    pub log: &'a str,
    /// Name of the source; without it a second run sends everything as new.
    pub source: Option<String>,
    /// The path that envelopes are posted to, in place of the log's.
    pub envelopes: Option<String>,
    /// Most bytes of a line.
    pub longest_line: usize,
}

/// Lines read from a source, and how far they take it.
struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    longest: u64,
    bytes: u64,
    lines: u64,
    digest: Xxh3,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Lines {
    /// The next request's lines; empty at the end.
    fn next(&mut self) -> Result<Vec<u8>> {
        let (mut body, first) = (std::mem::take(&mut self.partial), self.lines);
        let mut whole = 0;
        while whole < REQUEST_BYTES && self.lines - first < REQUEST_LINES {
            let left = self.longest.saturating_sub((body.len() - whole) as u64);
            match self.reader.by_ref().take(left).read_until(b'\n', &mut body) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && whole == 0 => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(CliError::file("reading", "the source")(error)),
                Ok(_) => {}
            }
            let ended = body.last() == Some(&b'\n');
            if (body.len() - whole) as u64 == self.longest && !ended {
                return Err(CliError::Usage(format!("line {} is longer than {} bytes", self.lines + 1, self.longest)));
            }
            if body.len() == whole {
                break;
            }
            self.lines += u64::from(ended);
            self.bytes += (body.len() - whole) as u64;
            whole = body.len();
        }
        self.partial = body.split_off(whole);
        self.digest.update(&body);
        Ok(body)
    }

    /// Skips what an earlier run has stored, and checks that it is still the same.
    fn skip(&mut self, kept: &str) -> Result<()> {
        let mut parts = kept.split(' ');
        let end: u64 = parts.next().and_then(|part| part.parse().ok()).unwrap_or_default();
        let lines: u64 = parts.next().and_then(|part| part.parse().ok()).unwrap_or_default();
        while self.bytes < end {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                buffer => buffer.map_err(CliError::file("reading", "the source"))?,
            };
            let step = usize::try_from(end - self.bytes).map_or(buffer.len(), |left| left.min(buffer.len()));
            if step == 0 {
                break;
            }
            self.digest.update(&buffer[..step]);
            self.reader.consume(step);
            self.bytes += step as u64;
        }
        self.lines = lines;
        if self.position() == kept {
            return Ok(());
        }
        Err(CliError::Usage(format!("its first {end} bytes are not those that were taken in before; give it another --source name")))
    }

    fn position(&self) -> String {
        format!("{} {} {:032x}", self.bytes, self.lines, self.digest.digest128())
    }
}

impl Remote<'_> {
    /// Sends what is after the position `kept`.
    pub fn send(&self, input: Input, kept: Option<&str>, mut report: impl FnMut(Taken)) -> Result<()> {
        let client = Client::new(self.url);
        let reader = BufReader::with_capacity(BUFFER_BYTES, input.reader);
        let mut lines = Lines { reader, longest: self.longest_line as u64, bytes: 0, lines: 0, digest: Xxh3::new(), partial: Vec::new() };
        if let Some(kept) = kept {
            lines.skip(kept)?;
        }
        let mut taken = Taken { bytes: lines.bytes, lines: lines.lines, ..Taken::default() };
        report(taken);
        let identity = self.source.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        let path = self.envelopes.clone().unwrap_or_else(|| format!("/api/v1/logs/{}", self.log));
        loop {
            let body = lines.next()?;
            if body.is_empty() {
                return Ok(());
            }
            let named = format!("{}:{identity}", self.log);
            let key = format!("{:016x}-{}-{:032x}", xxhash_rust::xxh3::xxh3_64(named.as_bytes()), taken.bytes, xxh3_128(&body));
            let mut headers = vec![("content-type", "application/x-ndjson".to_owned()), ("idempotency-key", key)];
            if self.source.is_some() && self.envelopes.is_none() {
                headers.extend([("muniment-source", named), ("muniment-position", lines.position())]);
            }
            let answer = client.post_until_answered(&path, &headers, &body).map_err(|error| at_line(error, taken.lines))?;
            let (value, replayed) = answer;
            let records = value["records"].as_u64().unwrap_or_default();
            taken.bytes = lines.bytes;
            taken.lines = lines.lines;
            taken.repeated += value["repeated"].as_u64().unwrap_or_default();
            *(if replayed { &mut taken.repeated } else { &mut taken.records }) += records;
            report(taken);
        }
    }
}

/// Lines of a request as lines of the source.
fn at_line(error: CliError, before: u64) -> CliError {
    match error {
        CliError::Records { total, mut lines } => {
            lines.iter_mut().for_each(|line| line.line += before);
            CliError::Records { total, lines }
        }
        other => other,
    }
}
