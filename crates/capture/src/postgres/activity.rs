//! Who made a transaction that didn't say: a look at `pg_stat_activity`.
//!
//! What can be known, and how surely:
//!
//! * A transaction that was seen while it ran is known by its transaction number: certain. Sessions are looked at every 50 ms while transactions come that
//!   don't say who made them, every second otherwise, so this finds transactions that last.
//! * A shorter one is found by its commit time, in the first look after it: by a session whose last statement was running at that time and doesn't begin like
//!   one that only reads. If no session of another user, application or address can have committed at that time, it is named. This finds somebody typing
//!   in `psql`, who stays connected, on a quiet database. It is wrong only if somebody connects, writes and leaves between two looks, during the last
//!   statement of the one session that is there.
//! * If others can have done it, the change is nobody's, and the finding says who it probably was.
//! * Everything else stays unknown: the transactions of a busy application, since a session's last statement is soon another one, and sessions that are
//!   gone by the next look.
//!
//! Certainty for every transaction takes a context from the application, or the statement trigger (`muniment.session`). Others' sessions are only visible to
//! a role with the privileges of `pg_monitor` or `pg_read_all_stats`; to another one, all silent transactions are nobody's.

use crate::error::{CaptureError, Result};
use crate::postgres::attribution::Session;
use crate::postgres::connection::Server;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const BUSY: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_secs(1);
/// Least time between two looks.
const SPACING: Duration = Duration::from_millis(20);
/// How long a question is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long looks stay frequent after a question.
const BUSY_FOR: Duration = Duration::from_secs(2);
/// Looks that are kept.
const LOOKS: usize = 8;
/// How long after its commit a transaction can still be seen, waiting for a synchronous standby, in µs.
const AFTER_COMMIT: i64 = 60_000_000;
/// Transactions that are remembered.
const TRANSACTIONS: usize = 4096;

/// What looking at sessions tells of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// This session made it.
    Certain(Session),
    /// This session may have made it, and others as well.
    Likely(Session),
    /// Nobody knows.
    Unknown,
}

/// A session at the time of a look. Times are µs UTC of the server's clock.
#[derive(Clone, Debug)]
struct Row {
    session: Session,
    xid: Option<i64>,
    idle: bool,
    reads: bool,
    backend_start: Option<i64>,
    xact_start: Option<i64>,
    query_start: Option<i64>,
    state_change: Option<i64>,
}

impl Row {
    /// Whether its last statement, by now ended, was running at that time and may have been a commit.
    fn seems_to_commit(&self, time: i64) -> bool {
        self.idle && !self.reads && self.query_start.is_some_and(|start| start <= time) && self.state_change.is_some_and(|end| time <= end)
    }

    /// Whether it can have committed anything at that time.
    fn can_commit(&self, time: i64) -> bool {
        let came_later = self.backend_start.is_some_and(|start| start > time);
        let within_another = self.xact_start.is_some_and(|start| start <= time);
        let ended_before = self.idle && self.state_change.is_some_and(|end| end < time);
        !came_later && !within_another && !ended_before
    }
}

#[derive(Clone, Debug)]
struct Look {
    taken: i64,
    rows: Vec<Row>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    looks: VecDeque<Arc<Look>>,
    /// Sessions by transaction number, and when they were last seen in it.
    transactions: Arc<HashMap<u32, (Session, i64)>>,
    reachable: bool,
}

impl Seen {
    fn add(&mut self, look: Look) {
        let transactions = Arc::make_mut(&mut self.transactions);
        for row in &look.rows {
            if let Some(xid) = row.xid.and_then(|xid| u32::try_from(xid).ok()) {
                transactions.insert(xid, (row.session.clone(), look.taken));
            }
        }
        if transactions.len() > TRANSACTIONS {
            let mut times: Vec<i64> = transactions.values().map(|(_, seen)| *seen).collect();
            times.sort_unstable();
            let oldest = times[times.len() - TRANSACTIONS / 2];
            transactions.retain(|_, (_, seen)| *seen >= oldest);
        }
        self.looks.push_back(Arc::new(look));
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
    }

    /// Who made a transaction; `None` if the next look may tell.
    fn identify(&self, xid: u32, commit_time: i64) -> Option<Sighting> {
        if let Some((session, _)) = self.transactions.get(&xid).filter(|(_, seen)| *seen <= commit_time + AFTER_COMMIT) {
            return Some(Sighting::Certain(session.clone()));
        }
        let look = self.looks.iter().find(|look| look.taken >= commit_time)?;
        let mut seeming = look.rows.iter().filter(|row| row.seems_to_commit(commit_time)).map(|row| &row.session);
        let Some(session) = seeming.next() else { return Some(Sighting::Unknown) };
        if seeming.any(|other| other != session) {
            return Some(Sighting::Unknown);
        }
        let others = look.rows.iter().any(|row| row.session != *session && row.can_commit(commit_time));
        Some(if others { Sighting::Likely(session.clone()) } else { Sighting::Certain(session.clone()) })
    }
}

/// Looks at sessions in the background, as long as it lives.
pub(super) struct Activity {
    seen: watch::Receiver<Seen>,
    wanted: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Activity {
    pub fn start(server: Server) -> Self {
        let (sender, seen) = watch::channel(Seen { reachable: true, ..Seen::default() });
        let wanted = Arc::new(Notify::new());
        let task = tokio::spawn(watch_sessions(server, sender, wanted.clone()));
        Self { seen, wanted, task }
    }

    /// Who made a transaction. Waits at most a second for the next look.
    pub async fn identify(&mut self, xid: u32, commit_time: i64) -> Sighting {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = {
                let seen = self.seen.borrow_and_update();
                if seen.reachable { seen.identify(xid, commit_time) } else { Some(Sighting::Unknown) }
            };
            if let Some(sighting) = answer {
                return sighting;
            }
            self.wanted.notify_one();
            let left = deadline.saturating_duration_since(Instant::now());
            if !matches!(timeout(left, self.seen.changed()).await, Ok(Ok(()))) {
                return Sighting::Unknown;
            }
        }
    }
}

