//! What a source still has to hand out when it is to be detached.

use crate::error::{CaptureError, Result};
use crate::open::{POSTGRES, POSTGRES_QUEUE, SQLITE, SourceSpec};
use crate::postgres::attach::slot_name;
use crate::postgres::{Position, Server, parse_lsn, stream_part};
use crate::queue;
use sqlx::{Executor, PgConnection, Row};

/// What was there when it was asked for.
pub struct Remainder(Rest);

enum Rest {
    /// The stream up to this LSN.
    Stream(PgConnection, u64),
    Queue(PgConnection),
    File(queue::sqlite::Waiting),
}

fn doing() -> impl FnOnce(sqlx::Error) -> CaptureError {
    CaptureError::database("looking at what is not read yet")
}

impl Remainder {
    /// What a source has now; `None` if there is nothing to be read any more, since its slot is gone or has lost its place.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub async fn of(spec: &SourceSpec<'_>) -> Result<Option<Self>> {
        let rest = match spec.kind {
            POSTGRES => {
                let mut connection = Server::parse(spec.url)?.connect().await?;
                let text = "SELECT pg_current_wal_insert_lsn()::text AS until, coalesce(wal_status, '') = 'lost' AS is_lost FROM pg_replication_slots WHERE slot_name = $1";
                let slot = sqlx::query(text).bind(slot_name(spec.name)).fetch_optional(&mut connection).await.map_err(doing())?;
                let Some(slot) = slot else { return Ok(None) };
                if slot.try_get("is_lost").map_err(doing())? {
                    return Ok(None);
                }
                let until: String = slot.try_get("until").map_err(doing())?;
                let until = parse_lsn(&until).ok_or_else(|| CaptureError::Malformed(format!("{until:?} is no LSN")))?;
                Rest::Stream(connection, until)
            }
            POSTGRES_QUEUE => Rest::Queue(Server::parse(spec.url)?.connect().await?),
            SQLITE => Rest::File(queue::sqlite::Waiting::of(spec.url).await?),
            _ => return Ok(None),
        };
        Ok(Some(Self(rest)))
    }

    /// Whether all of it is stored, if this position is. Makes the stream of an idle database move on.
    ///
    /// # Errors
    /// If the database can't be asked, or the position is none.
    pub async fn is_stored(&mut self, position: &str) -> Result<bool> {
        match &mut self.0 {
            Rest::Stream(connection, until) => {
                let stream = stream_part(position);
                if !stream.is_empty() && stream.parse::<Position>()?.lsn >= *until {
                    return Ok(true);
                }
                connection.execute("SELECT pg_logical_emit_message(true, 'muniment.heartbeat', '')").await.map_err(doing())?;
                Ok(false)
            }
            Rest::Queue(connection) => Ok(queue::postgres::waiting(connection).await?.0 == 0),
            Rest::File(waiting) => waiting.is_stored(position).await,
        }
    }
}
