//! Reads the queue, wave by wave.

use super::attach;
use super::baseline::{self, Chunk, Step};
use super::lines::{Lines, QueueRow};
use super::position::Position;
use super::shapes::{self, Shapes};
use crate::error::{CaptureError, Result};
use crate::finding::{Finding, FindingKind};
use crate::postgres::{BaselineProgress, Server};
use crate::queue::polling::{Polled, Queue};
use crate::source::Batch;
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Rows asked for at once.
const FETCH: usize = 200;
/// Bytes of rows after which a batch is full.
const BATCH_BYTES: usize = 8 << 20;
/// Bytes of rows after which a batch ends even within a run of changes of keys.
const RUN_BYTES: usize = 64 << 20;
/// How often is looked whether the triggers are all there.
const HEALTH: Duration = Duration::from_secs(30);
/// How often is looked whether a table's rows are to be read.
const BASELINE: Duration = Duration::from_secs(1);
/// Pause after that failed.
const BASELINE_PAUSE: Duration = Duration::from_secs(5);
/// How often is looked whether a half of the queue can be emptied.
const CLEAR: Duration = Duration::from_secs(1);
/// Bytes of a half from which on that is worth it; a smaller one is emptied once in a while.
const WORTH_CLEARING: i64 = 256 << 10;
/// Looks after which a small half is emptied, too.
const LOOKS: u32 = 60;
/// Session lock of the one reader.
const READER_LOCK: i64 = 0x6d75_6e69_6d65_6e74;
/// Least time from the beginning of a wave to that of the next: each costs the audited server two small transactions and a plan.
const WAVE: Duration = Duration::from_millis(50);

/// Settings of the reader's sessions. The halves of the queue have no statistics, and most of a half has been read before: to look through it from its beginning
/// would cost more the fuller it is. The costs that PostgreSQL then reckons with would make it compile each plan.
const SETTINGS: &str = "SET enable_seqscan = off; SET jit = off";

/// How a queue is read.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// Name of the source.
    pub name: String,
    /// Most queue rows in a batch.
    pub batch: usize,
    /// Pause after an unsuccessful look, at first; it doubles up to 50 ms.
    pub poll: Duration,
    /// Attempts to record a row before it becomes a dead letter.
    pub attempts: i32,
    /// Values of `application_name` whose writes without context are no findings.
    pub known_applications: Vec<String>,
}

impl QueueOptions {
    /// Defaults for a source of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), batch: 1000, poll: Duration::from_millis(10), attempts: 5, known_applications: Vec::new() }
    }
}

/// `muniment.sys_audit_queue` of a PostgreSQL database as a source.
pub type QueueSource = Polled<QueueReader>;

/// Reads `muniment.sys_audit_queue` of a PostgreSQL database.
pub struct QueueReader {
    server: Server,
    options: QueueOptions,
    control: Option<PgConnection>,
    /// Connection with an open cursor over the rows of the wave at hand.
    cursor: Option<PgConnection>,
    /// The same connection between two waves.
    between: Option<PgConnection>,
    /// When the wave at hand was begun.
    begun: Option<Instant>,
    /// Wave up to which everything is stored, if the database hasn't been told yet.
    stored: Option<i64>,
    position: Position,
    /// Transaction of the last row handed out, if its wave isn't complete.
    transaction: Option<String>,
    rows: VecDeque<QueueRow>,
    exhausted: bool,
    shapes: Option<Shapes>,
    looked: Option<Instant>,
    cleared: Option<Instant>,
    looks: u32,
    bypassed: Vec<u8>,
    gap: Option<String>,
    /// How far the newest baseline is.
    progress: Option<BaselineProgress>,
    /// Whether that is stored.
    progress_stored: bool,
    /// What comes after the wave at hand.
    chunk: Option<Box<Chunk>>,
    /// When it is looked again for tables whose rows are to be read.
    baseline_at: Option<Instant>,
}

/// A session for questions to the queue.
pub(super) async fn connect(server: &Server) -> Result<PgConnection> {
    let mut connection = server.connect().await?;
    sqlx::raw_sql(SETTINGS).execute(&mut connection).await.map_err(CaptureError::database("setting up a session"))?;
    Ok(connection)
}

impl QueueSource {
    /// A source; it connects when it is started.
    ///
    /// # Errors
    /// If the URL is none.
    pub fn new(url: &str, options: QueueOptions) -> Result<Self> {
        Ok(Self::of(QueueReader::new(Server::parse(url)?, options)))
    }
}