async fn watch_sessions(server: Server, seen: watch::Sender<Seen>, wanted: Arc<Notify>) {
    loop {
        if let Err(error) = look_repeatedly(&server, &seen, &wanted).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "sessions of the source can't be watched");
        }
        seen.send_modify(|seen| seen.reachable = false);
        sleep(IDLE).await;
    }
}

async fn look_repeatedly(server: &Server, seen: &watch::Sender<Seen>, wanted: &Notify) -> Result<()> {
    let mut connection = server.connect().await?;
    let mut busy_until = Instant::now();
    loop {
        let looked = Instant::now();
        let look = look(&mut connection).await?;
        seen.send_modify(|seen| {
            seen.reachable = true;
            if let Some(look) = look {
                seen.add(look);
            }
        });
        let pause = if looked < busy_until { BUSY } else { IDLE };
        if timeout(pause, wanted.notified()).await.is_ok() {
            busy_until = Instant::now() + BUSY_FOR;
            sleep(SPACING.saturating_sub(looked.elapsed())).await;
        }
    }
}

async fn look(connection: &mut PgConnection) -> Result<Option<Look>> {
    let query = sqlx::query(include_str!("sql/activity.sql")).fetch_all(connection);
    let rows = query.await.map_err(CaptureError::database("looking at sessions"))?;
    let failed = CaptureError::database("reading what sessions do");
    read(&rows).map_err(failed)
}

fn read(rows: &[PgRow]) -> std::result::Result<Option<Look>, sqlx::Error> {
    let Some(first) = rows.first() else { return Ok(None) };
    let mut sessions = Vec::with_capacity(rows.len());
    for row in rows {
        let session =
            Session { user: row.try_get("user_name")?, application: row.try_get("application")?, address: row.try_get("address")? };
        // To a role without the privilege, the rest of a row is null.
        sessions.push(Row {
            session,
            xid: row.try_get("xid")?,
            idle: row.try_get::<Option<bool>, _>("idle")?.unwrap_or(false),
            reads: row.try_get::<Option<bool>, _>("reads")?.unwrap_or(false),
            backend_start: row.try_get("backend_start")?,
            xact_start: row.try_get("xact_start")?,
            query_start: row.try_get("query_start")?,
            state_change: row.try_get("state_change")?,
        });
    }
    sessions.retain(|row| row.session.user.is_some());
    Ok(Some(Look { taken: first.try_get("taken")?, rows: sessions }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(user: &str) -> Session {
        Session { user: Some(user.into()), application: Some("psql".into()), address: None }
    }

    /// A session whose last statement was a write that ran from `start` to `end`.
    fn wrote(user: &str, start: i64, end: i64) -> Row {
        Row {
            session: session(user),
            xid: None,
            idle: true,
            reads: false,
            backend_start: Some(0),
            xact_start: None,
            query_start: Some(start),
            state_change: Some(end),
        }
    }

    fn check(rows: &[Row], expected: Option<Sighting>) {
        let mut seen = Seen::default();
        seen.add(Look { taken: 1000, rows: rows.to_vec() });
        assert_eq!(seen.identify(7, 550), expected, "{rows:?}");
    }

    #[test]
    fn sightings() {
        let certain = |user| Some(Sighting::Certain(session(user)));
        let dba = wrote("dba", 500, 600);
        check(std::slice::from_ref(&dba), certain("dba"));
        check(&[wrote("dba", 560, 600)], Some(Sighting::Unknown));
        check(&[Row { reads: true, ..dba.clone() }], Some(Sighting::Unknown));
        // Seen while it ran.
        check(&[Row { xid: Some(7), idle: false, ..wrote("app", 1, 1) }, dba.clone()], certain("app"));
        // Others that can't have done it: ended before, came later, still in a transaction that began before.
        check(&[dba.clone(), wrote("app", 100, 200)], certain("dba"));
        check(&[dba.clone(), Row { backend_start: Some(551), ..wrote("app", 700, 800) }], certain("dba"));
        check(&[dba.clone(), Row { idle: false, xact_start: Some(540), ..wrote("app", 700, 800) }], certain("dba"));
        // Others that can.
        check(&[dba.clone(), wrote("app", 700, 800)], Some(Sighting::Likely(session("dba"))));
        check(&[dba.clone(), Row { idle: false, xact_start: Some(700), ..wrote("app", 700, 700) }], Some(Sighting::Likely(session("dba"))));
        check(&[dba.clone(), Row { reads: true, ..wrote("app", 500, 600) }], Some(Sighting::Likely(session("dba"))));
        check(&[dba.clone(), wrote("app", 540, 560)], Some(Sighting::Unknown));
        // Several sessions of one user are the same to us.
        check(&[dba.clone(), wrote("dba", 540, 560), wrote("dba", 700, 800)], certain("dba"));
        // The next look may tell.
        let mut early = Seen::default();
        early.add(Look { taken: 549, rows: vec![dba] });
        assert_eq!(early.identify(7, 550), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        for taken in 0..100 {
            let rows = (0..100).map(|xid| Row { xid: Some(taken * 100 + xid), ..wrote("a", taken, taken) }).collect();
            seen.add(Look { taken, rows });
        }
        assert!(seen.looks.len() <= LOOKS && seen.transactions.len() <= TRANSACTIONS);
        assert_eq!(seen.identify(9_999, 99), Some(Sighting::Certain(session("a"))));
    }
}
