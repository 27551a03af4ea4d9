//! Whether the server still has everything that comes after the stored position, and if not, why: a slot that was dropped, lost its WAL or was read by
//! somebody else, a failover or a restored backup.

use crate::error::{CaptureError, Result};
use crate::postgres::position::{Position, lsn_text, parse_lsn};
use crate::postgres::replication::{ReplicationConnection, Row};

/// Changes after a stored position that can't be had any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What happened, in plain words.
    pub reason: String,
    /// The last position that was stored; `None` if capture had not begun.
    pub after: Option<Position>,
}

/// A replication slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub plugin: String,
    pub database: String,
    /// Changes of transactions committed before are not sent any more.
    pub confirmed: u64,
    /// Whether WAL that it needs has been removed.
    pub lost: bool,
}

/// A server, as it presents itself on the replication connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerState {
    pub system_id: String,
    pub database: String,
    pub timeline: u32,
    /// How far its WAL is on disk.
    pub flushed: u64,
    /// Earlier timelines, and the LSN at which each ended.
    pub history: Vec<(u32, u64)>,
    pub slot: Option<Slot>,
}

impl ServerState {
    /// Asks the server on a connection that has not begun to replicate. `slot` must be a valid name of a slot.
    pub async fn read(connection: &mut ReplicationConnection, slot: &str) -> Result<Self> {
        let system = connection.ask("IDENTIFY_SYSTEM").await?;
        let system: Vec<String> = system.first().into_iter().flatten().map(text).collect();
        let [system_id, timeline, flushed, database] = &system[..] else {
            return Err(CaptureError::Malformed("the server doesn't say which it is".into()));
        };
        let timeline = timeline.parse().map_err(|_| CaptureError::Malformed(format!("{timeline:?} is no timeline")))?;
        let history = match timeline {
            0 | 1 => Vec::new(),
            _ => parse_history(&column(&connection.ask(&format!("TIMELINE_HISTORY {timeline}")).await?, 1)),
        };
        // Such a database holds any bytes, which the server would refuse to send as UTF-8.
        if column(&connection.ask("SHOW server_encoding").await?, 0) == "SQL_ASCII" {
            connection.ask("SET client_encoding TO SQL_ASCII").await?;
        }
        let rows = connection.ask(&include_str!("sql/slot.sql").replace("{slot}", slot)).await?;
        let slot = rows.first().and_then(|row| match &row[..] {
            [plugin, database, confirmed, status, ..] => Some(Slot {
                plugin: text(plugin),
                database: text(database),
                confirmed: parse_lsn(&text(confirmed)).unwrap_or_default(),
                lost: text(status) == "lost",
            }),
            _ => None,
        });
        let flushed = parse_lsn(flushed).unwrap_or_default();
        Ok(Self { system_id: system_id.clone(), database: database.clone(), timeline, flushed, history, slot })
    }

    /// What is missing after a stored position, if anything; `system_id` is the server capture was set up on, if known.
    ///
    /// # Errors
    /// [`CaptureError::Refused`] if the slot is another kind of slot, or another database's.
    pub fn gap_after(&self, stored: Option<Position>, system_id: Option<&str>) -> Result<Option<Gap>> {
        if let Some(slot) = &self.slot
            && (slot.plugin != "pgoutput" || slot.database != self.database)
        {
            let (plugin, database) = (&slot.plugin, &slot.database);
            return Err(CaptureError::Refused(format!("the slot is one of database {database:?} for the plugin {plugin:?}, not ours")));
        }
        let reason = self.reason(stored, system_id);
        Ok(reason.map(|reason| Gap { reason, after: stored }))
    }

