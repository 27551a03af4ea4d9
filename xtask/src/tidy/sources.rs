//! Rules of Rust source files: a header that says what the module is for, a bearable length, and SQLite in one place.

use super::{File, Finding};

const LONG: usize = 600;
const SQLITE_HOME: &str = "crates/store/src/sqlite";
/// SQLite files that are audited, whose triggers and queue are not the commit database.
const SQLITE_CAPTURE: &str = "crates/capture/src/queue/sqlite";
/// Its own types, which the rest of that crate names where it chooses between sources.
const CAPTURE_TYPES: [&str; 3] = ["SqliteLive", "SqliteOptions", "SqliteQueueSource"];

/// Headers and the home of SQLite.
pub fn check(files: &[File]) -> Vec<Finding> {
    let sources = || files.iter().filter(|file| is_source(&file.path));
    sources().filter_map(header).chain(sources().flat_map(sqlite)).collect()
}

/// Files that have grown past what reads well.
pub fn long_files(files: &[File]) -> Vec<Finding> {
    let long = files.iter().filter(|file| is_source(&file.path) && file.text.lines().count() > LONG);
    long.map(|file| {
        Finding::new(&file.path, 0, format!("{} lines; more than {LONG} are usually two things with one name", file.text.lines().count()))
    })
    .collect()
}

/// `crates/*/src/**.rs` and `xtask/src/**.rs`.
fn is_source(path: &str) -> bool {
    let inside =
        path.strip_prefix("crates/").and_then(|rest| rest.split_once('/')).map(|(_, rest)| rest).or_else(|| path.strip_prefix("xtask/"));
    inside.is_some_and(|rest| rest.starts_with("src/") && rest.ends_with(".rs"))
}

fn header(file: &File) -> Option<Finding> {
    let first = file.text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|text| !text.trim().is_empty());
    (!says).then(|| Finding::new(&file.path, 1, "starts without `//!` and what the module is for"))
}

/// Names of SQLite's driver belong to the SQLite folder of the store alone, since PostgreSQL is its sibling. The store's own type
/// for it, `sqlite::SqliteDb`, may be named where the store chooses between the two.
fn sqlite(file: &File) -> Vec<Finding> {
    if file.path.starts_with(SQLITE_HOME) || file.path.starts_with(SQLITE_CAPTURE) || !file.path.starts_with("crates/") {
        return Vec::new();
    }
    let chooses = file.path.starts_with("crates/store/src/");
    let own: &[&str] = if file.path.starts_with("crates/capture/src/") { &CAPTURE_TYPES } else { &[] };
    let guilty = |line: &str| {
        let rest = if chooses && !line.contains("sqlx") { line.replace("sqlite::SqliteDb", "") } else { line.to_owned() };
        ["sqlx::sqlite", "sqlx::Sqlite", "PRAGMA "].iter().any(|driver| rest.contains(driver))
            || words(&rest).any(|word| word.starts_with("Sqlite") && word != "Sqlite" && !own.contains(&word))
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| guilty(line));
    lines.map(|(index, _)| Finding::new(&file.path, index + 1, format!("SQLite is spoken outside {SQLITE_HOME}"))).collect()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn header_is_wanted_in_sources_only() {
        let files = [
            file("crates/store/src/flush.rs", "//! Moves hot batches to Parquet.\n"),
            file("crates/store/src/deep/er.rs", "//!\nuse x;\n"),
            file("crates/store/tests/kill.rs", "fn main() {}\n"),
            file("xtask/src/main.rs", "fn main() {}\n"),
            file("docs/format.md", "# x\n"),
        ];
        let paths: Vec<_> = check(&files).into_iter().map(|finding| finding.path).collect();
        assert_eq!(paths, ["crates/store/src/deep/er.rs", "xtask/src/main.rs"]);
    }

    #[test]
    fn length_is_warned_of() {
        let long = file("crates/model/src/lib.rs", &"//! x\n".repeat(601));
        assert_eq!(long_files(&[long, file("crates/model/src/a.rs", "//! x\n")]).len(), 1);
    }

    #[test]
    fn sqlite_stays_at_home() {
        let guilty = ["use sqlx::sqlite::X;", "fn f(pool: &SqlitePool) {}", "query(\"PRAGMA optimize\")", "impl Db<sqlx::Sqlite> for X {}"];
        for line in guilty {
            let text = format!("//! x\n{line}\n");
            assert_eq!(
                check(&[file("crates/engine/src/a.rs", &text)]),
                [Finding::new("crates/engine/src/a.rs", 2, "SQLite is spoken outside crates/store/src/sqlite")]
            );
            assert_eq!(check(&[file("crates/store/src/sqlite/a.rs", &text)]), []);
            assert_eq!(check(&[file("crates/capture/src/queue/sqlite/a.rs", &text)]), []);
        }
        let choice = "//! x\nsqlite::SqliteDb::open()\n";
        assert_eq!(check(&[file("crates/store/src/lib.rs", choice)]), []);
        assert_eq!(check(&[file("crates/engine/src/lib.rs", choice)]).len(), 1);
        assert_eq!(check(&[file("crates/model/src/a.rs", "//! SQLite\nDialect::Sqlite => 1,\n")]), []);
    }
}
