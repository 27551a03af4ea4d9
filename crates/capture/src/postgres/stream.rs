//! The replication source: a logical replication slot, read with `pgoutput`, as batches of audit records.
//!
//! **Once.** A batch's position is that of the last change in it. Starting again at a position makes the server send the transaction it lies in once more, and the
//! changes up to it are passed over. The slot is confirmed only through [`Source::confirm`], never beyond the transaction that the confirmed position lies in.
//! A batch with findings ends with the transaction that they are about, so that the same findings always come with the same position. If the primary key of
//! a table is changed or dropped while Muniment is stopped in the midst of a transaction that moved keys of that table, the passing over can be off.
//!
//! **Memory.** A transaction is never held as a whole (see [`crate::postgres::transaction`]'s module); what is in memory are at most three batches and
//! what was read ahead, 128 KiB or one row. Nothing is spilled: the server does that.
//!
//! **Key-only replica identity.** The old row then is only its key, and only where the key changed or the row went; an unchanged large value is the marker
//! `{"$unchanged":true}`, see [`crate::row`].
//!
//! **Not in the stream:** generated columns (before PostgreSQL 18), unlogged tables, rows rewritten by DDL.

use crate::error::{CaptureError, Result};
use crate::finding::{Finding, FindingKind};
use crate::postgres::activity::Activity;
use crate::postgres::connection::Server;
use crate::postgres::gap::{Gap, ServerState};
use crate::postgres::position::{Position, lsn_text};
use crate::postgres::pump::Pump;
use crate::postgres::relations::{ColumnRules, Relations};
use crate::postgres::replication::ReplicationConnection;
use crate::postgres::side::Side;
use crate::postgres::unattributed::Quota;
use crate::source::{Batch, Source};
use async_trait::async_trait;
use pgwire_replication::{Lsn, PgWireError};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

/// How long a slot that another connection holds is waited for: our own, if it was cut.
const SLOT_PATIENCE: Duration = Duration::from_secs(15);

/// How a transaction without context is attributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionSource {
    /// By looking at `pg_stat_activity`; see there for how sure that is.
    #[default]
    Activity,
    /// By the `muniment.session` messages of the statement trigger.
    Trigger,
}

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most records.
    pub records: usize,
    /// Bytes of records after which it is handed out.
    pub bytes: usize,
    /// How long its first record waits for others.
    pub delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 8192, bytes: 4 << 20, delay: Duration::from_millis(40) }
    }
}

/// What to read, and how.
#[derive(Clone)]
pub struct ReplicationConfig {
    /// Name of the source, such as `pg:shop`.
    pub name: String,
    /// URL of the database, with the password; never shown.
    pub url: String,
    /// Name of the replication slot.
    pub slot: String,
    /// Name of the publication.
    pub publication: String,
    /// System identifier of the server that capture was set up on; another one is a gap.
    pub system_id: Option<String>,
    /// Columns that are left out or masked.
    pub columns: ColumnRules,
    /// How a transaction without context is attributed.
    pub sessions: SessionSource,
    /// Values of `application_name` whose writes without context are no findings.
    pub known_applications: Vec<String>,
    /// Findings of unattributed writes, per minute and session identity; further ones are summed up.
    pub findings_per_minute: u32,
    /// When a batch is full.
    pub limits: Limits,
    /// Most bytes of one message, that is of a row's old and new values; a larger row ends capture with an error. At most 1 GiB.
    pub max_row_bytes: usize,
    /// How often the position of an idle source moves.
    pub idle: Duration,
    /// How often a heartbeat is written into an idle database; `None` for never.
    pub heartbeat: Option<Duration>,
    /// Whether a slot that is gone or lost is created anew, after a finding.
    pub recreate_slot: bool,
    /// Tell the server at once what is durable, since COMMITs wait for it: Muniment is a synchronous standby, under the name `muniment_<name>`.
    pub strict: bool,
}

