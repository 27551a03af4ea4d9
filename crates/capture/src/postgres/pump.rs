//! The task that reads the stream: events in, batches out. It runs ahead of whoever stores the batches by two of them at most; then it waits, and so does
//! the server. It has a thread of its own, on which it may sleep.

use crate::error::{CaptureError, Result};
use crate::postgres::activity::{Activity, Sighting};
use crate::postgres::pgoutput::{Begin, Commit, Message, Relation, decode};
use crate::postgres::position::Position;
use crate::postgres::relations::Relations;
use crate::postgres::replication::{Received, ReplicationConnection};
use crate::postgres::side::Side;
use crate::postgres::stream::{Limits, Shared};
use crate::postgres::transaction::{Lines, Scratch, Transaction};
use crate::postgres::unattributed::Quota;
use crate::source::Batch;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// PostgreSQL counts time from 2000-01-01: µs since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
/// How often an idle source looks whether it has been idle for long.
const IDLE_CHECK: Duration = Duration::from_millis(500);

/// How long the thread sleeps when it has read all that the server has, so that what comes meanwhile comes together. A busy server sends each transaction by
/// itself, and on a machine that both share, each wake-up takes the processor from those who commit: reading in strokes leaves them a tenth more of it.
const STROKE: Duration = Duration::from_millis(50);
/// The same after a stroke that brought more than [`BUSY`] records: what each batch costs by itself, whatever is in it, is then paid half as often.
const LONG_STROKE: Duration = Duration::from_millis(100);
const BUSY: usize = 256;
/// The same when the server has more to send, but is slower than we are.
const GATHER: Duration = Duration::from_millis(8);
/// The same through a Unix socket, which holds so little that the server soon waits for us: with 8 ms steady updates came at half the rate.
const GATHER_LOCALLY: Duration = Duration::from_micros(500);

/// Everything the task works with.
pub(super) struct Pump {
    pub source: String,
    pub timeline: u32,
    pub known_applications: Vec<String>,
    pub limits: Limits,
    /// Whether messages may wait for others.
    pub gathers: bool,
    /// How often an idle source's position moves.
    pub idle: Duration,
    pub heartbeat: Option<Duration>,
    pub connection: ReplicationConnection,
    pub relations: Relations,
    pub side: Side,
    /// Tables that the next change is about, or one of them.
    pub announced: Vec<Relation>,
    pub activity: Option<Activity>,
    pub quota: Quota,
    pub out: mpsc::Sender<Result<Batch>>,
    pub confirmed: watch::Receiver<u64>,
    pub shared: Arc<Shared>,
    /// Changes up to here have been handed out before.
    pub after: Position,
}

/// What changes from event to event.
struct State {
    transaction: Option<Transaction>,
    scratch: Scratch,
    lines: Lines,
    /// Position of everything handed out or in `lines`.
    position: Position,
    /// When `lines` got its first record.
    since: Option<Instant>,
    /// Position of the last batch handed out, and when.
    handed_out: Position,
    handed_out_at: Instant,
    /// Records of that batch.
    last_records: usize,
    /// When a transaction last ended, or a heartbeat was written.
    moved_at: Instant,
    /// Where the server is, as far as nothing of ours comes before.
    server_at: u64,
    /// The transaction holds a heartbeat.
    heartbeat: bool,
    /// Changes before which something may still be said, and where in the log they stand.
    held: Vec<Bytes>,
    held_at: u64,
    /// The server wants to know how far we are: it may be shutting down.
    asked: bool,
    /// The server has sent all it has: it says how far it is before it waits for more.
    all_sent: bool,
}

/// What the task wakes up for. `false`: the other side has gone.
enum Happened {
    Confirmed(bool),
    Received,
    Room(bool),
    Dry,
    Nothing,
}

/// What has been done since the last message to get the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dry {
    Nothing,
    /// The system was asked whether there is more.
    Asked,
    Slept,
}

