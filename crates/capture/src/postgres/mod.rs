//! PostgreSQL: changes read from the write-ahead log through a logical replication slot.

mod activity;
pub mod attach;
mod attribution;
mod check;
mod connection;
pub mod detach;
mod gap;
mod health;
mod open;
pub mod patterns;
mod pgoutput;
mod position;
mod pump;
mod relations;
mod replication;
mod side;
mod snapshot;
mod stream;
mod transaction;
mod unattributed;

pub use attribution::Session;
pub use connection::{SESSION_SETTINGS, Server};
pub use gap::Gap;
pub(crate) use open::open;
pub use position::Position;
pub(crate) use position::parse_lsn;
pub use relations::ColumnRules;
pub(crate) use snapshot::Progress as BaselineProgress;
pub use snapshot::stream_part;
pub use stream::{BaselineNeed, Limits, Progress, ReplicationConfig, ReplicationSource, SessionSource};