impl QueueReader {
    fn new(server: Server, options: QueueOptions) -> Self {
        Self {
            server,
            options,
            control: None,
            cursor: None,
            between: None,
            begun: None,
            stored: None,
            position: Position::default(),
            transaction: None,
            rows: VecDeque::new(),
            exhausted: false,
            shapes: None,
            looked: None,
            cleared: None,
            looks: 0,
            bypassed: Vec::new(),
            gap: None,
            progress: None,
            progress_stored: false,
            chunk: None,
            baseline_at: None,
        }
    }

    /// The connection beside the cursor. It is taken out while it is used, so that one whose use failed is not used again.
    async fn control(&mut self) -> Result<PgConnection> {
        if let Some(connection) = self.control.take() {
            return Ok(connection);
        }
        let mut connection = connect(&self.server).await?;
        let doing = || CaptureError::database("taking the lock of the queue's reader");
        for _ in 0..50 {
            let lock = sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1)").bind(READER_LOCK);
            if lock.fetch_one(&mut connection).await.map_err(doing())? {
                return Ok(connection);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(CaptureError::Refused("somebody else reads this queue".into()))
    }

    /// Makes sure that the waves of the position are there.
    async fn locate(&mut self, connection: &mut PgConnection) -> Result<()> {
        let doing = || CaptureError::database("looking for the position");
        let query = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM muniment.queue_wave WHERE number IN ($1, $2)");
        let (complete, current) = (self.position.complete_wave(), self.position.wave);
        let found = query.bind(complete).bind(current).fetch_one(&mut *connection).await.map_err(doing())?;
        if found == if complete == current { 1 } else { 2 } {
            return Ok(());
        }
        let wave =
            sqlx::query_scalar::<_, i64>("SELECT wave FROM muniment.queue_state").fetch_one(&mut *connection).await.map_err(doing())?;
        self.gap = Some(format!(
            "the queue knows nothing of position {}: it was restored or attached again; reading goes on at {wave}",
            self.position
        ));
        self.position = Position { wave, within: None };
        self.progress = None;
        if baseline::is_known(connection).await? {
            baseline::again(connection).await?;
        }
        Ok(())
    }

    async fn open(&mut self, upto: i64) -> Result<()> {
        let doing = || CaptureError::database("opening a wave of the queue");
        let mut connection = match self.between.take() {
            Some(connection) => connection,
            None => connect(&self.server).await?,
        };
        let mut snapshots = Vec::new();
        for number in [upto - 1, upto] {
            let query = sqlx::query_scalar::<_, String>("SELECT upto::text FROM muniment.queue_wave WHERE number = $1").bind(number);
            snapshots.push(query.fetch_one(&mut connection).await.map_err(doing())?);
        }
        if self.shapes.is_none() {
            self.shapes = Some(shapes::load(&mut connection).await?);
        }
        let (last, id) = self.position.within.unwrap_or((0, 0));
        sqlx::raw_sql("BEGIN").execute(&mut connection).await.map_err(doing())?;
        let declare = sqlx::query(include_str!("sql/declare_wave.sql")).persistent(false);
        declare.bind(&snapshots[0]).bind(&snapshots[1]).bind(last).bind(id).execute(&mut connection).await.map_err(doing())?;
        self.cursor = Some(connection);
        (self.exhausted, self.position.wave) = (false, upto);
        self.position.within = Some((last, id));
        self.rows.clear();
        Ok(())
    }

    /// Gets further rows of the wave.
    async fn fetch(&mut self) -> Result<()> {
        let Some(mut connection) = self.cursor.take() else { return Ok(()) };
        let doing = || CaptureError::database("reading the queue");
        let text = format!("FETCH {FETCH} FROM muniment_wave");
        let rows = sqlx::query(AssertSqlSafe(text)).persistent(false).fetch_all(&mut connection).await.map_err(doing())?;
        self.exhausted = rows.len() < FETCH;
        for row in rows {
            let row = QueueRow::read(&row).map_err(doing())?;
            let before = self.rows.back().map(|row| (row.last_id, row.id)).or(self.position.within).unwrap_or_default();
            if (row.last_id, row.id) <= before {
                return Err(CaptureError::Malformed(format!("the queue gave row {} after row {}", row.id, before.1)));
            }
            self.rows.push_back(row);
        }
        if self.exhausted {
            // The wave's transaction holds a snapshot and locks, which are in the way of emptying the queue.
            sqlx::raw_sql("COMMIT").execute(&mut connection).await.map_err(doing())?;
            self.between = Some(connection);
        } else {
            self.cursor = Some(connection);
        }
        Ok(())
    }

    /// The next batch of the open wave.
    async fn batch(&mut self) -> Result<Batch> {
        let mut bytes: usize = self.rows.iter().map(QueueRow::size).sum();
        while self.rows.len() <= self.options.batch && !self.exhausted && bytes < BATCH_BYTES {
            self.fetch().await?;
            bytes = self.rows.iter().map(QueueRow::size).sum();
        }
        if self.rows.iter().any(|row| row.operation == "DDL") || self.rows.iter().any(|row| !self.knows(&row.table)) {
            let mut control = self.control().await?;
            self.shapes = Some(shapes::load(&mut control).await?);
            self.control = Some(control);
        }
        let shapes = self.shapes.take().unwrap_or_default();
        let options = self.options.clone();
        let mut lines = Lines::new(&options.name, &options.known_applications, &shapes, self.transaction.clone());
        let (mut taken, mut failed) = (0, None);
        loop {
            if taken == self.rows.len() && !self.exhausted && lines.is_in_run() {
                self.fetch().await?;
            }
            let Some(row) = self.rows.get(taken) else { break };
            let full = taken >= options.batch || (taken > 0 && lines.bytes() >= BATCH_BYTES);
            if full && (!lines.continues(row) || lines.bytes() >= RUN_BYTES) {
                break;
            }
            if let Err(error) = lines.add(row) {
                failed = Some((row.id, error));
                break;
            }
            taken += 1;
        }
        if let (0, Some((id, error))) = (taken, failed) {
            self.rows.clear();
            (self.cursor, self.exhausted, self.shapes) = (None, false, Some(shapes));
            return Err(self.fail(id, error).await?);
        }
        let mut batch = lines.finish();
        self.shapes = Some(shapes);
        let rows: Vec<QueueRow> = self.rows.drain(..taken).collect();
        if let Some(last) = rows.last() {
            self.position.within = Some((last.last_id, last.id));
            self.transaction = Some(last.transaction.clone());
        }
        if self.rows.is_empty() && self.exhausted {
            self.position.within = None;
            self.transaction = None;
        }
        batch.position = self.stamped();
        Ok(batch)
    }

    /// The position, with how far the newest baseline is.
    fn stamped(&self) -> String {
        match &self.progress {
            Some(progress) => format!("{} {progress}", self.position),
            None => self.position.to_string(),
        }
    }

    /// Begins a wave with rows of a baseline behind it, if one is due.
    async fn read_chunk(&mut self) -> Result<()> {
        if self.baseline_at.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        let mut control = self.control().await?;
        if !baseline::is_known(&mut control).await? {
            (self.control, self.baseline_at) = (Some(control), Some(Instant::now() + HEALTH));
            return Ok(());
        }
        if let Some(ended) = self.progress.take_if(|progress| progress.is_end() && self.progress_stored) {
            baseline::done(&mut control, ended.relation, ended.baseline).await?;
        } else if self.progress.as_ref().is_some_and(BaselineProgress::is_end) {
            self.control = Some(control);
            return Ok(());
        }
        match baseline::step(&mut control, &self.options.name, self.position.wave, self.progress.as_ref()).await {
            Ok(Step::Nothing) => {
                self.progress = None;
                self.baseline_at = Some(Instant::now() + BASELINE);
            }
            Ok(Step::WaveFirst) => {}
            Ok(Step::Chunk(chunk, shapes)) => {
                (self.chunk, self.shapes) = (Some(chunk), Some(shapes));
                self.control = Some(control);
                return self.open(self.position.wave + 1).await;
            }
            Err(error) => {
                let source = &self.options.name;
                tracing::warn!(source, error = &error as &dyn std::error::Error, "a baseline could not be read; it is tried again");
                self.baseline_at = Some(Instant::now() + BASELINE_PAUSE);
                // The session has a transaction that failed.
                return Ok(());
            }
        }
        self.control = Some(control);
        Ok(())
    }

    /// The rows of the baseline that were read with the wave that is over now.
    fn chunk(&mut self, chunk: Chunk) -> Batch {
        let shapes = self.shapes.take().unwrap_or_default();
        let options = self.options.clone();
        let mut lines = Lines::new(&options.name, &options.known_applications, &shapes, None);
        lines.add_chunk(&chunk);
        let mut batch = lines.finish();
        self.shapes = Some(shapes);
        (self.progress, self.progress_stored) = (Some(chunk.progress), false);
        batch.is_awaited = true;
        batch.position = self.stamped();
        batch
    }

    fn knows(&self, table: &str) -> bool {
        self.shapes.as_ref().is_some_and(|shapes| shapes.knows(table))
    }

    /// Notes that a row could not be recorded; after enough attempts it becomes a dead letter, and the rest goes on.
    async fn fail(&mut self, id: i64, error: CaptureError) -> Result<CaptureError> {
        let doing = || CaptureError::database("noting a failure");
        let mut control = self.control().await?;
        let query = sqlx::query_scalar::<_, i32>(include_str!("sql/fail_row.sql")).bind(id).bind(error.to_string());
        let attempts = query.fetch_one(&mut control).await.map_err(doing())?;
        if attempts >= self.options.attempts {
            sqlx::query(include_str!("sql/bury_row.sql")).bind(id).execute(&mut control).await.map_err(doing())?;
        }
        self.control = Some(control);
        Ok(CaptureError::Malformed(format!("row {id} of the queue, attempt {attempts} of {}: {error}", self.options.attempts)))
    }

    /// Begins the next wave, if there is anything new.
    async fn advance(&mut self) -> Result<bool> {
        let doing = || CaptureError::database("looking for new changes");
        let mut control = self.control().await?;
        let number = self.position.wave;
        let exists = sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT FROM muniment.queue_wave WHERE number = $1)");
        let begun =
            sqlx::query(include_str!("sql/next_wave.sql")).bind(number).execute(&mut control).await.map_err(doing())?.rows_affected() > 0;
        // One that was begun before a crash is read first.
        let begun = begun || exists.bind(number + 1).fetch_one(&mut control).await.map_err(doing())?;
        self.control = Some(control);
        if begun {
            self.begun = Some(Instant::now());
            self.open(number + 1).await?;
        }
        Ok(begun)
    }