    fn reason(&self, stored: Option<Position>, system_id: Option<&str>) -> Option<String> {
        if let Some(expected) = system_id
            && expected != self.system_id
        {
            return Some(format!("the server is another one: its system identifier is {}, not {expected}", self.system_id));
        }
        let Some(slot) = &self.slot else { return Some("the replication slot is gone".into()) };
        if slot.lost {
            return Some("the server has removed WAL that the replication slot needed (max_slot_wal_keep_size)".into());
        }
        let stored = stored?;
        if stored.timeline != self.timeline {
            let ended = self.history.iter().find(|(timeline, _)| *timeline == stored.timeline);
            match ended {
                None => {
                    return Some(format!("timeline {} is not in the history of the server's timeline {}", stored.timeline, self.timeline));
                }
                Some((_, end)) if stored.lsn > *end => {
                    let (stored_lsn, end) = (lsn_text(stored.lsn), lsn_text(*end));
                    return Some(format!(
                        "after a failover to timeline {}, which left timeline {} at {end}, before {stored_lsn}, which had been captured",
                        self.timeline, stored.timeline
                    ));
                }
                Some(_) => {}
            }
        }
        if stored.lsn > self.flushed {
            return Some(format!(
                "the server's WAL ends at {}, before what had been captured: it has been set back",
                lsn_text(self.flushed)
            ));
        }
        (slot.confirmed > stored.lsn).then(|| {
            let (confirmed, stored) = (lsn_text(slot.confirmed), lsn_text(stored.lsn));
            format!("the replication slot begins at {confirmed}, after {stored}: it was created anew, or somebody else has read it")
        })
    }
}

fn text(value: &Option<bytes::Bytes>) -> String {
    value.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

/// A column of the only row.
fn column(rows: &[Row], at: usize) -> String {
    rows.first().and_then(|row| row.get(at)).map(text).unwrap_or_default()
}

/// Reads a timeline history file: `<timeline> TAB <LSN at which it ended> TAB <reason>` a line.
fn parse_history(content: &str) -> Vec<(u32, u64)> {
    let line = |line: &str| {
        let mut parts = line.split_ascii_whitespace();
        Some((parts.next()?.parse().ok()?, parse_lsn(parts.next()?)?))
    };
    content.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn server() -> ServerState {
        let slot = Slot { plugin: "pgoutput".into(), database: "d".into(), confirmed: 100, lost: false };
        ServerState {
            system_id: "7".into(),
            database: "d".into(),
            timeline: 3,
            flushed: 1000,
            history: parse_history("1\t0/100\tno recovery target specified\n\n2\t0/300\tx\n"),
            slot: Some(slot),
        }
    }

    #[test]
    fn gaps() {
        let gap = |server: &ServerState, timeline, lsn| server.gap_after(Some(Position::between(timeline, lsn)), Some("7")).unwrap();
        let check = |server: &ServerState, timeline, lsn, expected: Option<&str>| {
            let gap = gap(server, timeline, lsn);
            assert_eq!(gap.is_some(), expected.is_some(), "{gap:?}");
            assert!(gap.is_none_or(|gap| gap.reason.contains(expected.unwrap())), "{expected:?}");
        };
        check(&server(), 3, 100, None);
        check(&server(), 3, 1000, None);
        check(&server(), 3, 99, Some("created anew"));
        check(&server(), 3, 1001, Some("set back"));
        check(&server(), 1, 0x100, None);
        check(&server(), 2, 0x300, None);
        check(&server(), 2, 0x301, Some("failover"));
        check(&server(), 4, 500, Some("not in the history"));
        check(&ServerState { slot: None, ..server() }, 3, 500, Some("gone"));
        let lost = Slot { lost: true, ..server().slot.unwrap() };
        check(&ServerState { slot: Some(lost), ..server() }, 3, 500, Some("removed WAL"));
        check(&ServerState { system_id: "8".into(), ..server() }, 3, 500, Some("another one"));
        assert_eq!(server().gap_after(None, None).unwrap(), None);
        let foreign = Slot { plugin: "wal2json".into(), ..server().slot.unwrap() };
        assert!(ServerState { slot: Some(foreign), ..server() }.gap_after(None, None).is_err());
    }
}
