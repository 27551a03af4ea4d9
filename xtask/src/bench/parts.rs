//! The parts of the benchmark. Each stands alone, so that `--only` can repeat it.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::Client;
use super::load::{Load, percentile, send};
use super::program::{Server, folder_bytes};
use super::report::{Report, grouped, median};
use super::{Bench, peers};
use crate::error::{Context, Error, Result};

const MIB: f64 = (1 << 20) as f64;
const SQLITE_ROWS: u64 = 300_000;
/// Events sent over HTTP at most: the sender has them in memory.
const HTTP_EVENTS: u64 = 3_000_000;
const SINGLE_TIME: Duration = Duration::from_secs(15);
const HISTORIES: usize = 200;

/// File to durable, hashed and queryable, in turns with ClickHouse; SQLite once; peak memory.
pub fn ingest(bench: &Bench, report: &mut Report) -> Result<()> {
    let file = bench.events_file.to_string_lossy();
    let (mut ours, mut theirs, mut memory) = (Vec::new(), Vec::new(), 0);
    let (mut name, mut bytes) = (String::new(), 0.0);
    for _ in 0..bench.rounds {
        let data = bench.fresh("ingest")?;
        warm(&bench.events_file)?;
        let ran = bench.program.run(&data, &["ingest", "--log", "sys_audit_log", &file])?;
        eprintln!("muniment: {} events/s", grouped(bench.events as f64 / ran.seconds));
        ours.push(bench.events as f64 / ran.seconds);
        memory = memory.max(ran.peak_memory);
        bench.fresh("ingest")?;
        warm(&bench.events_file)?;
        let peer = peers::ingest(bench.peer(), "clickhouse", &bench.events_file, bench.events, &bench.folder)?;
        theirs.push(peer.figure("rows_per_second")?);
        eprintln!("{}: {} rows/s", peer.name(), grouped(peer.figure("rows_per_second")?));
        (name, bytes) = (peer.name().to_owned(), peer.figure("bytes_per_row")?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let rate = |rate: f64| format!("{} events/s", grouped(rate));
    report.row(
        &format!("ingest a file, median of {}", bench.rounds),
        rate(ours),
        format!("{}, {bytes:.1} bytes an event, {name}", rate(theirs)),
        format!("{:.2}", ours / theirs),
        "1.5",
    );
    let sqlite = peers::ingest(bench.peer(), "sqlite", &bench.events_file, SQLITE_ROWS.min(bench.events), &bench.folder)?;
    let rows = sqlite.figure("rows_per_second")?;
    report.row(
        "the same against SQLite with five indexes",
        rate(ours),
        format!("{}, {}", rate(rows), sqlite.name()),
        format!("{:.1}", ours / rows),
        "10",
    );
    report.row("peak memory of that ingest", format!("{:.0} MiB", memory as f64 / MIB), "–", "–", "below 500 MiB at 20 M events");
    Ok(())
}

/// Reads a file, so that whoever comes next finds it in memory: a virtual machine's host may have taken back pages that nobody used for a while.
fn warm(path: &Path) -> Result<()> {
    let read = File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()));
    read.map(drop).context(|| format!("cannot read {}", path.display()))
}

/// Bytes of the whole data folder an event, once everything is in Parquet.
pub fn size(bench: &Bench, report: &mut Report) -> Result<()> {
    let data = bench.filled()?;
    settle(bench, &data)?;
    let all = folder_bytes(&data) as f64 / bench.events as f64;
    let files = folder_bytes(&data.join("objects")) as f64 / bench.events as f64;
    report.row("stored size, hashes included", format!("{all:.1} bytes an event ({files:.1} in Parquet)"), "–", "–", "at most 80");
    Ok(())
}

/// Moves everything to Parquet.
fn settle(bench: &Bench, data: &Path) -> Result<()> {
    bench.program.run(data, &["compact"]).map(drop)
}

