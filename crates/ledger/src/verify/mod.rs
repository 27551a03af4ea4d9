//! Verification of a whole ledger (format §3.1), offline or in the live store.
//!
//! These are pure state machines: the caller reads files and runs the checks of records in parallel; what it finds out is put together
//! here, in order.
//!
//! 1. [`MetaVerifier`] takes the checkpoints and the leaves of the meta-log and gives a [`Ledger`]: what was signed.
//! 2. [`Ledger::check_extents`] compares it with the streams at hand.
//! 3. [`check_block`] checks consecutive records against their stored hashes; any number of blocks at the same time.
//! 4. [`StreamVerifier`] takes the [`BlockSummary`] of each block, in order, and compares the tree with the root of each commit.
//!
//! Everything fails closed: what was not compared is not valid.

mod block;
mod finding;
mod meta_log;
mod stream;

pub use block::{BadRecord, Block, BlockSummary, check_block};
pub use finding::{Finding, Outcome, Reason, Verdict};
pub use meta_log::{Checkpoints, CommitHead, Extent, Ledger, MetaVerifier, NamedNote, StreamHistory};
pub use stream::StreamVerifier;
