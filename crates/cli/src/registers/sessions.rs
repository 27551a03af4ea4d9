//! `muniment sessions`: who is logged in, and ending it.

use super::{Ask, Common, Question, encoded, query, rows, text};
use crate::config::Config;
use crate::error::Result;
use clap::{Args, Subcommand, ValueEnum};
use muniment_engine::sessions::{CountBy, SessionFilter};
use muniment_engine::{ChangedBy, Engine};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Args)]
pub struct Sessions {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: SessionsCommand,
}

#[derive(Debug, Subcommand)]
enum SessionsCommand {
    /// List open sessions, by number
    List {
        /// Those that ended, too
        #[arg(long)]
        all: bool,
        /// Of this user, by number
        #[arg(long, value_name = "ID")]
        user: Option<i64>,
        /// With this device
        #[arg(long, value_name = "FINGERPRINT")]
        device: Option<String>,
        /// From this address
        #[arg(long, value_name = "ADDR")]
        address: Option<IpAddr>,
        /// Only those after this number
        #[arg(long, value_name = "ID")]
        after: Option<i64>,
        /// This many at most
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
    /// Count open sessions
    Count {
        /// What they are counted by
        #[arg(long, value_enum, default_value_t = By::User)]
        by: By,
    },
    /// End a session
    End {
        /// Its session_id
        session: String,
        /// Why it ends, as its logout_reason
        #[arg(long, default_value = "ADMIN", value_name = "TEXT")]
        because: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    /// Users
    User,
    /// Devices
    Device,
    /// Addresses
    Address,
}

impl By {
    fn counted(self) -> (CountBy, &'static str, &'static str) {
        match self {
            Self::User => (CountBy::User, "user", "user_id"),
            Self::Device => (CountBy::Device, "device", "device_fingerprint"),
            Self::Address => (CountBy::Address, "address", "ip_address"),
        }
    }
}

/// Runs the command.
pub async fn run(config: Config, options: Sessions) -> Result<ExitCode> {
    super::run(config, options.common, &options.command).await
}

impl Ask for SessionsCommand {
    fn question(&self) -> Result<Question> {
        Ok(match self {
            Self::List { all, user, device, address, after, limit } => Question::get(query(
                "/api/v1/sessions",
                &[
                    ("active", (!all).then(|| "true".to_owned())),
                    ("user_id", user.map(|user| user.to_string())),
                    ("device_fingerprint", device.clone()),
                    ("ip_address", address.map(|address| address.to_string())),
                    ("after", after.map(|after| after.to_string())),
                    ("limit", Some(limit.to_string())),
                ],
            )),
            Self::Count { by } => Question::get(format!("/api/v1/sessions/open?by={}", by.counted().1)),
            Self::End { session, because } => {
                Question::post(format!("/api/v1/sessions/{}/end", encoded(session)), json!({ "reason": because }))
            }
        })
    }

    async fn here(&self, engine: &Arc<Engine>, by: &ChangedBy) -> Result<Value> {
        Ok(match self {
            Self::List { all, user, device, address, after, limit } => {
                let filter = SessionFilter {
                    active: (!all).then_some(true),
                    user_id: *user,
                    device_fingerprint: device.clone(),
                    ip_address: *address,
                    after: *after,
                    limit: Some(*limit),
                };
                json!(engine.sessions(&filter).await?)
            }
            Self::Count { by } => json!(engine.open_sessions(by.counted().0).await?),
            Self::End { session, because } => engine.end_session(session, because, by).await?,
        })
    }

    fn show(&self, answer: &Value) -> String {
        let none = "There is none.";
        match self {
            Self::List { .. } => rows(
                answer,
                &[
                    "id",
                    "session_id",
                    "user_id",
                    "ip_address",
                    "device_fingerprint",
                    "created_at",
                    "last_activity_at",
                    "expires_at",
                    "logout_reason",
                ],
                none,
            ),
            Self::Count { by } => rows(answer, &[by.counted().2, "sessions", "last_activity_at"], none),
            Self::End { .. } => format!("{} ended: {}\n", text(&answer["session_id"]), text(&answer["logout_reason"])),
        }
    }
}
