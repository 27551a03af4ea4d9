//! Progress of long work: a bar at a terminal, a line now and then elsewhere. Both go to standard error.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of a file or stream.
    Bytes,
    /// Records.
    Records,
}

/// The progress of one piece of work.
#[derive(Debug)]
pub struct Progress {
    name: String,
    bar: Option<ProgressBar>,
    total: Option<u64>,
    unit: Unit,
    began: Instant,
    said: Instant,
}

impl Progress {
    /// Begins; without a `total` only the amount and the rate are shown.
    pub fn new(name: &str, total: Option<u64>, unit: Unit) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(name, total, unit));
        Self { name: name.to_owned(), bar, total, unit, began: Instant::now(), said: Instant::now() }
    }

    /// So much is done, of so much if that has changed, and this is what else there is to say.
    pub fn at(&mut self, done: u64, total: Option<u64>, note: &str) {
        self.total = total.or(self.total);
        if let Some(bar) = &self.bar {
            if let Some(total) = self.total {
                bar.set_length(total);
            }
            bar.set_position(done);
            bar.set_message(note.to_owned());
        } else if self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            let share = self.total.filter(|total| *total > 0).map(|total| format!(" ({} %)", done.saturating_mul(100) / total));
            let unit = if self.unit == Unit::Bytes { "bytes" } else { "records" };
            eprintln!("{}: {done} {unit}{}{}{note}", self.name, share.unwrap_or_default(), if note.is_empty() { "" } else { ", " });
        }
    }

    /// Time since it began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes the bar away, at the end.
    pub fn clear(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str, total: Option<u64>, unit: Unit) -> ProgressBar {
    let (position, length, rate) = match unit {
        Unit::Bytes => ("{bytes}", "{total_bytes}", "{bytes_per_sec}"),
        Unit::Records => ("{human_pos}", "{human_len}", "{per_sec}"),
    };
    let template = match total {
        Some(_) => format!("{{prefix}} {{bar:30}} {position}/{length} {rate} {{eta}} {{msg}}"),
        None => format!("{{prefix}} {{spinner}} {position} {rate} {{msg}}"),
    };
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar
}
