//! Records and registers: which tables exist, what a record must look like, how a request becomes columns, and the canonical bytes of a
//! record.
//!
//! Everything about a column is said once, in the module `tables`; the Arrow schemas, the SQL, the validation, the API description and the reference
//! page follow from it. This crate does no input or output: the clock and the random numbers are arguments.

mod markdown;
mod members;
mod openapi;
mod parse;
mod payload;
mod sql;
mod table;
mod tables;

pub use markdown::schema_markdown;
pub use members::members;
pub use openapi::{openapi, record_schema, stored_record_schema};
pub use parse::{ClassBatch, Format, Limits, LineError, MAX_BODY_BYTES, ParseOptions, Parsed, Rejection, parse};
pub use payload::{EncodeError, PayloadEncoder};
pub use sql::Dialect;
pub use table::{Check, Column, DefaultValue, ForeignKey, Index, Kind, MAX_JSON_BYTES, Table, Type};
pub use tables::{SENSITIVE_RETENTION_YEARS, logs, registers, table, tables};
