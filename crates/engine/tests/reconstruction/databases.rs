//! Real databases with the two tables that scripts are tried on, and their rows as the log has them.

use muniment_engine::history::Dialect;
use muniment_testkit::{PostgresOptions, PostgresServer};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection, raw_sql};
use std::collections::BTreeMap;

/// A database that scripts are run on.
pub enum Database {
    /// In memory.
    Sqlite(SqliteConnection),
    /// The server lives as long as the connection.
    Postgres(PgConnection, #[expect(dead_code, reason = "kept until the connection is dropped")] Box<PostgresServer>),
}

/// Name of the first table in the log; its key is one column.
pub const CASES: &str = "case.hồ \"sơ\"";
/// Name of the second table; its key is two columns.
pub const PARTS: &str = "case.part";

impl Database {
    /// A new SQLite database.
    pub async fn sqlite() -> Self {
        let mut connection = SqliteConnection::connect(":memory:").await.unwrap();
        raw_sql(AssertSqlSafe(include_str!("sqlite.sql").to_owned())).execute(&mut connection).await.unwrap();
        Self::Sqlite(connection)
    }

    /// A new PostgreSQL server.
    pub async fn postgres() -> Self {
        let server = PostgresServer::start(&PostgresOptions::default()).unwrap();
        let mut connection = PgConnection::connect(&server.url("postgres")).await.unwrap();
        raw_sql(AssertSqlSafe(include_str!("postgres.sql").to_owned())).execute(&mut connection).await.unwrap();
        Self::Postgres(connection, Box::new(server))
    }

    /// Whose SQL it reads.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(..) => Dialect::Postgresql,
        }
    }

    /// Runs statements; the first error ends them.
    pub async fn run(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => raw_sql(sql).execute(connection).await.map(drop),
            Self::Postgres(connection, _) => raw_sql(sql).execute(connection).await.map(drop),
        }
    }

    /// The number that a query gives.
    pub async fn number(&mut self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
            Self::Postgres(connection, _) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
        }
    }

    /// Rows of a query: two texts each.
    async fn pairs(&mut self, sql: &str) -> Vec<(String, String)> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => {
                let rows = raw_sql(sql).fetch_all(connection).await.unwrap();
                rows.iter().map(|row| (row.get(0), row.get(1))).collect()
            }
            Self::Postgres(connection, _) => {
                let rows = raw_sql(sql).fetch_all(connection).await.unwrap();
                rows.iter().map(|row| (row.get(0), row.get(1))).collect()
            }
        }
    }

    /// Every row by table and key, as the log has it.
    pub async fn dump(&mut self) -> BTreeMap<(&'static str, String), String> {
        let (cases, parts) = match self {
            Self::Sqlite(_) => (include_str!("sqlite_cases.sql"), include_str!("sqlite_parts.sql")),
            Self::Postgres(..) => (include_str!("postgres_cases.sql"), include_str!("postgres_parts.sql")),
        };
        let mut rows = BTreeMap::new();
        for (table, sql) in [(CASES, cases), (PARTS, parts)] {
            rows.extend(self.pairs(sql).await.into_iter().map(|(key, row)| ((table, key), row)));
        }
        rows
    }

    /// A value for each column of the first table, chosen by a number.
    pub fn values(&self, choice: u64) -> Vec<(&'static str, &'static str)> {
        let columns: &[(&str, &[&str])] = match self {
            Self::Sqlite(_) => &[
                ("\"we\"\"ird\"", &["NULL", "'it''s'", "'{\"a\": 1}'", "'-- ; $undo$ \\ ư'", "''", "'null'"]),
                ("amount", &["NULL", "1.5", "-9223372036854775808", "0.1", "9007199254740993"]),
                ("flag", &["NULL", "0", "1"]),
                ("raw", &["NULL", "X''", "X'00ff27'"]),
            ],
            Self::Postgres(..) => &[
                ("\"we\"\"ird\"", &["NULL", "'it''s'", "'{\"a\": 1}'", "E'-- ; $undo$ \\\\ ư\\n'", "''", "'null'"]),
                ("amount", &["NULL", "1.50", "12345678901234567890.123456789", "'NaN'", "0"]),
                ("big", &["NULL", "9223372036854775807", "-1"]),
                ("flag", &["NULL", "true", "false"]),
                ("at", &["NULL", "'2026-01-31 09:00:00.123456+07'", "'infinity'", "'0044-03-15 00:00:00+00 BC'"]),
                ("raw", &["NULL", "'\\x00ff27'", "'\\x'"]),
                ("list", &["NULL", "'{1,NULL,3}'", "'{}'"]),
                ("texts", &["NULL", "ARRAY['a b', 'c\"d', E'\\\\']"]),
                ("doc", &["NULL", "'{\"k\": [1.10, \"é\"]}'", "'\"text\"'", "'5'", "'null'", "'{\"$hex\": \"00\"}'"]),
                ("kept", &["NULL", "'{\"b\":  1, \"a\":2}'", "'[]'", "'null'"]),
                ("mood", &["NULL", "'glad'", "'so ''so'''"]),
                ("span", &["NULL", "'[1,5)'", "'empty'"]),
                ("real", &["NULL", "0.1", "'-Infinity'", "1e300"]),
                ("spot", &["NULL", "'(1,2)'"]),
                ("code", &["NULL", "'ab'"]),
            ],
        };
        let pick = |(index, (name, values)): (usize, &(&'static str, &'static [&'static str]))| {
            (*name, values[((choice >> (index * 2)) as usize).wrapping_add(index) % values.len()])
        };
        columns.iter().enumerate().map(pick).collect()
    }
}
