//! What capture costs the audited database, and how fast it is: `cargo xtask bench capture`.
//!
//! Each measurement is a pair: the same load on an unaudited server with its usual settings, and on an audited one, one right after the other and in turns,
//! and the ratio of the two is what counts. Backends' processor time comes from the postmaster, which adds up its ended sessions; the process that
//! sends the WAL, and Muniment, are counted apart.

mod audited;
mod cluster;
mod cpu;
mod parts;

use std::path::PathBuf;

use super::program::Program;
use crate::error::{Context, Result};
use crate::flags::Flags;
use crate::process::root;
use parts::Table;

/// Flags of the command.
pub const VALUED: [&str; 5] = ["only", "folder", "rounds", "seconds", "changes"];
/// Switches of the command.
pub const SWITCHES: [&str; 1] = ["no-build"];

/// A part of the benchmark: adds its rows to the table.
type Part = fn(&CaptureBench, &mut Table) -> Result<()>;

const PARTS: [(&str, Part); 3] = [("cost", parts::cost), ("latency", parts::latency), ("throughput", parts::throughput)];

/// What every part needs.
pub struct CaptureBench {
    program: Program,
    /// PostgreSQL's programs.
    postgres: PathBuf,
    folder: PathBuf,
    rounds: usize,
    seconds: u64,
    /// Changes of the backlog that is read from one slot.
    changes: u64,
}

/// Runs the benchmark, `arguments` being those of the command.
pub fn run(flags: &Flags, arguments: &[String]) -> Result<()> {
    if cfg!(debug_assertions) {
        return super::run_optimised(arguments);
    }
    let only = super::only_part(flags, PARTS.iter().map(|(name, _)| *name))?;
    // Not below the build's output: the server's user may have no way into that folder.
    let folder = flags.text("folder").map_or_else(|| std::env::temp_dir().join("muniment-bench-capture"), |folder| root().join(folder));
    std::fs::create_dir_all(&folder).context(|| format!("cannot make {}", folder.display()))?;
    let bench = CaptureBench {
        program: Program::build(flags.has("no-build"))?,
        postgres: crate::postgres::need()?,
        folder,
        rounds: flags.number("rounds")?.unwrap_or(5).max(1) as usize,
        seconds: flags.number("seconds")?.unwrap_or(20).max(1),
        changes: flags.number("changes")?.unwrap_or(2_000_000),
    };
    let mut table = Table::default();
    for (name, part) in PARTS {
        if only.is_none_or(|only| only == name) {
            eprintln!("== {name}");
            if let Err(error) = part(&bench, &mut table) {
                table.failed(name, &error);
            }
        }
    }
    table.print()
}
