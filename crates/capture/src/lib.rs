//! Captures the changes of databases: each way in ends in [`Change`]s, which become lines of `sys_audit_log`.
//!
//! A [`Source`] is read in batches. A batch is stored in one commit together with the position after it, and only then confirmed to the source: what
//! is read again after a crash is not stored again, and nothing is left out.

mod change;
mod error;
mod source;

pub use change::{Attribution, Change, Context, Operation, key_text};
pub use error::{CaptureError, Result};
pub use source::{Batch, Source};
