//! Captures the changes of databases: each way in ends in [`Change`]s, which become lines of `sys_audit_log`.
//!
//! A [`Source`] is read in batches. A batch is stored in one commit together with the position after it, and only then confirmed to the source: what
//! is read again after a crash is not stored again, and nothing is left out.

mod change;
pub mod envelope;
mod error;
mod finding;
pub mod health;
pub mod live;
pub mod open;
pub mod plan;
pub mod postgres;
pub mod queue;
pub mod remainder;
pub mod row;
mod source;

pub use change::{Attribution, Change, Context, LineTail, Operation, key_text};
pub use error::{CaptureError, Result};
pub use finding::{Finding, FindingKind};
pub use source::{Batch, Source};

/// Number of records that a log takes from these lines.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
fn accepted(log: &str, lines: &[u8]) -> usize {
    let mut uuid = || [0; 16];
    let mut options = muniment_model::ParseOptions {
        now: 0,
        format: muniment_model::Format::Ndjson,
        limits: muniment_model::Limits::default(),
        uuid: &mut uuid,
        retention_years: None,
        users: None,
    };
    muniment_model::parse(muniment_model::table(log).unwrap(), lines, &mut options).unwrap().records
}
