//! A PostgreSQL server of a test's own: a fresh copy of a prepared cluster in a temporary folder, gone when the test ends.
//!
//! The programs are those of `TEST_POSTGRES_BIN`, of the search path, or of the newest version that a Linux distribution's packages have put in their
//! usual place. PostgreSQL refuses to run as root, so that under root the server runs as the user `postgres`, or `nobody`.

mod cluster;
mod process;
mod programs;

use crate::error::{Result, TestkitError, file};
use programs::Programs;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The superuser of every test server.
pub const USER: &str = "postgres";
/// Its password, wanted on TCP connections (SCRAM).
pub const PASSWORD: &str = "a-password-that-must-not-show";

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
const PORT_ATTEMPTS: usize = 20;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// `wal_level = logical`; otherwise `replica`.
    pub logical: bool,
    /// Whether commits reach the disk. Off is faster, and enough where only processes are killed, not the machine.
    pub fsync: bool,
    /// Further settings of `postgresql.conf`, as name and value (quoted here).
    pub settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { logical: true, fsync: false, settings: Vec::new() }
    }
}

impl PostgresOptions {
    /// Adds a setting; a later one of the same name wins.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running server. Dropping it stops it and removes its files.
///
/// Starting, stopping and restarting block the calling thread for some tenths of a second.
#[derive(Debug)]
pub struct PostgresServer {
    programs: Programs,
    /// Holds the cluster, its socket and its log.
    home: TempDir,
    port: u16,
    process: Option<Child>,
}

impl PostgresServer {
    /// Starts a server of its own for the caller.
    ///
    /// # Errors
    /// If there is no PostgreSQL here, or it doesn't start within a minute.
    pub fn start(options: &PostgresOptions) -> Result<Self> {
        let programs = Programs::find()?;
        let home = cluster::create(&programs, options)?;
        let mut server = Self { programs, home, port: 0, process: None };
        for _ in 0..PORT_ATTEMPTS {
            server.port = free_port();
            match server.restart() {
                // Somebody else was faster.
                Err(_) if server.log().contains("could not create any TCP/IP sockets") => {
                    std::fs::remove_file(server.log_path()).map_err(file("cannot remove", &server.log_path()))?
                }
                result => return result.map(|()| server),
            }
        }
        Err(TestkitError::Program { program: "postgres", said: "found no free port".to_owned() })
    }

    /// `postgres://user:password@127.0.0.1:port/database`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// The same through the server's Unix socket.
    pub fn socket_url(&self, database: &str) -> String {
        format!("{}?host={}", self.url(database), self.socket_folder().display())
    }

    /// Options of a connection to a database, by TCP, as the superuser.
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.port).username(USER).password(PASSWORD).database(database)
    }

    /// A pool of connections to a database, opened when first used. Must be called within a Tokio runtime.
    pub fn pool(&self, database: &str) -> PgPool {
        PgPoolOptions::new().max_connections(16).connect_lazy_with(self.connect_options(database))
    }

    /// Runs statements, separated by semicolons, in a connection of their own. More than one of them make one transaction, unless they say otherwise.
    ///
    /// # Errors
    /// If one of them fails.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<()> {
        use sqlx::{AssertSqlSafe, Connection, Executor};
        let failed = |source| TestkitError::Sql { sql: sql.chars().take(200).collect(), source };
        let mut connection = sqlx::PgConnection::connect_with(&self.connect_options(database)).await.map_err(failed)?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map_err(failed)?;
        connection.close().await.map_err(failed)
    }

    /// The TCP port on 127.0.0.1, which stays the same when the server is restarted.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the programs (`psql`, `pgbench`, …).
    pub fn programs(&self) -> &Path {
        self.programs.folder()
    }

    /// The folder of its Unix socket.
    pub fn socket_folder(&self) -> &Path {
        self.home.path()
    }

    /// The folder of the cluster (`PGDATA`).
    pub fn data(&self) -> PathBuf {
        cluster::data(self.home.path())
    }

    /// What the server has written to its log.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The postmaster's process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Stops the server in order: connections are ended, a checkpoint is written.
    ///
    /// # Errors
    /// If it isn't gone within a minute.
    pub fn stop(&mut self) -> Result<()> {
        self.end("INT")
    }

    /// Kills the postmaster and all its processes with SIGKILL, and waits until they are gone.
    ///
    /// # Errors
    /// If the postmaster can't be waited for.
    pub fn kill9(&mut self) -> Result<()> {
        let Some(mut postmaster) = self.process.take() else { return Ok(()) };
        let children = process::children(postmaster.id());
        // First the postmaster, so that it doesn't start new processes for those that are killed.
        postmaster.kill().and_then(|()| postmaster.wait()).map_err(file("cannot kill the server in", self.home.path()))?;
        process::signal("KILL", &children);
        process::wait_gone(&children, STOPPED_WITHIN);
        Ok(())
    }

    /// Starts the server again on the same port and the same data, after stopping it if it runs.
    ///
    /// # Errors
    /// If it doesn't start within a minute.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        let log =
            std::fs::File::options().create(true).append(true).open(self.log_path()).map_err(file("cannot open", &self.log_path()))?;
        let mut command = self.programs.command("postgres");
        command.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string()).arg("-k").arg(self.home.path());
        let errors = log.try_clone().map_err(file("cannot open", &self.log_path()))?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut process = command.spawn().map_err(file("cannot run postgres in", self.home.path()))?;
        let pid_file = self.data().join("postmaster.pid");
        let begun = Instant::now();
        loop {
            if process::is_ready(&pid_file, process.id()) {
                self.process = Some(process);
                return Ok(());
            }
            let ended = process.try_wait().map_err(file("cannot watch the server in", self.home.path()))?.is_some();
            if ended || begun.elapsed() > READY_WITHIN {
                if !ended {
                    self.process = Some(process);
                    self.kill9()?;
                }
                return Err(TestkitError::Program { program: "postgres", said: tail(&self.log()) });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(&mut self, signal: &str) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process::signal(signal, &[process.id()]);
        let begun = Instant::now();
        while process.try_wait().map_err(file("cannot watch the server in", self.home.path()))?.is_none() {
            if begun.elapsed() > STOPPED_WITHIN {
                self.process = Some(process);
                return Err(TestkitError::Program { program: "postgres", said: tail(&self.log()) });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("server.log")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // An immediate stop gives back shared memory, which SIGKILL would not.
        if self.end("QUIT").is_err() {
            let _ = self.kill9();
        }
        process::remove_shared_memory(&self.data().join("postmaster.pid"));
    }
}

/// A port that is free now, below the range from which systems take ports for outgoing connections, so that it is still free after a restart.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mine = std::process::id() as u16;
    loop {
        let number = mine.wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + number % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
