//! Capture without replication: triggers write changed rows to a queue within the audited database, in the transaction that changes them, and Muniment reads it.

mod polling;
pub mod postgres;
mod speaker;
pub mod sqlite;
pub mod sqlserver;

pub use polling::Polled;
