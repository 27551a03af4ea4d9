//! What the system does with records: takes them in, commits them in groups, moves them to Parquet, answers questions, proves and verifies.

pub mod capture;
pub mod cases;
mod commit;
mod envelopes;
mod error;
pub mod evidence;
mod fields;
mod follow;
mod heads;
pub mod history;
pub mod identity;
mod ingest;
mod keys;
pub mod limits;
mod maintain;
pub mod measures;
pub mod metrics;
pub mod people;
mod prepare;
mod publish;
pub mod query;
pub mod reading;
pub mod reconcile;
mod requests;
pub mod sessions;
mod source;
pub mod thresholds;
mod turns;
pub mod unmasking;

mod engine;

pub use engine::{Engine, EngineConfig};
pub use envelopes::{EnvelopeFile, EnvelopeProgress, EnvelopeReceipt, EnvelopeRequest};
pub use error::{EngineError, Result};
pub use ingest::{Ids, IngestRequest, Limits, Receipt, Reservation, SourcePosition};
pub use muniment_capture::envelope::{Format as EnvelopeFormat, KeyHints};
pub use muniment_store::StoreError;
pub use muniment_store::register::ChangedBy;
pub use requests::OwnRequest;
pub use source::{FileIngest, Progress};

/// Now, in microseconds UTC. The one place where the product reads the clock.
#[expect(clippy::disallowed_methods, reason = "the clock is read here and handed on")]
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
