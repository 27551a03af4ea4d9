//! The replication source against a real PostgreSQL server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attribution;
mod changes;
mod login;
mod restart;
mod support;
mod traps;