impl ReplicationConfig {
    /// The usual settings.
    pub fn new(name: impl Into<String>, url: impl Into<String>, slot: impl Into<String>, publication: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            slot: slot.into(),
            publication: publication.into(),
            system_id: None,
            columns: ColumnRules::default(),
            sessions: SessionSource::default(),
            known_applications: Vec::new(),
            findings_per_minute: 60,
            limits: Limits::default(),
            max_row_bytes: 1 << 30,
            idle: Duration::from_secs(10),
            heartbeat: Some(Duration::from_secs(10)),
            recreate_slot: true,
            strict: false,
        }
    }
}

impl fmt::Debug for ReplicationConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, slot, publication, .. } = self;
        f.debug_struct("ReplicationConfig")
            .field("name", name)
            .field("slot", slot)
            .field("publication", publication)
            .finish_non_exhaustive()
    }
}

/// What the log lacks until a baseline is taken: rows that changed without the stream's saying so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaselineNeed {
    /// Of all tables, since there is a gap.
    pub gap: Option<Gap>,
    /// Of these tables, since DDL rewrote them.
    pub tables: BTreeSet<String>,
}

/// How far a source is. LSNs are 0 until known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Where the server was when it last said so.
    pub server_lsn: u64,
    /// Up to where everything has been read.
    pub read_lsn: u64,
    /// Commit time of the last transaction read, µs UTC.
    pub commit_time: i64,
}

/// What the reading task tells the source.
#[derive(Default)]
pub(super) struct Shared {
    server_lsn: AtomicU64,
    read_lsn: AtomicU64,
    commit_time: AtomicI64,
    baseline: Mutex<BaselineNeed>,
}

impl Shared {
    pub fn committed(&self, end_lsn: u64, commit_time: i64) {
        self.commit_time.store(commit_time, Ordering::Relaxed);
        self.seen(end_lsn);
    }

    pub fn seen(&self, lsn: u64) {
        self.read_lsn.fetch_max(lsn, Ordering::Relaxed);
        self.server_lsn.fetch_max(lsn, Ordering::Relaxed);
    }

    pub fn rewritten(&self, table: String) {
        self.need(|need| {
            need.tables.insert(table);
        });
    }

    fn need<T>(&self, with: impl FnOnce(&mut BaselineNeed) -> T) -> T {
        with(&mut self.baseline.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A logical replication slot as a source of changes.
pub struct ReplicationSource {
    connector: Connector,
    running: Option<Running>,
}

/// The reading thread, and the ways to and from it. It ends when this is dropped.
struct Running {
    batches: mpsc::Receiver<Result<Batch>>,
    confirmed: watch::Sender<u64>,
    _stop: oneshot::Sender<()>,
}

/// What connects to a slot.
#[derive(Clone)]
struct Connector {
    config: Arc<ReplicationConfig>,
    server: Server,
    shared: Arc<Shared>,
}

/// The ways from and to whoever stores the batches.
struct Ends {
    batches: mpsc::Sender<Result<Batch>>,
    confirmed: watch::Receiver<u64>,
}

/// Runs work on a thread and a scheduler of its own, until `stop`'s other end is dropped: the messages of a busy server, which come one at a time, then
/// wake nobody on another core.
fn spawn_thread(stop: oneshot::Receiver<()>, work: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let failed = |error: std::io::Error| CaptureError::database("starting a thread")(sqlx::Error::Io(error));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = stop => {}
                () = work => {}
            }
        });
    };
    std::thread::Builder::new().name("replication".to_owned()).spawn(run).map_err(failed)?;
    Ok(())
}

