//! What is typed after `muniment access`.

use clap::{Args, Subcommand};
use std::time::Duration;

/// Keys, roles, and who one is.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Manage API keys
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
        #[command(flatten)]
        through: Through,
    },
    /// Manage the roles of users
    Roles {
        #[command(subcommand)]
        command: RolesCommand,
        #[command(flatten)]
        through: Through,
    },
    /// Say who the server takes you for, and what you may do
    Whoami(Through),
}

/// Which server to ask.
#[derive(Debug, Default, Args)]
pub struct Through {
    /// Ask this server, such as http://127.0.0.1:7117, even if the data folder is free
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Why, for the record
    #[arg(long, global = true, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What is done to keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key, and print it: it can't be had a second time
    Create(CreateKey),
    /// List all keys
    List,
    /// Make a key in the place of another, and print it
    Rotate {
        /// Number of the key, as list shows it
        id: i64,
        /// How long the old key stays valid, such as 24h
        #[arg(long, default_value = "0s", value_name = "TIME", value_parser = crate::config::parse_duration)]
        grace: Duration,
    },
    /// Revoke a key: it is refused from now on
    Revoke {
        /// Number of the key, as list shows it
        id: i64,
    },
}

/// A key to be made.
#[derive(Debug, Args)]
pub struct CreateKey {
    /// What it is for
    pub name: String,
    /// A role that it acts in: ingest, viewer, auditor, investigator, compliance_officer or administrator; may be repeated
    #[arg(long, required = true, value_name = "ROLE")]
    pub role: Vec<String>,
    /// A log or register that it is limited to; may be repeated
    #[arg(long, value_name = "TABLE")]
    pub table: Vec<String>,
    /// An action that it is limited to, such as read; may be repeated
    #[arg(long, value_name = "ACTION")]
    pub action: Vec<String>,
    /// Whose key it is, by number or name: it never does more than that user may
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// How long it is valid, such as 90d; without it, until it is revoked
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration)]
    pub expires: Option<Duration>,
}

/// What is done to roles.
#[derive(Debug, Subcommand)]
pub enum RolesCommand {
    /// List who has which role
    List,
    /// Give a user a role
    Grant {
        /// The user, by number or name
        user: String,
        /// The role
        role: String,
    },
    /// Take a role from a user
    Revoke {
        /// The user, by number or name
        user: String,
        /// The role
        role: String,
    },
}