/// Eight connections of 1,000-event requests, compared with the rate from a file.
pub fn http(bench: &Bench, report: &mut Report) -> Result<()> {
    let load = Load { connections: 8, events_per_request: 1_000, events: bench.events.min(HTTP_EVENTS), time: Duration::from_secs(600) };
    let (mut rates, mut files, mut memory, mut refusals) = (Vec::new(), Vec::new(), 0, 0);
    for _ in 0..bench.rounds {
        let server = bench.program.serve(&bench.fresh("http")?)?;
        let outcome = send(&server.door, &bench.events_file, load)?;
        memory = memory.max(server.peak_memory());
        refusals += outcome.refusals;
        rates.push(outcome.rate());
        server.stop()?;
        let ran = bench.program.run(&bench.fresh("http")?, &["ingest", "--log", "sys_audit_log", &bench.events_file.to_string_lossy()])?;
        files.push(bench.events as f64 / ran.seconds);
    }
    let (rate, file) = (median(rates), median(files));
    report.row(
        "ingest over HTTP, 8 connections of 1,000 events",
        format!("{} events/s, {:.0} MiB peak, {refusals} refusals", grouped(rate), memory as f64 / MIB),
        format!("{} events/s from a file", grouped(file)),
        format!("{:.2}", rate / file),
        "0.7",
    );
    Ok(())
}

/// Sixty-four connections of single events, each durable when answered.
pub fn single(bench: &Bench, report: &mut Report) -> Result<()> {
    let server = bench.program.serve(&bench.fresh("single")?)?;
    let outcome = send(
        &server.door,
        &bench.events_file,
        Load { connections: 64, events_per_request: 1, events: bench.events.min(HTTP_EVENTS), time: SINGLE_TIME },
    )?;
    server.stop()?;
    report.row(
        "single events, 64 connections",
        format!(
            "{} events/s, p50 {:.1} ms, p99 {:.1} ms, {} refusals",
            grouped(outcome.rate()),
            outcome.milliseconds(0.5),
            outcome.milliseconds(0.99),
            outcome.refusals
        ),
        "–",
        "–",
        "5,000/s",
    );
    Ok(())
}