impl ReplicationSource {
    /// Prepares a source; connects to nothing yet.
    ///
    /// # Errors
    /// [`CaptureError::Refused`] if the URL or a name can't be one.
    pub fn new(config: ReplicationConfig) -> Result<Self> {
        let server = Server::parse(&config.url)?;
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if config.slot.is_empty() || config.slot.len() > 63 || !config.slot.bytes().all(valid) {
            return Err(CaptureError::Refused(format!("{:?} is no name for a replication slot", config.slot)));
        }
        Ok(Self { connector: Connector { config: Arc::new(config), server, shared: Arc::default() }, running: None })
    }

    /// What is read, and how.
    pub(super) fn config(&self) -> &ReplicationConfig {
        &self.connector.config
    }

    /// What needs a baseline since the source was made, or since [`ReplicationSource::baseline_taken`]. It is known to this object alone: whoever stores the
    /// batches stores it too.
    pub fn baseline_need(&self) -> BaselineNeed {
        self.connector.shared.need(|need| need.clone())
    }

    /// Says that baselines have been taken, or noted as to be taken.
    pub fn baseline_taken(&self) {
        self.connector.shared.need(|need| *need = BaselineNeed::default());
    }

    /// How far the source is.
    pub fn progress(&self) -> Progress {
        Progress {
            server_lsn: self.connector.shared.server_lsn.load(Ordering::Relaxed),
            read_lsn: self.connector.shared.read_lsn.load(Ordering::Relaxed),
            commit_time: self.connector.shared.commit_time.load(Ordering::Relaxed),
        }
    }
}

impl Connector {
    /// Connects and looks whether everything after `stored` is there. The client replicates from there, or from where the slot begins if not.
    async fn connect(&self, stored: Option<Position>) -> Result<(ReplicationConnection, ServerState, Option<Gap>)> {
        let (mut connection, mut state) = self.connect_at(stored).await?;
        let Some(gap) = state.gap_after(stored, self.config.system_id.as_deref())? else { return Ok((connection, state, None)) };
        if state.slot.as_ref().is_none_or(|slot| slot.lost) {
            if !self.config.recreate_slot {
                return Err(CaptureError::Refused(format!("there is a gap: {}", gap.reason)));
            }
            Side::new(self.server.clone()).recreate_slot(&self.config.slot).await?;
        }
        if stored.is_some() || state.slot.as_ref().is_none_or(|slot| slot.lost) {
            drop(connection);
            (connection, state) = self.connect_at(None).await?;
        }
        Ok((connection, state, Some(gap)))
    }

    async fn connect_at(&self, position: Option<Position>) -> Result<(ReplicationConnection, ServerState)> {
        let Self { config, server, .. } = self;
        let from = Lsn::from_u64(position.map_or(0, |position| position.lsn));
        let replication = server
            .replication(&config.slot, &config.publication, &config.name)
            .with_start_lsn(from)
            .with_ack_lsn(from)
            .with_max_message_size(config.max_row_bytes)
            .with_status_interval(Duration::from_millis(if config.strict { 1 } else { 1000 }));
        let mut connection = ReplicationConnection::open(replication).await?;
        let state = ServerState::read(&mut connection, &config.slot).await?;
        Ok((connection, state))
    }