    /// Tells the database up to where everything is stored, and empties what is: no more often than it is worth.
    async fn settle(&mut self) -> Result<()> {
        if self.cleared.is_some_and(|cleared| cleared.elapsed() < CLEAR) {
            return Ok(());
        }
        let Some(wave) = self.stored else { return Ok(()) };
        let mut control = self.control().await?;
        let doing = CaptureError::database("confirming");
        sqlx::query(include_str!("sql/confirm.sql")).bind(wave).execute(&mut control).await.map_err(doing)?;
        // While a wave is read, its transaction is in the way of emptying the queue.
        if self.position.within.is_none() {
            self.looks = self.looks.wrapping_add(1);
            self.clear(&mut control).await?;
            self.stored = None;
        }
        self.cleared = Some(Instant::now());
        self.control = Some(control);
        Ok(())
    }

    /// Looks whether the triggers are all there, and takes in new tables. A change of what was found is a batch of its own.
    async fn health(&mut self) -> Result<Option<Batch>> {
        let doing = || CaptureError::database("looking at the triggers");
        let mut control = self.control().await?;
        let ending = sqlx::query_scalar::<_, bool>("SELECT to_regclass('muniment.queue_ending') IS NOT NULL");
        if ending.fetch_one(&mut control).await.map_err(doing())? {
            (self.control, self.looked) = (Some(control), Some(Instant::now()));
            return Ok(None);
        }
        let mut findings = Vec::new();
        let (functions, bodies) = attach::trigger_functions();
        for row in sqlx::query(include_str!("sql/select_bypassed.sql"))
            .bind(functions)
            .bind(bodies)
            .fetch_all(&mut control)
            .await
            .map_err(doing())?
        {
            let (resource, reason): (String, String) = (row.try_get("resource").map_err(doing())?, row.try_get("reason").map_err(doing())?);
            let kind = FindingKind::CaptureBypassed;
            Finding { kind, username: None, ip_address: None, user_agent: None, resource: &resource, reason: &reason, at: None }
                .write(&mut findings);
        }
        if let Err(error) = sqlx::raw_sql("SELECT muniment.queue_refresh()").execute(&mut control).await {
            tracing::warn!(source = self.options.name, error = &error as &dyn std::error::Error, "new tables could not be taken in");
        }
        self.control = Some(control);
        self.looked = Some(Instant::now());
        // Columns may have changed where no event trigger tells.
        self.shapes = None;
        if findings == self.bypassed {
            return Ok(None);
        }
        self.bypassed = findings.clone();
        Ok((!findings.is_empty()).then(|| self.finding_batch(findings)))
    }