/// Verification of the live store, all cores.
pub fn verify(bench: &Bench, report: &mut Report) -> Result<()> {
    let data = bench.filled()?;
    let mut rates = Vec::new();
    for _ in 0..bench.rounds {
        rates.push(bench.events as f64 / bench.program.run(&data, &["verify"])?.seconds);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let rate = median(rates);
    report.row("verify", format!("{} records/s, {} a core", grouped(rate), grouped(rate / cores)), "–", "–", "1.5 M/s a core");
    Ok(())
}

/// Aggregations over one month and over the year, against DuckDB on the same Parquet files.
pub fn sql(bench: &Bench, report: &mut Report) -> Result<()> {
    const MONTH: &str = "SELECT table_name, operation, count(*) AS changes, count(DISTINCT changed_by) AS people FROM audit.sys_audit_log \
        WHERE changed_at >= TIMESTAMP '2025-06-01T00:00:00Z' AND changed_at < TIMESTAMP '2025-07-01T00:00:00Z' \
        GROUP BY table_name, operation ORDER BY table_name, operation";
    const YEAR: &str = "SELECT date_trunc('month', changed_at) AS month, table_name, count(*) AS changes \
        FROM audit.sys_audit_log WHERE table_name NOT LIKE 'muniment.%' GROUP BY 1, 2 ORDER BY 1, 2";
    let data = bench.filled()?;
    settle(bench, &data)?;
    let pattern = data.join("objects/logs/sys_audit_log/**/*.parquet");
    let peer = peers::duckdb(bench.peer(), &pattern.to_string_lossy())?;
    // Beside the events, the log has changes of Muniment's own registers, such as users made at first sight.
    if (peer.figure("rows")? as u64) < bench.events {
        return Err(Error::new(format!("DuckDB sees {} rows in Parquet, expected {}", peer.figure("rows")?, bench.events)));
    }
    let server = bench.program.serve(&data)?;
    for (name, query) in [("month", MONTH), ("year", YEAR)] {
        let (seconds, changes) = time_query(&server, query)?;
        if changes != peer.figure(&format!("{name}_changes"))? as u64 {
            return Err(Error::new(format!("the {name} query counts {changes} changes, DuckDB another number")));
        }
        let theirs = peer.figure(&format!("{name}_seconds"))?;
        report.row(
            &format!("SQL: {name} aggregation, median of 5"),
            format!("{:.0} ms", seconds * 1e3),
            format!("{:.0} ms, {}", theirs * 1e3, peer.name()),
            format!("{:.2}", seconds / theirs),
            "at most 1.3",
        );
    }
    server.stop()
}

/// Median seconds of five runs after a first one, and the sum of the column `changes`.
fn time_query(server: &Server, query: &str) -> Result<(f64, u64)> {
    let mut client = Client::connect(&server.door)?;
    let body = json!({ "query": query }).to_string();
    let (mut times, mut changes) = (Vec::new(), 0);
    for _ in 0..6 {
        let start = Instant::now();
        let answer = client.post("/api/v1/sql", "application/x-ndjson", "application/json", body.as_bytes())?.ok("SQL")?;
        times.push(start.elapsed().as_secs_f64());
        changes = 0;
        for line in String::from_utf8_lossy(&answer).lines() {
            let row: Value = serde_json::from_str(line).context(|| format!("not a row: {line}"))?;
            changes += row["changes"].as_u64().unwrap_or(0);
        }
    }
    Ok((median(times.split_off(1)), changes))
}

/// History of single entities, drawn from all over the file.
pub fn history(bench: &Bench, report: &mut Report) -> Result<()> {
    let data = bench.filled()?;
    let server = bench.program.serve(&data)?;
    let mut client = Client::connect(&server.door)?;
    let mut times = Vec::new();
    for (table, key) in entities(&bench.events_file)? {
        let path = format!("/api/v1/entities/{table}/{key}/history");
        let start = Instant::now();
        let answer = client.get(&path, "application/json")?.ok(&path)?;
        times.push(start.elapsed().as_secs_f64());
        if !String::from_utf8_lossy(&answer).contains("INSERT") {
            return Err(Error::new(format!("{path} doesn't tell of the entity's start")));
        }
    }
    server.stop()?;
    times.sort_by(f64::total_cmp);
    report.row(
        &format!("history of one entity, {HISTORIES} at random"),
        format!("p50 {:.1} ms, p95 {:.1} ms", percentile(&times, 0.5) * 1e3, percentile(&times, 0.95) * 1e3),
        "–",
        "–",
        "p95 below 50 ms",
    );
    Ok(())
}

/// Table and key of events at positions spread evenly over the file.
fn entities(events: &Path) -> Result<Vec<(String, String)>> {
    let what = || format!("cannot read {}", events.display());
    let mut file = File::open(events).context(what)?;
    let length = file.metadata().context(what)?.len();
    let mut found = Vec::new();
    for index in 0..HISTORIES as u64 {
        file.seek(SeekFrom::Start(length / (HISTORIES as u64 + 1) * index)).context(what)?;
        let mut lines = BufReader::new(&file).lines().skip(1);
        let line = lines.next().ok_or_else(|| Error::new("too few events for this part"))?.context(what)?;
        let event: Value = serde_json::from_str(&line).context(what)?;
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        found.push((text("table_name"), text("primary_key")));
    }
    Ok(found)
}

/// From the start of the process to ready, with all events in the store.
pub fn restart(bench: &Bench, report: &mut Report) -> Result<()> {
    let data = bench.filled()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let server = bench.program.serve(&data)?;
        times.push(server.ready_after.as_secs_f64());
        server.stop()?;
    }
    report.row("restart to ready, median of 5", format!("{:.0} ms", median(times) * 1e3), "–", "–", "2 s at 20 M events");
    Ok(())
}
