//! The HTTP interface: takes records in, answers questions, shows the ledger. It knows HTTP and nothing of how records are kept; the engine knows
//! nothing of HTTP.
//!
//! What a client is told and what an operator is told are two things: answers carry a stable code and a plain message, logs the whole
//! chain of sources.

mod access;
mod answer;
mod authenticate;
mod author;
mod body;
mod capture;
mod cases;
mod connection;
mod console;
mod decode;
mod entities;
mod guard;
mod identity;
mod ledger;
mod limits;
mod logs;
mod measures;
mod oidc;
mod openapi;
mod peers;
mod people;
mod protection;
mod reader;
mod reconcile;
mod reconstruction;
mod routes;
mod serve;
mod sessions;
mod sources;
mod sql;
mod status;
mod tls;
mod unmasking;

pub use identity::AccessMode;
pub use muniment_engine::query::QueryLimits;
pub use oidc::{OidcConfig, OidcError};
pub use serve::{Server, ServerConfig, ServerError};
pub use tls::{TlsConfig, TlsError};
