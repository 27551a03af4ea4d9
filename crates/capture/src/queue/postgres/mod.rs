//! PostgreSQL without replication: row triggers write images of changed rows to `muniment.sys_audit_queue`, and [`QueueSource`] reads them in commit order.
//!
//! Neither the numbers of the queue's rows nor those of transactions are commit order: a transaction may take a low number and commit late. The reader goes by
//! snapshots instead. A *wave* is what is visible in one snapshot and was not in the one before, so that every committed row is in exactly one wave, whatever
//! still runs beside it. Within a wave, transactions are ordered by the number of their last row, which respects every conflict between them: whoever
//! changed a row after another did so after that other's commit, and took a higher number.

mod attach;
mod baseline;
mod health;
mod image;
mod lines;
mod position;
mod reader;
mod shapes;
mod time;

pub(crate) use attach::waiting;
pub use attach::{apply, detach, end, plan};
pub use health::QueueMonitor;
pub use reader::{DeadLetter, QueueOptions, QueueSource, dead_letters};
