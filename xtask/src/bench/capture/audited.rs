//! An audited server: a cluster with the benchmark's table, and what audits it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::CaptureBench;
use super::cluster::Cluster;
use crate::bench::http::Client;
use crate::bench::program::Server;
use crate::error::{Context, Error, Result};
use crate::process::root;

const SCHEMA: &str = include_str!("../../../../bench/capture/schema.sql");
/// How long capture may take to store what is committed.
const PATIENCE: Duration = Duration::from_secs(600);

/// What audits the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// Nothing.
    None,
    /// Muniment by a replication slot, through the server's socket; with this niceness.
    Replication { niceness: Option<i32> },
    /// The same over TCP.
    ReplicationOverTcp,
    /// Muniment by triggers and a queue.
    Queue,
    /// A trigger in the manner of supa_audit.
    Versions,
    /// A trigger in the manner of the wiki's audit trigger.
    Actions,
}

impl Audit {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "unaudited",
            Self::Replication { niceness: None } => "replication, full identity, context",
            Self::Replication { .. } => "the same, Muniment held to the smallest share (nice 19)",
            Self::ReplicationOverTcp => "the same over TCP",
            Self::Queue => "trigger queue with images, context",
            Self::Versions => "supa_audit's manner",
            Self::Actions => "audit-trigger's manner",
        }
    }

    /// Whether Muniment captures it, so that the application gives its context.
    pub fn is_muniment(self) -> bool {
        self.is_replication() || self == Self::Queue
    }

    fn is_replication(self) -> bool {
        matches!(self, Self::Replication { .. } | Self::ReplicationOverTcp)
    }

    /// The transaction that `pgbench` runs.
    pub fn script(self) -> PathBuf {
        script(if self.is_muniment() { "transaction_with_context.sql" } else { "transaction.sql" })
    }
}

/// A script of the benchmark.
pub fn script(name: &str) -> PathBuf {
    root().join("bench/capture").join(name)
}

/// A cluster and what audits it.
pub struct Audited {
    pub cluster: Cluster,
    pub muniment: Option<Server>,
    data: PathBuf,
    niceness: Option<i32>,
}

impl Audited {
    /// Starts both, with the benchmark's table; with Muniment, it is attached, and what was there before is not recorded.
    pub fn start(bench: &CaptureBench, audit: Audit) -> Result<Self> {
        let level = if audit.is_replication() { "logical" } else { "replica" };
        let name = format!("{audit:?}").chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let cluster = Cluster::start(&bench.postgres, &bench.folder, &format!("cluster-{name}"), level)?;
        cluster.sql(SCHEMA)?;
        match audit {
            Audit::Versions => drop(cluster.sql(include_str!("../../../../bench/capture/versions.sql"))?),
            Audit::Actions => drop(cluster.sql(include_str!("../../../../bench/capture/actions.sql"))?),
            _ => {}
        }
        let home = bench.folder.join(format!("muniment-{name}"));
        if home.exists() {
            std::fs::remove_dir_all(&home).context(|| format!("cannot remove {}", home.display()))?;
        }
        std::fs::create_dir_all(&home).context(|| format!("cannot make {}", home.display()))?;
        let niceness = if let Audit::Replication { niceness } = audit { niceness } else { None };
        let mut audited = Self { cluster, muniment: None, data: home.join("data"), niceness };
        if audit.is_muniment() {
            audited.serve(bench)?;
            let mode = if audit == Audit::Queue { "queue" } else { "replication" };
            let url = audited.cluster.url(audit == Audit::ReplicationOverTcp);
            let key = audited.data.join("administrator.key").to_string_lossy().into_owned();
            let attach =
                ["attach", &url, "--name", "pg:bench", "--table", "app.*", "--snapshot", "none", "--mode", mode, "--key-file", &key];
            bench.program.run(&audited.data, &attach)?;
        }
        Ok(audited)
    }

    /// Starts Muniment.
    pub fn serve(&mut self, bench: &CaptureBench) -> Result<()> {
        self.muniment = Some(bench.program.serve_with(&self.data, self.niceness)?);
        Ok(())
    }

    /// Stops Muniment; the database keeps its changes.
    pub fn stop_muniment(&mut self) -> Result<()> {
        self.muniment.take().map_or(Ok(()), Server::stop)
    }

    fn server(&self) -> Result<&Server> {
        self.muniment.as_ref().ok_or_else(|| Error::new("Muniment doesn't run"))
    }

    /// A connection to Muniment's API.
    pub fn client(&self) -> Result<Client> {
        Client::connect(&self.server()?.door)
    }

    /// Processor time that Muniment took.
    pub fn muniment_cpu(&self) -> f64 {
        self.muniment.as_ref().map_or(0.0, |server| super::cpu::own(server.id()))
    }

    /// Captured changes of a table that are found by SQL.
    pub fn captured(&self, table: &str) -> Result<u64> {
        count(&mut self.client()?, &format!("SELECT count(*) FROM sys_audit_log WHERE table_name = '{table}'"))
    }

    /// Waits until everything that is committed now is found; answers how long that took.
    pub fn catch_up(&self, probe: u64) -> Result<Duration> {
        let begun = Instant::now();
        self.cluster.sql(&format!("INSERT INTO app.probe VALUES ({probe})"))?;
        let mut client = self.client()?;
        while !is_found(&mut client, probe)? {
            if begun.elapsed() > PATIENCE {
                return Err(Error::new("Muniment does not catch up"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(begun.elapsed())
    }
}

/// Whether the insertion of a probe is found by SQL.
pub fn is_found(client: &mut Client, probe: u64) -> Result<bool> {
    let question = format!("SELECT count(*) FROM sys_audit_log WHERE table_name = 'app.probe' AND primary_key = '{probe}'");
    Ok(count(client, &question)? > 0)
}

fn count(client: &mut Client, question: &str) -> Result<u64> {
    let body = serde_json::json!({ "query": question }).to_string();
    let answer = client.post("/api/v1/sql", "text/csv", "application/json", body.as_bytes())?.ok("a question")?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.lines().nth(1).and_then(|line| line.trim().parse().ok()).ok_or_else(|| Error::new(format!("not a number: {text}")))
}