    /// Begins to replicate; waits for a slot that is still held.
    async fn begin(&self, position: Option<Position>) -> Result<(ReplicationConnection, ServerState, Option<Gap>)> {
        let deadline = Instant::now() + SLOT_PATIENCE;
        loop {
            let (mut connection, state, gap) = self.connect(position).await?;
            match connection.replicate(&self.config.slot, &self.config.publication).await {
                Ok(()) => return Ok((connection, state, gap)),
                Err(CaptureError::Replication(PgWireError::Server(error))) if error.contains("55006") && Instant::now() < deadline => {
                    sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn gap_finding(&self, gap: &Gap, resumed: Position) -> Vec<u8> {
        let after = gap.after.map_or_else(|| "the beginning".to_owned(), |after| lsn_text(after.lsn));
        let reason = format!("changes between {after} and {} may be missing: {}", lsn_text(resumed.lsn), gap.reason);
        let finding = Finding {
            kind: FindingKind::CaptureGap,
            username: None,
            ip_address: None,
            user_agent: None,
            resource: &self.config.name,
            reason: &reason,
            at: None,
        };
        let mut out = Vec::new();
        finding.write(&mut out);
        out
    }

    /// Begins to replicate after the stored position, or where the slot begins.
    async fn pump(&self, stored: Option<Position>, ends: Ends) -> Result<Pump> {
        let (connection, state, gap) = self.begin(stored).await?;
        let slot_at = state.slot.as_ref().map_or(0, |slot| slot.confirmed);
        let beginning = Position::between(state.timeline, slot_at);
        let after = stored.filter(|_| gap.is_none()).unwrap_or(beginning);
        if stored.is_none() || gap.is_some() {
            let findings = gap.as_ref().map(|gap| self.gap_finding(gap, after)).unwrap_or_default();
            // The channel is empty and has room for one.
            let _ = ends.batches.try_send(Ok(Batch { findings, position: after.to_string(), ..Batch::default() }));
        }
        if let Some(gap) = gap {
            tracing::warn!(source = %self.config.name, reason = %gap.reason, "changes may be missing");
            self.shared.need(|need| need.gap = Some(gap));
        }
        self.shared.server_lsn.fetch_max(state.flushed, Ordering::Relaxed);
        let config = &self.config;
        Ok(Pump {
            source: config.name.clone(),
            timeline: state.timeline,
            known_applications: config.known_applications.clone(),
            limits: config.limits,
            gathers: !config.strict,
            idle: config.idle,
            heartbeat: config.heartbeat,
            connection,
            relations: Relations::new(config.columns.clone()),
            side: Side::new(self.server.clone()),
            announced: Vec::new(),
            activity: (config.sessions == SessionSource::Activity).then(|| Activity::start(self.server.clone())),
            quota: Quota::new(&config.name, config.findings_per_minute),
            out: ends.batches,
            confirmed: ends.confirmed,
            shared: self.shared.clone(),
            after,
        })
    }
}

#[async_trait]
impl Source for ReplicationSource {
    /// If changes after the position are lost, capture goes on where the slot begins: the first batch is a `CAPTURE_GAP` finding, and
    /// [`ReplicationSource::baseline_need`] says so. The first time, the first batch is empty and says where the slot begins.
    async fn start(&mut self, position: Option<&str>) -> Result<()> {
        self.running = None;
        let stored: Option<Position> = position.map(str::parse).transpose()?;
        let (batch_sender, batches) = mpsc::channel(1);
        let (confirmed, confirmed_receiver) = watch::channel(0);
        let (begun, beginning) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let connector = self.connector.clone();
        spawn_thread(stopped, async move {
            let ends = Ends { batches: batch_sender, confirmed: confirmed_receiver };
            let (pump, outcome) = match connector.pump(stored, ends).await {
                Ok(pump) => (Some(pump), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let wanted = begun.send(outcome).is_ok();
            if let Some(pump) = pump.filter(|_| wanted) {
                pump.run().await;
            }
        })?;
        beginning.await.unwrap_or_else(|_| Err(CaptureError::Malformed("the reading thread has ended".into())))?;
        self.running = Some(Running { batches, confirmed, _stop: stop });
        Ok(())
    }

    async fn next(&mut self) -> Result<Batch> {
        let not_running = || CaptureError::Refused("the source has not been started, or has failed".into());
        let running = self.running.as_mut().ok_or_else(not_running)?;
        match running.batches.recv().await {
            Some(batch) => batch,
            None => Err(not_running()),
        }
    }

    async fn confirm(&mut self, position: &str) -> Result<()> {
        let position: Position = position.parse()?;
        if let Some(running) = &self.running {
            running.confirmed.send_if_modified(|confirmed| {
                let later = position.lsn > *confirmed;
                *confirmed = position.lsn.max(*confirmed);
                later
            });
        }
        Ok(())
    }
}