impl Pump {
    /// Reads until the stream ends, the receiver of batches goes, or something fails, which is handed out as the last thing.
    pub async fn run(mut self) {
        if let Err(error) = self.pump().await {
            // Nobody may be there to hear it.
            let _ = self.out.send(Err(error)).await;
        }
    }

    async fn pump(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut state = State {
            transaction: None,
            scratch: Scratch::default(),
            lines: Lines::default(),
            position: self.after,
            since: None,
            handed_out: self.after,
            handed_out_at: now,
            last_records: 0,
            moved_at: now,
            server_at: 0,
            asked: false,
            all_sent: false,
            heartbeat: false,
            held: Vec::new(),
            held_at: 0,
        };
        let mut dry = Dry::Slept;
        loop {
            if state.lines.records >= self.limits.records || state.lines.changes.len() >= self.limits.bytes {
                self.hand_out(&mut state).await?;
            }
            if let Some(received) = self.connection.received()? {
                dry = Dry::Nothing;
                self.take(received, &mut state).await?;
                continue;
            }
            let now = Instant::now();
            if self.connection.report_due() <= now {
                self.connection.report().await?;
            }
            let due = state.since.map(|since| since + self.limits.delay);
            let overdue = due.is_some_and(|due| due <= now);
            if overdue && self.out.capacity() > 0 {
                self.hand_out(&mut state).await?;
                continue;
            }
            let wake = due.filter(|_| !overdue).unwrap_or_else(|| now + IDLE_CHECK).min(self.connection.report_due());
            // The timer comes last: while messages come, none is set.
            let happened = tokio::select! {
                biased;
                changed = self.confirmed.changed() => Happened::Confirmed(changed.is_ok()),
                received = self.connection.receive() => received.map(|()| Happened::Received)?,
                room = self.out.reserve(), if overdue => Happened::Room(room.is_ok()),
                () = std::future::ready(()), if self.gathers && dry != Dry::Slept => Happened::Dry,
                () = sleep_until(wake) => Happened::Nothing,
            };
            match happened {
                Happened::Confirmed(true) => self.confirm(),
                Happened::Received | Happened::Room(true) => {}
                Happened::Dry if dry == Dry::Nothing => {
                    dry = Dry::Asked;
                    tokio::task::yield_now().await;
                }
                Happened::Dry => {
                    dry = Dry::Slept;
                    if state.all_sent && state.lines.records > 0 && self.out.capacity() > 0 {
                        self.hand_out(&mut state).await?;
                    }
                    std::thread::sleep(match state.all_sent {
                        true if state.last_records > BUSY => LONG_STROKE,
                        true => STROKE,
                        false if self.connection.is_local() => GATHER_LOCALLY,
                        false => GATHER,
                    });
                }
                Happened::Nothing => self.idle(&mut state).await?,
                Happened::Confirmed(false) | Happened::Room(false) => return Ok(()),
            }
        }
    }

    fn confirm(&mut self) {
        self.connection.applied(*self.confirmed.borrow_and_update());
    }

