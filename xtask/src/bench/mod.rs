//! Measures Muniment beside its peers, in one run on the same events, and prints the table that the README shows.
//!
//! Whatever can drift with the machine is measured in turns: a run of Muniment, a run of ClickHouse, and so on; medians are compared.

mod access;
pub mod capture;
mod http;
mod load;
mod parts;
mod peers;
mod program;
mod report;

use std::path::PathBuf;
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::flags::Flags;
use crate::process::{cargo, root, run as execute, target};
use program::Program;
use report::Report;

/// A part of the benchmark: adds its rows to the report.
type Part = fn(&Bench, &mut Report) -> Result<()>;

const PARTS: [(&str, Part); 9] = [
    ("ingest", parts::ingest),
    ("size", parts::size),
    ("http", parts::http),
    ("single", parts::single),
    ("verify", parts::verify),
    ("sql", parts::sql),
    ("history", parts::history),
    ("restart", parts::restart),
    ("access", access::access),
];

/// What every part needs.
pub struct Bench {
    program: Program,
    python: PathBuf,
    folder: PathBuf,
    events_file: PathBuf,
    events: u64,
    rounds: usize,
}

/// Runs the same command built for release: generating events and sending load should cost as little as they can.
fn run_optimised(arguments: &[String]) -> Result<()> {
    let mut command = cargo();
    execute(command.args(["run", "--quiet", "--release", "--package", "xtask", "--", "bench"]).args(arguments))
}

/// The one part that is asked for, if any.
fn only_part(flags: &Flags, parts: impl Iterator<Item = &'static str>) -> Result<Option<&str>> {
    let (only, names) = (flags.text("only"), parts.collect::<Vec<_>>());
    match only {
        Some(only) if !names.contains(&only) => Err(Error::new(format!("no part `{only}`; there are {}", names.join(", ")))),
        only => Ok(only),
    }
}

/// Runs the benchmark, `arguments` being those of the command.
pub fn run(flags: &Flags, arguments: &[String]) -> Result<()> {
    if cfg!(debug_assertions) {
        return run_optimised(arguments);
    }
    let only = only_part(flags, PARTS.iter().map(|(name, _)| *name))?;
    let bench = Bench::prepare(flags)?;
    let mut report = Report::new(bench.events);
    for (name, part) in PARTS {
        if only.is_none_or(|only| only == name) {
            eprintln!("== {name}");
            if let Err(error) = part(&bench, &mut report) {
                report.failed(name, &error);
            }
        }
    }
    report.print()
}

impl Bench {
    fn prepare(flags: &Flags) -> Result<Self> {
        let program = Program::build(flags.has("no-build"))?;
        let python = crate::test::python("bench", "bench/requirements.txt")?;
        let folder = flags.text("folder").map_or_else(|| target().join("bench"), |folder| root().join(folder));
        std::fs::create_dir_all(&folder).context(|| format!("cannot make {}", folder.display()))?;
        let events = flags.number("events")?.unwrap_or(3_000_000);
        let rounds = flags.number("rounds")?.unwrap_or(3).max(1) as usize;
        let events_file = folder.join(format!("events-{events}.ndjson"));
        if !events_file.exists() {
            let written = crate::write_events(&events_file, events, 1)?;
            eprintln!("wrote {} events of {} bytes on average", written.events, written.bytes / written.events.max(1));
        }
        Ok(Self { program, python, folder, events_file, events, rounds })
    }

    /// An empty data folder of that name; checkpoints that an earlier one published are gone, too.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let home = self.folder.join(name);
        if home.exists() {
            std::fs::remove_dir_all(&home).context(|| format!("cannot remove {}", home.display()))?;
        }
        std::fs::create_dir_all(&home).context(|| format!("cannot make {}", home.display()))?;
        Ok(home.join("data"))
    }

    /// The data folder that holds all events; filled if no earlier run did it.
    fn filled(&self) -> Result<PathBuf> {
        let name = self.filled_name();
        let data = self.folder.join(&name).join("data");
        let mark = self.folder.join(&name).join("filled");
        if !mark.exists() {
            let data = self.fresh(&name)?;
            self.program.run(&data, &["ingest", "--log", "sys_audit_log", &self.events_file.to_string_lossy()])?;
            std::fs::write(&mark, "").context(|| format!("cannot write {}", mark.display()))?;
        }
        Ok(data)
    }

    fn filled_name(&self) -> String {
        format!("store-{}", self.events)
    }

    fn peer(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(root().join("bench/peers.py"));
        command
    }
}
