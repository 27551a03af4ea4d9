//! Load over HTTP: some connections, each sending its next request when the last one is answered.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::http::{Client, Door};
use crate::error::{Context, Error, Result};

/// What to send.
#[derive(Clone, Copy)]
pub struct Load {
    pub connections: usize,
    pub events_per_request: usize,
    /// Stop after so many events, or when the file ends.
    pub events: u64,
    /// Stop after so long.
    pub time: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Acknowledged events.
    pub events: u64,
    pub seconds: f64,
    /// Answers 429 and 503: the request was sent again later.
    pub refusals: u64,
    /// Time from request to acknowledgement, in seconds, ascending.
    pub latencies: Vec<f64>,
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    /// A quantile of the latencies in milliseconds, by nearest rank.
    pub fn milliseconds(&self, quantile: f64) -> f64 {
        percentile(&self.latencies, quantile) * 1e3
    }
}

/// The nearest-rank quantile of ascending values; 0 for none.
pub fn percentile(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// The bodies of all requests, read before the clock starts: the sender shares the cores with what it measures.
struct Requests {
    bytes: Vec<u8>,
    /// Where each body ends, and its events.
    ends: Vec<(usize, u64)>,
    next: AtomicUsize,
}

impl Requests {
    fn read(events: &Path, load: Load) -> Result<Self> {
        let file = File::open(events).context(|| format!("cannot open {}", events.display()))?;
        let mut lines = BufReader::with_capacity(1 << 20, file);
        let mut requests = Self { bytes: Vec::new(), ends: Vec::new(), next: AtomicUsize::new(0) };
        let mut left = load.events;
        while left > 0 {
            let wanted = (load.events_per_request as u64).min(left);
            let mut read = 0;
            while read < wanted && lines.read_until(b'\n', &mut requests.bytes).context(|| "cannot read the events")? > 0 {
                read += 1;
            }
            left = if read == wanted { left - read } else { 0 };
            if read > 0 {
                requests.ends.push((requests.bytes.len(), read));
            }
        }
        Ok(requests)
    }

    /// The next body and its events, if there is one.
    fn next(&self) -> Option<(&[u8], u64)> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let (end, events) = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before].0);
        Some((&self.bytes[start..end], events))
    }
}

/// Sends events of a file to `sys_audit_log`.
pub fn send(door: &Door, events: &Path, load: Load) -> Result<Outcome> {
    let requests = Requests::read(events, load)?;
    let start = Instant::now();
    let parts: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let one = || connection(door, &requests, load, start);
        let threads: Vec<_> = (0..load.connections).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(Error::new("a connection's thread failed")))).collect()
    });
    let mut all = Outcome { events: 0, seconds: start.elapsed().as_secs_f64(), refusals: 0, latencies: Vec::new() };
    for part in parts {
        let part = part?;
        all.events += part.events;
        all.refusals += part.refusals;
        all.latencies.extend(part.latencies);
    }
    all.latencies.sort_by(f64::total_cmp);
    Ok(all)
}

fn connection(door: &Door, requests: &Requests, load: Load, start: Instant) -> Result<Outcome> {
    let mut client = Client::connect(door)?;
    let mut outcome = Outcome { events: 0, seconds: 0.0, refusals: 0, latencies: Vec::new() };
    let path = "/api/v1/logs/sys_audit_log";
    while start.elapsed() < load.time {
        let Some((body, events)) = requests.next() else { break };
        let sent = Instant::now();
        loop {
            let answer = client.post(path, "application/json", "application/x-ndjson", body)?;
            if !matches!(answer.status, 429 | 503) {
                answer.ok(path)?;
                break;
            }
            outcome.refusals += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        outcome.latencies.push(sent.elapsed().as_secs_f64());
        outcome.events += events;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_nearest_rank() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 100.0);
        assert_eq!(percentile(&values, 0.95), 190.0);
        assert_eq!(percentile(&values, 1.0), 200.0);
        assert_eq!(percentile(&[7.0], 0.01), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
