//! Evidence: verify a live store or an exported bundle, export a bundle, prove one record, check a proof. Bytes in, verdicts out; `docs/format.md`
//! §3 and §4 are the specification.
//!
//! Everything fails closed: what cannot be read or was not compared is not valid. Records are checked in parallel, one row group, one hot batch or one
//! run of lines at a time; what they add up to is put together in order, by the state machines of `muniment_ledger::verify`.

mod bundle;
mod export;
mod join;
mod live;
mod ndjson;
mod nodes;
mod parquet;
mod prove;
mod records;
mod report;
mod run;
mod schema;

pub use bundle::verify_bundle;
pub use export::{ExportOptions, export};
pub use live::verify_store;
pub(crate) use prove::leaf_hash;
pub use prove::{ProvenRecord, check, prove};
pub use report::Report;

use muniment_ledger::checkpoint::VerifierKey;
use std::sync::Arc;

/// Is called with the number of records done and of all.
pub type OnProgress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// How to verify.
#[derive(Clone, Default)]
pub struct VerifyOptions {
    /// The key to trust. A bundle needs one; a live store is otherwise checked against the first key of its own meta-log, which the
    /// report says.
    pub trusted: Option<VerifierKey>,
    /// Published checkpoints, as text: what is verified must contain them all.
    pub published: Vec<String>,
    /// Demand every record, also of a bundle that claims to be a selection.
    pub demand_all: bool,
    /// Threads to use; 0 for one a core.
    pub threads: usize,
    /// Whom to tell how far it has come.
    pub progress: Option<OnProgress>,
}
