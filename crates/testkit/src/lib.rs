//! What tests and benchmarks need from outside: a real PostgreSQL server, and workloads to run on it. Nothing of the product depends on it.

mod error;
mod postgres;
pub mod workload;

pub use error::{Result, TestkitError};
pub use postgres::{PASSWORD, PostgresOptions, PostgresServer, USER};