    /// Findings that belong to no change: the position tells them apart from other batches at the same place.
    fn finding_batch(&self, findings: Vec<u8>) -> Batch {
        let position = format!("{}#{}", self.stamped(), hex::encode(&Sha256::digest(&findings)[..6]));
        Batch { findings, position, ..Batch::default() }
    }

    /// Empties what is stored. The half that is written to is only tried when there is nothing to do.
    async fn clear(&self, control: &mut PgConnection) -> Result<()> {
        let doing = || CaptureError::database("emptying the queue");
        let sizes = "SELECT pg_relation_size('muniment.sys_audit_queue_0'), pg_relation_size('muniment.sys_audit_queue_1')";
        let row = sqlx::query(sizes).fetch_one(&mut *control).await.map_err(doing())?;
        for (half, text) in
            [(0, include_str!("sql/clear.sql").replace("{half}", "0")), (1, include_str!("sql/clear.sql").replace("{half}", "1"))]
        {
            let bytes: i64 = row.try_get(half).map_err(doing())?;
            if bytes >= WORTH_CLEARING || (bytes > 0 && self.looks.is_multiple_of(LOOKS)) {
                sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *control).await.map_err(doing())?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Queue for QueueReader {
    fn poll(&self) -> Duration {
        self.options.poll
    }

    async fn begin(&mut self, position: Option<&str>) -> Result<()> {
        self.position = position.map(Position::parse).transpose()?.unwrap_or_default();
        (self.progress, self.progress_stored) = (position.map(progress).transpose()?.flatten(), true);
        (self.chunk, self.baseline_at) = (None, None);
        (self.cursor, self.between, self.control, self.stored) = (None, None, None, None);
        (self.shapes, self.looked, self.transaction) = (None, None, None);
        self.rows.clear();
        self.exhausted = false;
        let mut control = self.control().await?;
        self.locate(&mut control).await?;
        self.control = Some(control);
        Ok(())
    }

    async fn look(&mut self) -> Result<Option<Batch>> {
        if let Some(gap) = self.gap.take() {
            let mut findings = Vec::new();
            let (kind, resource) = (FindingKind::CaptureGap, self.options.name.as_str());
            Finding { kind, username: None, ip_address: None, user_agent: None, resource, reason: &gap, at: None }.write(&mut findings);
            return Ok(Some(self.finding_batch(findings)));
        }
        if self.position.within.is_none()
            && let Some(chunk) = self.chunk.take()
        {
            return Ok(Some(self.chunk(*chunk)));
        }
        if self.position.within.is_none() {
            if self.looked.is_none_or(|looked| looked.elapsed() >= HEALTH)
                && let Some(batch) = self.health().await?
            {
                return Ok(Some(batch));
            }
            self.settle().await?;
            if let Some(early) = self.begun.and_then(|begun| WAVE.checked_sub(begun.elapsed())) {
                tokio::time::sleep(early).await;
            }
            self.read_chunk().await?;
            if self.position.within.is_none() && !self.advance().await? {
                return Ok(None);
            }
        }
        if self.cursor.is_none() && !self.exhausted {
            self.open(self.position.wave).await?;
        }
        self.batch().await.map(Some)
    }

    fn stored(&mut self, position: &str) -> Result<()> {
        self.stored = Some(Position::parse(position)?.complete_wave());
        self.progress_stored |= self.progress.is_some() && progress(position)? == self.progress;
        Ok(())
    }
}

/// How far a baseline is, which stands behind a space in a position.
fn progress(position: &str) -> Result<Option<BaselineProgress>> {
    let text = position.split('#').next().unwrap_or_default();
    text.split_once(' ').map(|(_, progress)| progress.parse()).transpose()
}

/// A change that could not be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Number of the row in the queue.
    pub id: i64,
    /// The table.
    pub table: String,
    /// What happened to the row.
    pub operation: String,
    /// When, µs UTC.
    pub queued_at: i64,
    /// Attempts to record it.
    pub attempts: i32,
    /// Why that failed.
    pub last_error: String,
}

/// The dead letters of a queue, oldest first, at most 1,000.
///
/// # Errors
/// If the database can't be asked.
pub async fn dead_letters(url: &str) -> Result<Vec<DeadLetter>> {
    let doing = || CaptureError::database("reading dead letters");
    let mut connection = Server::parse(url)?.connect().await?;
    let rows = sqlx::query(include_str!("sql/select_dead.sql")).fetch_all(&mut connection).await.map_err(doing())?;
    let _ = connection.close().await;
    rows.into_iter()
        .map(|row| {
            Ok(DeadLetter {
                id: row.try_get("id")?,
                table: row.try_get("table_name")?,
                operation: row.try_get("operation")?,
                queued_at: row.try_get("queued_at")?,
                attempts: row.try_get("attempts")?,
                last_error: row.try_get("last_error")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(doing())
}
