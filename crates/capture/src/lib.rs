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
pub mod row;
mod source;

pub use change::{Attribution, Change, Context, LineTail, Operation, key_text};
pub use error::{CaptureError, Result};
pub use finding::{Finding, FindingKind};
pub use source::{Batch, Source};
