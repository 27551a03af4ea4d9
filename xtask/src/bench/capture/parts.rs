//! The parts of the benchmark, and the table of their results.

use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use super::CaptureBench;
use super::audited::{Audit, Audited, is_found, script};
use super::cluster::Wanted;
use crate::bench::report::{grouped, load, machine, median};
use crate::error::{Context, Error, Result};

const CLIENTS: usize = 4;
/// Changes of one transaction of the load.
const CHANGES_A_TRANSACTION: f64 = 3.0;
const LATENCY_CHANGES_A_SECOND: u64 = 2_000;
const PROBE_EVERY: Duration = Duration::from_millis(50);
const BULK_ROWS: u64 = 100;

/// Rows of Markdown, and parts that failed.
#[derive(Default)]
pub struct Table {
    rows: Vec<String>,
    failures: Vec<String>,
}

impl Table {
    fn row(&mut self, cells: &[String]) {
        let row = format!("| {} |", cells.join(" | "));
        eprintln!("{row}");
        self.rows.push(row);
    }

    fn head(&mut self, cells: &[&str]) {
        self.rows.push(format!("\n| {} |\n|{}", cells.join(" | "), " --- |".repeat(cells.len())));
    }

    /// Notes a part that failed.
    pub fn failed(&mut self, part: &str, error: &Error) {
        eprintln!("{part}: {}", error.chain());
        self.failures.push(format!("{part}: {}", error.chain()));
    }

    /// Prints the Markdown; an error if a part failed.
    pub fn print(&self) -> Result<()> {
        println!("{} Load average after the run {}.", machine(), load());
        self.rows.iter().for_each(|row| println!("{row}"));
        if self.failures.is_empty() { Ok(()) } else { Err(Error::new(format!("parts failed:\n{}", self.failures.join("\n")))) }
    }
}

/// One measured run.
struct Run {
    rate: f64,
    /// Seconds of processor time a transaction.
    backend: f64,
    /// Of Muniment's sessions in PostgreSQL, such as the one that sends the WAL.
    sender: f64,
    muniment: f64,
    /// Seconds from the end of the load until all of it was found.
    behind: f64,
}

/// Throughput and processor time, unaudited and audited, in pairs.
pub fn cost(bench: &CaptureBench, table: &mut Table) -> Result<()> {
    let plain = Audited::start(bench, Audit::None)?;
    table.head(&[
        "audited by",
        "throughput, fsync",
        "of unaudited",
        "backend CPU a transaction",
        "of unaudited",
        "Muniment's sessions in PostgreSQL",
        "Muniment itself",
        "caught up after",
    ]);
    let audits = [
        Audit::Replication { niceness: None },
        Audit::Replication { niceness: Some(19) },
        Audit::ReplicationOverTcp,
        Audit::Queue,
        Audit::Versions,
        Audit::Actions,
    ];
    for audit in audits {
        if let Err(error) = pairs(bench, &plain, audit, table) {
            table.failed(audit.name(), &error);
        }
    }
    Ok(())
}

fn pairs(bench: &CaptureBench, plain: &Audited, audit: Audit, table: &mut Table) -> Result<()> {
    let audited = Audited::start(bench, audit)?;
    // What is read for the first time would be measured in the first pair only.
    for (server, audit) in [(plain, Audit::None), (&audited, audit)] {
        server.cluster.load(&audit.script(), CLIENTS, bench.seconds.min(3))?;
    }
    let (mut unaudited, mut with_audit) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let mut turns = [(plain, Audit::None), (&audited, audit)];
        if round % 2 == 1 {
            turns.reverse();
        }
        for (server, audit) in turns {
            let run = measure(bench, server, audit, round as u64)?;
            if audit == Audit::None { unaudited.push(run) } else { with_audit.push(run) }
        }
    }
    let ratio = |of: fn(&Run) -> f64| median(unaudited.iter().zip(&with_audit).map(|(plain, audited)| of(audited) / of(plain)).collect());
    let middle = |of: fn(&Run) -> f64| median(with_audit.iter().map(of).collect());
    let micros = |seconds: f64| format!("{:.0} µs", seconds * 1e6);
    let of_muniment = |text: String| if audit.is_muniment() { text } else { "–".to_owned() };
    table.row(&[
        audit.name().to_owned(),
        format!("{}/s", grouped(middle(|run| run.rate))),
        format!("{:.2}", ratio(|run| run.rate)),
        micros(middle(|run| run.backend)),
        format!("×{:.2}", ratio(|run| run.backend)),
        of_muniment(micros(middle(|run| run.sender))),
        of_muniment(micros(middle(|run| run.muniment))),
        of_muniment(format!("{:.2} s", middle(|run| run.behind))),
    ]);
    Ok(())
}

