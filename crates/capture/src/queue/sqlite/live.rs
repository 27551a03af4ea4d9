//! The rows of an audited SQLite file at one instant. They are copied out, so that no reader holds up the application's writers for long, and the copy sorts them.

use super::attach::{connect, describe};
use super::lines::Image;
use super::triggers::{TableDescription, identifier, image};
use crate::error::{CaptureError, Result};
use crate::live::{Includes, Live, LiveRow, LiveTable};
use crate::open::SourceSpec;
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row, SqliteConnection};
use tempfile::TempDir;

/// A copy of the audited tables, and the number of the last queued change that it includes.
pub(crate) struct SqliteLive {
    tables: Vec<LiveTable>,
    newest: i64,
    /// Whether all of them had been processed.
    is_empty: bool,
    copy: SqliteConnection,
    _folder: TempDir,
}

fn doing(text: &'static str) -> impl Fn(sqlx::Error) -> CaptureError {
    move |source| CaptureError::Database { doing: text.to_owned(), source }
}

impl SqliteLive {
    pub async fn open(spec: &SourceSpec<'_>) -> Result<Self> {
        let failed = |source| CaptureError::File { doing: "making a folder for a copy", source };
        let folder = tempfile::tempdir().map_err(failed)?;
        let options = SqliteConnectOptions::new().filename(folder.path().join("copy.db")).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Off).synchronous(SqliteSynchronous::Off);
        let mut copy = options.connect().await.map_err(doing("making a copy"))?;
        let mut file = connect(spec.url).await?;
        let mut reading = file.begin().await.map_err(doing("beginning"))?;
        let newest = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'muniment_audit_queue'), 0)";
        let newest: i64 = sqlx::query_scalar(newest).fetch_one(&mut *reading).await.map_err(doing("looking at the queue"))?;
        let processed = sqlx::query_scalar("SELECT max(processed) FROM muniment_audit_state");
        let processed: Option<i64> = processed.fetch_one(&mut *reading).await.map_err(doing("looking at the queue"))?;
        let rows = sqlx::query("SELECT table_name, excluded, masked FROM muniment_audit_table ORDER BY table_name");
        let rows = rows.fetch_all(&mut *reading).await.map_err(doing("reading the list of tables"))?;
        let mut tables = Vec::new();
        for row in rows {
            let list = |column: &str| serde_json::from_str::<Vec<String>>(row.get(column)).unwrap_or_default();
            let mut table = describe(&mut reading, row.get("table_name")).await?;
            (table.excluded, table.masked) = (list("excluded"), list("masked"));
            if table.columns.is_empty() {
                continue;
            }
            copy_table(&mut reading, &table, tables.len(), &mut copy).await?;
            tables.push(LiveTable { name: format!("main.{}", table.name), has_key: !table.key.is_empty(), optional: Vec::new() });
        }
        drop(reading);
        Ok(Self { tables, newest, is_empty: processed.unwrap_or_default() >= newest, copy, _folder: folder })
    }
}

async fn copy_table(file: &mut SqliteConnection, table: &TableDescription, number: usize, copy: &mut SqliteConnection) -> Result<()> {
    let failed = doing("copying a table");
    let mut copying = copy.begin().await.map_err(&failed)?;
    let create = format!("CREATE TABLE copy_{number} (key TEXT NOT NULL, row TEXT NOT NULL)");
    copying.execute(AssertSqlSafe(create)).await.map_err(&failed)?;
    // SQLite lets any bytes pass for text.
    let select = format!("SELECT CAST({} AS BLOB) FROM {} AS t", image(table, "t"), identifier(&table.name));
    let insert = format!("INSERT INTO copy_{number} VALUES (?, ?)");
    let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(file);
    while let Some(row) = rows.try_next().await.map_err(&failed)? {
        let bytes: Vec<u8> = row.try_get(0).map_err(&failed)?;
        let image = Image::parse(&String::from_utf8_lossy(&bytes))?;
        let json = String::from_utf8_lossy(&image.json()).into_owned();
        let query = sqlx::query(AssertSqlSafe(insert.clone())).bind(image.key(&table.key)).bind(json);
        query.execute(&mut *copying).await.map_err(&failed)?;
    }
    copying.commit().await.map_err(&failed)
}

/// Number of a queued change in a position: `12`, `12.1` for the second record of a changed key, `12#…` for a finding after it, `12~…` with what tells the change from another of its number.
pub(super) fn number(position: &str) -> Option<i64> {
    position.split(['.', '#', '~']).next()?.parse().ok()
}

#[async_trait]
impl Live for SqliteLive {
    fn tables(&self) -> &[LiveTable] {
        &self.tables
    }

    fn instant(&self) -> String {
        format!("after change {}", self.newest)
    }

    async fn is_reached(&mut self, position: &str) -> Result<bool> {
        Ok(self.is_empty || number(position).is_some_and(|number| number >= self.newest))
    }

    fn includes(&self) -> Includes {
        let newest = self.newest;
        Box::new(move |_, position| {
            let place = position.and_then(|position| position.rsplit_once(':')).map(|(_, place)| place);
            place.and_then(number).is_some_and(|number| number <= newest)
        })
    }

    fn rows<'a>(&'a mut self, table: &str) -> Result<BoxStream<'a, Result<LiveRow>>> {
        let Some(at) = self.tables.iter().position(|live| live.name == table) else {
            return Err(CaptureError::Refused(format!("{table} is not attached")));
        };
        // SQLite compares text byte by byte.
        let sql = format!("SELECT key, row FROM copy_{at} ORDER BY key");
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut self.copy);
        let read = |row: Result<sqlx::sqlite::SqliteRow, sqlx::Error>| {
            let row = row?;
            Ok(LiveRow { key: row.try_get("key")?, row: row.try_get("row")? })
        };
        Ok(rows.map(move |row| read(row).map_err(doing("reading the copy"))).boxed())
    }
}