    /// Hands out what there is, or just the position.
    async fn hand_out(&mut self, state: &mut State) -> Result<()> {
        // The next batch will be about as large.
        let next = Lines { changes: Vec::with_capacity(state.lines.changes.len()), ..Lines::default() };
        let Lines { changes, records, findings, ddl } = std::mem::replace(&mut state.lines, next);
        let is_awaited = std::mem::take(&mut state.heartbeat);
        let batch = Batch { changes, records, findings, ddl, is_awaited, position: state.position.to_string() };
        loop {
            tokio::select! {
                permit = self.out.reserve() => {
                    if let Ok(permit) = permit {
                        permit.send(Ok(batch));
                    }
                    break;
                }
                changed = self.confirmed.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.connection.applied(*self.confirmed.borrow_and_update());
                }
                () = sleep_until(self.connection.report_due()) => self.connection.report().await?,
            }
        }
        state.since = None;
        state.asked = false;
        state.handed_out = state.position;
        state.handed_out_at = Instant::now();
        state.last_records = records;
        Ok(())
    }

    async fn take(&mut self, received: Received, state: &mut State) -> Result<()> {
        state.all_sent = matches!(received, Received::KeepAlive { .. });
        let (at, reply_requested) = match received {
            Received::Message(lsn, message) => return self.take_message(lsn, message, state).await,
            Received::KeepAlive { wal_end, reply_requested } => (wal_end, reply_requested),
        };
        self.shared.seen(at);
        if reply_requested {
            self.connection.report().await?;
        }
        if state.transaction.is_none() {
            state.server_at = state.server_at.max(at);
            state.asked |= reply_requested;
            if state.asked {
                self.move_on(state).await?;
            }
        }
        Ok(())
    }

    fn begin(&self, begin: Begin, state: &mut State) {
        let Begin { commit_lsn, commit_time, xid } = begin;
        let skip = match self.after.ordinal {
            Some(ordinal) if commit_lsn == self.after.lsn => Some(ordinal),
            _ if commit_lsn < self.after.lsn => Some(u64::MAX),
            _ => None,
        };
        let time = commit_time.saturating_add(POSTGRES_EPOCH);
        state.transaction = Some(Transaction::new(&self.source, self.timeline, xid, commit_lsn, time, skip));
    }

    async fn commit(&mut self, commit: Commit, state: &mut State) -> Result<()> {
        let end = commit.end_lsn;
        state.moved_at = Instant::now();
        self.shared.committed(end, commit.commit_time.saturating_add(POSTGRES_EPOCH));
        let Some(mut transaction) = state.transaction.take() else { return Ok(()) };
        if end > state.position.lsn || state.position.ordinal.is_some() {
            transaction.finish(&mut self.quota, &self.known_applications, &mut state.lines);
            state.position = Position::between(self.timeline, end);
        }
        // Findings are stored under their batch's position, so that position must be that of the transaction they are about.
        // Somebody who wrote a heartbeat waits for the position to come past it.
        if !state.lines.findings.is_empty() || state.heartbeat {
            self.hand_out(state).await?;
        }
        Ok(())
    }

    /// Hands out a position that moved without changes.
    async fn move_on(&mut self, state: &mut State) -> Result<()> {
        if state.transaction.is_some() || state.lines.records > 0 {
            return Ok(());
        }
        if state.server_at > state.position.lsn {
            state.position = Position::between(self.timeline, state.server_at);
        }
        if state.position != state.handed_out {
            self.hand_out(state).await?;
        }
        Ok(())
    }

    async fn idle(&mut self, state: &mut State) -> Result<()> {
        if state.transaction.is_some() || state.lines.records > 0 {
            return Ok(());
        }
        if state.handed_out_at.elapsed() >= self.idle {
            self.move_on(state).await?;
        }
        if self.heartbeat.is_some_and(|every| state.moved_at.elapsed() >= every) {
            state.moved_at = Instant::now();
            if let Err(error) = self.side.heartbeat().await {
                tracing::warn!(source = %self.source, error = &error as &dyn std::error::Error, "no heartbeat could be written");
            }
        }
        Ok(())
    }

    fn said(&mut self, prefix: &str, content: &[u8], state: &mut State) {
        state.heartbeat |= prefix == "muniment.heartbeat";
        if !matches!(prefix, "muniment.context" | "muniment.session" | "muniment.ddl") {
            return;
        }
        let Some(transaction) = &mut state.transaction else { return };
        transaction.settle(&self.known_applications, &mut state.lines);
        match prefix {
            "muniment.context" => transaction.speaker.hear_context(content),
            "muniment.session" => transaction.speaker.hear_session(content),
            _ => {
                let rewritten = transaction.ddl(content, &self.known_applications, &mut state.lines);
                rewritten.into_iter().for_each(|table| self.shared.rewritten(table));
                self.written(state);
                return;
            }
        }
        transaction.speaker_changed();
        self.written(state);
    }

    /// Looks for the session behind the transaction, if it has named nobody and nobody has looked yet.
    async fn seek_session(&mut self, state: &mut State) {
        let Some(transaction) = &mut state.transaction else { return };
        let Some(activity) = &mut self.activity else { return };
        if transaction.session_sought || !transaction.speaker.wants_session() {
            return;
        }
        transaction.session_sought = true;
        match activity.identify(transaction.xid, transaction.commit_time).await {
            Sighting::Certain(session) => transaction.speaker.set_session(session),
            Sighting::Likely(session) => transaction.speaker.set_probable(session),
            Sighting::Unknown => {}
        }
        transaction.speaker_changed();
    }

    /// Takes a message, in the order of the log: what the application says stands under the end of its record, which is where the next one begins, so that the server may
    /// send it after a change of another subtransaction that begins there. Changes of one place wait until it is known that nothing is said before them.
    async fn take_message(&mut self, lsn: u64, data: Bytes, state: &mut State) -> Result<()> {
        let (is_change, is_said) = match data.first() {
            Some(b'I' | b'U' | b'D' | b'T') => (true, false),
            kind => (false, kind == Some(&b'M')),
        };
        if !state.held.is_empty() && (lsn != state.held_at || !(is_change || is_said)) {
            let (mut held, held_at) = (std::mem::take(&mut state.held), state.held_at);
            for data in held.drain(..) {
                self.message(held_at, &data, state).await?;
            }
            state.held = held;
        }
        if is_change {
            state.held_at = lsn;
            state.held.push(data);
            return Ok(());
        }
        self.message(lsn, &data, state).await
    }

    async fn message(&mut self, lsn: u64, data: &[u8], state: &mut State) -> Result<()> {
        match decode(data)? {
            Message::Begin(begin) => {
                self.begin(begin, state);
                return Ok(());
            }
            Message::Commit(commit) => return self.commit(commit, state).await,
            Message::Said(prefix, content) => {
                self.said(&prefix, content, state);
                return Ok(());
            }
            Message::Relation(relation) => {
                self.announced.push(relation);
                return Ok(());
            }
            Message::Type(oid, base) => {
                self.relations.note_type(oid, &base);
                return Ok(());
            }
            Message::Other => return Ok(()),
            change => {
                // Only the change that they are announced for says where it stands.
                for relation in std::mem::take(&mut self.announced) {
                    let (primary_key, masked) = self.side.columns(relation.oid, lsn).await?;
                    self.relations.note_table(relation, &primary_key, &masked);
                }
                self.seek_session(state).await;
                self.change(&change, state)?;
            }
        }
        self.written(state);
        Ok(())
    }

    fn change(&mut self, change: &Message<'_>, state: &mut State) -> Result<()> {
        let State { transaction, scratch, lines, .. } = state;
        let outside = || CaptureError::Malformed("a change outside of a transaction".into());
        let transaction = transaction.as_mut().ok_or_else(outside)?;
        let known = &self.known_applications;
        match change {
            Message::Insert(oid, new) => transaction.insert(self.relations.table(*oid)?, *new, known, scratch, lines),
            Message::Update(oid, old, new) => transaction.update(self.relations.table(*oid)?, *old, *new, known, scratch, lines),
            Message::Delete(oid, old) => transaction.delete(self.relations.table(*oid)?, *old, known, scratch, lines),
            Message::Truncate(truncate) => transaction.truncate(&self.relations, truncate, known, lines),
            _ => Ok(()),
        }
    }

    /// Moves the position to the last change written.
    fn written(&mut self, state: &mut State) {
        let Some(transaction) = &state.transaction else { return };
        let ordinal = transaction.last_ordinal();
        // Without one, the position would say that the whole transaction was handed out.
        if state.lines.records == 0 || ordinal.is_none() {
            return;
        }
        state.position = Position { timeline: self.timeline, lsn: transaction.commit_lsn, ordinal };
        state.since.get_or_insert_with(Instant::now);
    }
}
