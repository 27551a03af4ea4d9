//! How to reach the server: one URL for the replication connection and the ordinary ones beside it. The password comes from the URL, from
//! `PGPASSWORD`, or from the password file (`PGPASSFILE`, `~/.pgpass`), and is never printed.

use crate::error::{CaptureError, Result};
use pgwire_replication::{SslMode, TlsConfig};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, PgConnection};
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// Settings of every session that reads values, so that a value has one text: dates ISO, times UTC, bytes hexadecimal, names qualified.
pub const SESSION_SETTINGS: [(&str, &str); 6] = [
    ("datestyle", "ISO,YMD"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("search_path", "pg_catalog"),
];

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Where a server is and how to log in.
#[derive(Clone)]
pub struct Server {
    options: PgConnectOptions,
    password: String,
    files: Files,
}

/// Certificate files named in the URL.
#[derive(Clone, Default)]
struct Files {
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Server {
    /// Reads a URL `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=/path`.
    ///
    /// # Errors
    /// [`CaptureError::Refused`] if it is none; the error doesn't show it.
    pub fn parse(url: &str) -> Result<Self> {
        let refused =
            || CaptureError::Refused("this is not a URL of a PostgreSQL database: postgres://user:password@host:port/database".into());
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(refused());
        }
        let options = PgConnectOptions::from_str(url).map_err(|_| refused())?;
        let options = options.options(SESSION_SETTINGS).application_name("muniment");
        // The driver gives a password back only in a URL, which it builds from the other parts without escaping: so those are replaced.
        let plain = options.clone().username("u").host("h").database("d").to_url_lossy();
        let password = percent_decoded(plain.password().unwrap_or_default());
        let file = |name: &str| {
            let pair = plain.query_pairs().find(|(key, _)| key == name);
            let path = pair.map(|(_, value)| value.strip_prefix("file: ").map(str::to_owned));
            path.map(|path| path.ok_or_else(|| CaptureError::Refused(format!("{name} must be a file")))).transpose()
        };
        let files = Files { root: file("sslrootcert")?, certificate: file("sslcert")?, key: file("sslkey")? };
        Ok(Self { options, password, files })
    }

    /// Name of the database.
    pub fn database(&self) -> &str {
        self.options.get_database().unwrap_or_else(|| self.options.get_username())
    }

    /// An ordinary connection.
    ///
    /// # Errors
    /// If there is none to be had within 15 s.
    pub async fn connect(&self) -> Result<PgConnection> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.options.connect());
        let timed_out = || sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
        connecting.await.unwrap_or_else(|_| Err(timed_out())).map_err(CaptureError::database("connecting to the source"))
    }

    /// The folder, of those separated by commas, with the server's socket, if the server is reached by TCP though it runs on this machine.
    pub fn unused_socket<'a>(&self, folders: &'a str) -> Option<&'a str> {
        let host = self.options.get_host();
        let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if self.options.get_socket().is_some() || !is_loopback {
            return None;
        }
        let socket = format!(".s.PGSQL.{}", self.options.get_port());
        folders.split(',').map(str::trim).find(|folder| Path::new(folder).join(&socket).exists())
    }

    /// What a replication connection needs. Its application name, `muniment_<name>`, is what `synchronous_standby_names` has to name for strict capture.
    pub fn replication(&self, slot: &str, publication: &str, name: &str) -> pgwire_replication::ReplicationConfig {
        let host = match self.options.get_socket() {
            Some(socket) => socket.to_string_lossy().into_owned(),
            None => self.options.get_host().to_owned(),
        };
        let unix = host.starts_with('/');
        let settings: Vec<String> = SESSION_SETTINGS.iter().map(|(key, value)| format!("-c {key}={value}")).collect();
        let (user, database) = (self.options.get_username(), self.database());
        pgwire_replication::ReplicationConfig::new(host, user, self.password.clone(), database, slot, publication)
            .with_port(self.options.get_port())
            .with_tls(if unix { TlsConfig::disabled() } else { self.tls() })
            .with_options(settings.join(" "))
            .with_application_name(format!("muniment_{name}"))
    }

    fn tls(&self) -> TlsConfig {
        let mode = match self.options.get_ssl_mode() {
            PgSslMode::Disable => SslMode::Disable,
            PgSslMode::Allow | PgSslMode::Prefer => SslMode::Prefer,
            PgSslMode::Require => SslMode::Require,
            PgSslMode::VerifyCa => SslMode::VerifyCa,
            PgSslMode::VerifyFull => SslMode::VerifyFull,
        };
        let path = |file: &Option<String>| file.as_ref().map(Into::into);
        // The client checks a certificate for an address only if it is told that this is what it is for.
        let host = self.options.get_host();
        let address = host.parse::<IpAddr>().is_ok().then(|| host.to_owned());
        TlsConfig {
            mode,
            ca_pem_path: path(&self.files.root),
            sni_hostname: address,
            client_cert_pem_path: path(&self.files.certificate),
            client_key_pem_path: path(&self.files.key),
        }
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten().and_then(|code| u8::from_str_radix(code, 16).ok());
        out.push(code.unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls() {
        let server =
            Server::parse("postgres://us%20er:p%40ss%2F%C4%91@db.example:6432/c%20d?sslmode=verify-ca&sslrootcert=/ca%20x.pem").unwrap();
        let config = server.replication("slot", "publication", "pg:d");
        assert_eq!((config.host.as_str(), config.port, config.user.as_str()), ("db.example", 6432, "us er"));
        assert_eq!((config.password.as_str(), config.database.as_str()), ("p@ss/đ", "c d"));
        assert_eq!(config.tls.mode, SslMode::VerifyCa);
        assert_eq!(config.tls.ca_pem_path.unwrap().to_str(), Some("/ca x.pem"));
        let socket = Server::parse("postgres:///d?host=/run/pg&user=a&port=5433").unwrap().replication("s", "p", "n");
        assert_eq!((socket.host.as_str(), socket.port, socket.user.as_str(), socket.database.as_str()), ("/run/pg", 5433, "a", "d"));
        for wrong in ["mysql://secret@h/d", "postgres://h:secret/d", "secret"] {
            let error = Server::parse(wrong).err().unwrap().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
