//! Capture by trigger queues, against a real PostgreSQL and real SQLite files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod postgres;
mod random;
mod sqlite;
mod sqlserver;
mod support;
mod traps;
