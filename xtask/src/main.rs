//! Tidy checks, generation of documents, tests and benchmarks: `cargo xtask <command>`.

mod bench;
mod browser;
mod error;
mod events;
mod flags;
mod gen_docs;
mod postgres;
mod process;
mod test;
mod tidy;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use error::{Context, Error, Result};
use flags::Flags;

const USAGE: &str = "\
cargo xtask <command>

  tidy                  check the tree: module headers, the map, dependency directions, words
  gen [--check]         write docs/schema.md and the tables of docs/access.md from code; with --check only compare
  test                  run every test: the workspace's and the Python verifier's
  gen-events --out FILE --count N [--seed S]
                        write NDJSON change events of an imagined agency
  bench [--events N] [--only PART] [--folder DIR] [--rounds R] [--no-build]
                        measure Muniment beside ClickHouse, SQLite and DuckDB; prints a Markdown table.
                        Parts: ingest, size, http, single, verify, sql, history, restart, access
  bench capture [--only PART] [--rounds R] [--seconds S] [--changes N] [--folder DIR] [--no-build]
                        measure what capture costs a PostgreSQL server, and how fast it is; prints Markdown tables.
                        Parts: cost, latency, throughput
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    match command.as_str() {
        "tidy" => {
            Flags::parse(&rest, &[], &[])?;
            tidy::run()
        }
        "gen" => gen_docs::run(Flags::parse(&rest, &[], &["check"])?.has("check")),
        "test" => {
            Flags::parse(&rest, &[], &[])?;
            test::run()
        }
        "gen-events" => gen_events(&Flags::parse(&rest, &["out", "count", "seed"], &[])?),
        "bench" if rest.first().is_some_and(|part| part == "capture") => {
            bench::capture::run(&Flags::parse(&rest[1..], &bench::capture::VALUED, &bench::capture::SWITCHES)?, &rest)
        }
        "bench" => bench::run(&Flags::parse(&rest, &["events", "only", "folder", "rounds"], &["no-build"])?, &rest),
        "" | "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(Error::new(format!("no command `{other}`\n\n{USAGE}"))),
    }
}

fn gen_events(flags: &Flags) -> Result<()> {
    let path = flags.text("out").ok_or_else(|| Error::new("gen-events needs --out FILE"))?;
    let count = flags.number("count")?.ok_or_else(|| Error::new("gen-events needs --count N"))?;
    let written = write_events(path.as_ref(), count, flags.number("seed")?.unwrap_or(1))?;
    println!(
        "{} events on {} entities, {} bytes, {:.1} bytes an event",
        written.events,
        written.entities,
        written.bytes,
        written.bytes as f64 / written.events.max(1) as f64
    );
    Ok(())
}

/// Writes a file of events; an interrupted write leaves no file of that name.
fn write_events(path: &std::path::Path, count: u64, seed: u64) -> Result<events::Written> {
    let partial = path.with_extension("partial");
    let file = File::create(&partial).context(|| format!("cannot create {}", partial.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = events::write(&mut out, events::Options { count, seed })
        .and_then(|written| out.flush().map(|()| written))
        .context(|| format!("cannot write {}", partial.display()))?;
    std::fs::rename(&partial, path).context(|| format!("cannot rename {}", partial.display()))?;
    Ok(written)
}