fn measure(bench: &CaptureBench, server: &Audited, audit: Audit, round: u64) -> Result<Run> {
    server.cluster.sql("CHECKPOINT")?;
    let (backend, sender, muniment) = (server.cluster.sessions_cpu(), server.cluster.muniment_sessions_cpu()?, server.muniment_cpu());
    let ran = server.cluster.load(&audit.script(), CLIENTS, bench.seconds)?;
    let backend = server.cluster.sessions_cpu() - backend;
    let behind = if audit.is_muniment() { server.catch_up(round + 1)?.as_secs_f64() } else { 0.0 };
    let sender = server.cluster.muniment_sessions_cpu()? - sender;
    let muniment = server.muniment_cpu() - muniment;
    let each = |seconds: f64| seconds / ran.transactions;
    Ok(Run { rate: ran.rate(), backend: each(backend), sender: each(sender), muniment: each(muniment), behind })
}

/// From the commit in PostgreSQL until SQL finds it in Muniment, under a steady load.
pub fn latency(bench: &CaptureBench, table: &mut Table) -> Result<()> {
    table.head(&["audited by", "changes/s", "p50", "p99", "most", "probes"]);
    for audit in [Audit::Replication { niceness: None }, Audit::Queue] {
        let server = Audited::start(bench, audit)?;
        let rate = LATENCY_CHANGES_A_SECOND / CHANGES_A_TRANSACTION as u64;
        let load = server.cluster.pgbench(&audit.script(), CLIENTS, bench.seconds + 5, Some(rate))?;
        std::thread::sleep(Duration::from_secs(3));
        let before = server.captured("app.cases")?;
        let begun = Instant::now();
        let mut times = probe(&server, Duration::from_secs(bench.seconds))?;
        let per_second = (server.captured("app.cases")? - before) as f64 / begun.elapsed().as_secs_f64();
        load.wait_with_output().context(|| "cannot wait for pgbench")?;
        times.sort_by(f64::total_cmp);
        let at =
            |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
        let millis = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
        table.row(&[
            audit.name().to_owned(),
            grouped(per_second),
            millis(at(0.5)),
            millis(at(0.99)),
            millis(at(1.0)),
            times.len().to_string(),
        ]);
    }
    Ok(())
}

/// Commits rows one by one through one session, and asks for each until it is found.
fn probe(server: &Audited, duration: Duration) -> Result<Vec<f64>> {
    let failed = || "cannot speak to psql";
    let mut psql = server.cluster.psql()?;
    let mut to = psql.stdin.take().context_none(failed)?;
    let mut from = BufReader::new(psql.stdout.take().context_none(failed)?);
    let mut client = server.client()?;
    let (begun, mut times, mut number) = (Instant::now(), Vec::new(), 1_000);
    while begun.elapsed() < duration {
        number += 1;
        writeln!(to, "INSERT INTO app.probe VALUES ({number});").and_then(|()| to.flush()).context(failed)?;
        let mut said = String::new();
        from.read_line(&mut said).context(failed)?;
        if said.trim() != "INSERT 0 1" {
            return Err(Error::new(format!("psql said {said:?}")));
        }
        let committed = Instant::now();
        while !is_found(&mut client, number)? {
            if committed.elapsed() > Duration::from_secs(60) {
                return Err(Error::new("a change was not found within a minute"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        times.push(committed.elapsed().as_secs_f64());
        std::thread::sleep(PROBE_EVERY);
    }
    drop(to);
    psql.wait().context(failed)?;
    Ok(times)
}

/// How many changes come out of one slot: a backlog, and a load that is as fast as the machine allows.
pub fn throughput(bench: &CaptureBench, table: &mut Table) -> Result<()> {
    table.head(&["audited by", "measured", "changes", "seconds", "changes/s", "Muniment's CPU a change"]);
    for audit in [Audit::Replication { niceness: None }, Audit::ReplicationOverTcp, Audit::Queue] {
        let mut server = Audited::start(bench, audit)?;
        server.stop_muniment()?;
        let transactions = bench.changes.div_ceil(10_000);
        for n in 0..transactions {
            let first = 1_000_000_000 + n * 10_000;
            server.cluster.sql(&format!(
                "INSERT INTO app.cases SELECT {first} + id, number, title, status, priority, owner, amount, created_at, updated_at, closed, address, note \
                 FROM app.cases WHERE id BETWEEN 1 AND 10000"
            ))?;
        }
        server.serve(bench)?;
        let begun = Instant::now();
        server.catch_up(1)?;
        report(&server, audit, "backlog of inserts", 0, begun, 0.0, table)?;

        let (before, cpu, begun) = (server.captured("app.cases")?, server.muniment_cpu(), Instant::now());
        server.cluster.load(&script("bulk_update.sql"), 1, bench.seconds)?;
        server.catch_up(2)?;
        report(&server, audit, &format!("steady load of updates, {BULK_ROWS} a transaction"), before, begun, cpu, table)?;
    }
    Ok(())
}

fn report(server: &Audited, audit: Audit, what: &str, before: u64, begun: Instant, cpu: f64, table: &mut Table) -> Result<()> {
    let seconds = begun.elapsed().as_secs_f64();
    let changes = (server.captured("app.cases")? - before) as f64;
    let each = (server.muniment_cpu() - cpu) / changes;
    table.row(&[
        audit.name().to_owned(),
        what.to_owned(),
        grouped(changes),
        format!("{seconds:.1}"),
        grouped(changes / seconds),
        format!("{:.1} µs", each * 1e6),
    ]);
    Ok(())
}
