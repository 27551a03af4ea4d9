//! What an attached database holds at one instant, row by row in the order of keys, with the same texts as captured rows have: to be compared with the log.
//!
//! Keys are ordered byte by byte. The same key may come more than once, from a table without a primary key.

mod postgres;

use crate::error::Result;
use crate::open::SourceSpec;
use crate::queue::sqlite::SqliteLive;
use async_trait::async_trait;
use futures::stream::BoxStream;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRow {
    /// Its key, see [`crate::key_text`].
    pub key: String,
    /// The row as a JSON object.
    pub row: String,
}

/// A table of the instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveTable {
    /// Name, as its changes are recorded.
    pub name: String,
    /// Whether a key tells its rows apart; otherwise all columns together are the key, and a row may be there more than once.
    pub has_key: bool,
    /// Columns that a source may leave out although the table has them: generated ones.
    pub optional: Vec<String>,
}

/// Whether an instant includes a change, by the names that the log has for its transaction and its position: [`crate::Change::transaction`] and
/// [`crate::Change::position`].
pub type Includes = Box<dyn Fn(Option<&str>, Option<&str>) -> bool + Send + Sync>;

/// The tables of an attached database at one instant, the one at which it was opened.
#[async_trait]
pub trait Live: Send {
    /// The tables, by name.
    fn tables(&self) -> &[LiveTable];

    /// Tables that the patterns of the source take in, and whose changes are not captured, by name.
    fn uncaptured(&self) -> &[String] {
        &[]
    }

    /// Where in the source's order the instant lies, for people.
    fn instant(&self) -> String;

    /// Whether all changes that the instant includes are stored, if this is the position that is; empty at the beginning.
    ///
    /// # Errors
    /// If the position is none, or the source can't be asked.
    async fn is_reached(&mut self, position: &str) -> Result<bool>;

    /// Tells which changes the instant includes.
    fn includes(&self) -> Includes;

    /// The rows of a table.
    ///
    /// # Errors
    /// If there is no such table; the stream's, if it can't be read.
    fn rows<'a>(&'a mut self, table: &str) -> Result<BoxStream<'a, Result<LiveRow>>>;
}

/// Whether the log has every row that was there when capture began, or began again. Until then there is nothing to compare with.
///
/// # Errors
/// If the database can't be asked.
pub async fn is_complete(spec: &SourceSpec<'_>) -> Result<bool> {
    if spec.url.starts_with("sqlite:") {
        return Ok(true);
    }
    postgres::has_baselines(spec).await
}

/// Opens the database of a source at the present instant. Until it is dropped, the database keeps what is deleted from its tables meanwhile.
///
/// # Errors
/// If it can't be reached, or its tables can't be read.
pub async fn open(spec: &SourceSpec<'_>) -> Result<Box<dyn Live>> {
    if spec.url.starts_with("sqlite:") {
        return Ok(Box::new(SqliteLive::open(spec).await?));
    }
    Ok(Box::new(postgres::PostgresLive::open(spec).await?))
}
