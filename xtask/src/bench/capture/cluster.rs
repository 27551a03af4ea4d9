//! A PostgreSQL server for measurements, with fsync, and the programs that drive it.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cpu;
use crate::error::{Context, Error, Result};

/// Like a small server of its own: synced, no background work that comes and goes.
const SETTINGS: &str = "
fsync = on
synchronous_commit = on
shared_buffers = 512MB
max_wal_size = 8GB
checkpoint_timeout = 1h
autovacuum = off
max_replication_slots = 4
listen_addresses = '127.0.0.1'
unix_socket_permissions = 0777
max_connections = 50
";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// No session has been counted in for so long: none is left.
const SETTLED: Duration = Duration::from_millis(500);

/// A running server.
pub struct Cluster {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    process: Child,
}

/// How a run of `pgbench` went.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    pub transactions: f64,
    pub seconds: f64,
}

impl Ran {
    pub fn rate(self) -> f64 {
        self.transactions / self.seconds
    }
}

impl Cluster {
    /// Makes and starts one in a new folder of that name.
    pub fn start(programs: &Path, parent: &Path, name: &str, wal_level: &str) -> Result<Self> {
        let folder = parent.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).context(|| format!("cannot remove {}", folder.display()))?;
        }
        std::fs::create_dir_all(&folder).context(|| format!("cannot make {}", folder.display()))?;
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).context(|| "cannot change permissions")?;
        if let Some((user, group)) = unprivileged() {
            chown(&folder, Some(user), Some(group)).context(|| format!("cannot give away {}", folder.display()))?;
        }
        let data = folder.join("data");
        let mut initdb = as_owner(programs, "initdb");
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust", "--username=postgres", "--pgdata"]).arg(&data);
        let output = initdb.output().context(|| "cannot run initdb")?;
        if !output.status.success() {
            return Err(Error::new(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr))));
        }
        let settings = data.join("postgresql.auto.conf");
        std::fs::write(&settings, format!("{SETTINGS}wal_level = {wal_level}\n")).context(|| "cannot write settings")?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context(|| "no free port")?.port();
        let log = std::fs::File::create(folder.join("server.log")).context(|| "cannot create a log")?;
        let copy = log.try_clone().context(|| "cannot share a log")?;
        let mut postgres = as_owner(programs, "postgres");
        postgres.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k"]).arg(&folder).stdout(log).stderr(copy);
        let process = postgres.spawn().context(|| "cannot run postgres")?;
        let mut cluster = Self { programs: programs.to_owned(), folder, port, process };
        let begun = Instant::now();
        while !cluster.is_ready() {
            let ended = cluster.process.try_wait().context(|| "cannot watch postgres")?.is_some();
            if ended || begun.elapsed() > READY_WITHIN {
                let said = std::fs::read_to_string(cluster.folder.join("server.log")).unwrap_or_default();
                return Err(Error::new(format!("PostgreSQL did not start: {said}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(cluster)
    }

    fn is_ready(&self) -> bool {
        let text = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|state| state.trim() == "ready")
    }

    /// For whoever is on the same machine: through the socket, or over TCP.
    pub fn url(&self, over_tcp: bool) -> String {
        let tcp = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        if over_tcp { tcp } else { format!("{tcp}?host={}", self.folder.display()) }
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        command
    }

    /// Runs SQL by `psql`; answers what it prints.
    pub fn sql(&self, text: &str) -> Result<String> {
        let mut psql = self.psql()?;
        let failed = || "cannot speak to psql";
        psql.stdin.take().context_none(failed)?.write_all(text.as_bytes()).context(failed)?;
        let output = psql.wait_with_output().context(failed)?;
        if !output.status.success() {
            return Err(Error::new(format!("psql failed: {}", String::from_utf8_lossy(&output.stderr))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A `psql` that runs what is written to it, line by line.
    pub fn psql(&self) -> Result<Child> {
        let mut command = self.client("psql");
        command.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context(|| "cannot run psql")
    }

    /// Starts `pgbench` with a script, with prepared statements, as drivers use them.
    pub fn pgbench(&self, script: &Path, clients: usize, seconds: u64, rate: Option<u64>) -> Result<Child> {
        let mut command = self.client("pgbench");
        command.args(["--no-vacuum", "--protocol=prepared", "--jobs=1", "--client", &clients.to_string(), "--time", &seconds.to_string()]);
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        command.arg("--file").arg(script).arg("postgres");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context(|| "cannot run pgbench")
    }

    /// Runs `pgbench` to its end.
    pub fn load(&self, script: &Path, clients: usize, seconds: u64) -> Result<Ran> {
        let begun = Instant::now();
        let child = self.pgbench(script, clients, seconds, None)?;
        let output = child.wait_with_output().context(|| "cannot wait for pgbench")?;
        let seconds = begun.elapsed().as_secs_f64();
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(Error::new(format!("pgbench failed: {said}{}", String::from_utf8_lossy(&output.stderr))));
        }
        let number = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.split('/').next()?.parse::<f64>().ok())
        };
        let transactions = number("number of transactions actually processed: ");
        let rate = number("tps = ").filter(|rate| *rate > 0.0);
        match (transactions, rate) {
            (Some(transactions), Some(rate)) => Ok(Ran { transactions, seconds: transactions / rate }),
            (Some(transactions), None) => Ok(Ran { transactions, seconds }),
            _ => Err(Error::new(format!("pgbench printed something unexpected: {said}"))),
        }
    }

    /// Seconds of processor time that sessions which have ended took since the server started. Waits until those that are about to end have: the postmaster
    /// counts them in only when it notices.
    pub fn sessions_cpu(&self) -> f64 {
        let mut seen = (cpu::ended_children(self.process.id()), Instant::now());
        while seen.1.elapsed() < SETTLED {
            std::thread::sleep(Duration::from_millis(20));
            let now = cpu::ended_children(self.process.id());
            if now > seen.0 {
                seen = (now, Instant::now());
            }
        }
        seen.0
    }

    /// Seconds of processor time of the sessions that Muniment has here: those that send the WAL, read the queue, look at other sessions.
    pub fn muniment_sessions_cpu(&self) -> Result<f64> {
        let ids = self.sql("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'muniment%'")?;
        Ok(ids.lines().filter_map(|id| id.trim().parse().ok()).map(cpu::own).sum())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("sh").args(["-c", &format!("kill -INT {}", self.process.id())]).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server program, run as an unprivileged user if we are root: PostgreSQL refuses otherwise.
fn as_owner(programs: &Path, program: &str) -> Command {
    let mut command = Command::new(programs.join(program));
    command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command
}

fn unprivileged() -> Option<(u32, u32)> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1)) == Some("0");
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"].iter().filter(|_| is_root).find_map(|wanted| {
        let line = users.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut ids = line.split(':').skip(2).map(str::parse);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    })
}

/// A value that must be there.
pub trait Wanted<T> {
    /// The value, or an error of this text.
    fn context_none(self, what: impl FnOnce() -> &'static str) -> Result<T>;
}

impl<T> Wanted<T> for Option<T> {
    fn context_none(self, what: impl FnOnce() -> &'static str) -> Result<T> {
        self.ok_or_else(|| Error::new(what()))
    }
}
