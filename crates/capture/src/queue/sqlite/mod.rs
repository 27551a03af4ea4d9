//! SQLite: triggers write images of changed rows to `muniment_audit_queue` of the audited file, and [`SqliteQueueSource`] reads it. The audited
//! application may be any process in any language: the triggers are part of the file.
//!
//! One writer at a time makes numbers of the queue commit order: a transaction takes its numbers while it holds the file's write lock.
//!
//! Who makes a change is said by `INSERT INTO muniment_context (document) VALUES ('{"user_id": 7}')` at the start of the transaction, and taken back by
//! `DELETE FROM muniment_context` at its end. The context's row violates a deferred foreign key, so that SQLite itself refuses to commit a transaction that leaves
//! it behind; a program that has foreign keys off gets its leftover removed by the reader, and reported.

mod attach;
mod lines;
mod live;
mod reader;
mod triggers;
mod waiting;

pub use attach::{apply, attach_on, audit, describe, detach, end, plan};
pub(crate) use live::SqliteLive;
pub use reader::{SqliteOptions, SqliteQueueSource};
pub use triggers::{TableDescription, trigger_sql, trigger_statements};
pub(crate) use waiting::Waiting;
