//! What access costs: the same load on a server that asks for keys and on one that asks for nothing, in turns.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Bench;
use super::http::{Client, Door};
use super::load::{Load, send};
use super::report::{Report, grouped, median};
use crate::error::Result;

/// Events of a round of bulk ingest, and of single events at most.
const EVENTS: u64 = 600_000;
/// Time of a round of single events, and of small questions.
const TIME: Duration = Duration::from_secs(8);
/// Connections of small questions: as many as keep the cores busy, and so few that each waits for the record of its reading to be durable.
const ASKING: [usize; 2] = [64, 8];
/// A question that takes little but the way to it: what access costs shows most there.
const QUESTION: &str = "SELECT id, table_name, operation FROM sys_audit_log WHERE id = 1";
/// Keys against open.
const MUST: &str = "0.95";

/// Rates of one round.
#[derive(Clone, Copy, Debug)]
struct Rates {
    bulk: f64,
    single: f64,
    questions: [f64; 2],
}

/// Ingest in bulk, single events and small questions over HTTP, with keys and without.
pub fn access(bench: &Bench, report: &mut Report) -> Result<()> {
    let (mut keys, mut open) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        // Whoever is first changes from round to round, so that neither has the warmer machine.
        for with_keys in if round % 2 == 0 { [true, false] } else { [false, true] } {
            let rates = round_of(bench, with_keys)?;
            eprintln!("{}: {rates:?}", if with_keys { "keys" } else { "open" });
            (if with_keys { &mut keys } else { &mut open }).push(rates);
        }
    }
    let of = |rates: &[Rates], which: fn(&Rates) -> f64| median(rates.iter().map(which).collect());
    let mut row = |what: &str, unit: &str, which: fn(&Rates) -> f64| {
        let (ours, theirs) = (of(&keys, which), of(&open, which));
        let figure = |rate: f64| format!("{} {unit}/s", grouped(rate));
        report.row(what, format!("{} with keys", figure(ours)), format!("{} open", figure(theirs)), format!("{:.3}", ours / theirs), MUST);
    };
    row("access: ingest over HTTP, 8 connections of 1,000 events", "events", |rates| rates.bulk);
    row("access: single events, 64 connections", "events", |rates| rates.single);
    row("access: small questions in SQL over HTTP, 64 connections", "questions", |rates| rates.questions[0]);
    row("access: the same, 8 connections, which wait for the record of each reading", "questions", |rates| rates.questions[1]);
    Ok(())
}

fn round_of(bench: &Bench, with_keys: bool) -> Result<Rates> {
    let data = bench.fresh("access")?;
    let server = if with_keys { bench.program.serve(&data)? } else { bench.program.serve_open(&data)? };
    let bulk = Load { connections: 8, events_per_request: 1_000, events: bench.events.min(EVENTS), time: Duration::from_secs(600) };
    let bulk = send(&server.door, &bench.events_file, bulk)?.rate();
    let single = Load { connections: 64, events_per_request: 1, events: bench.events.min(EVENTS), time: TIME };
    let single = send(&server.door, &bench.events_file, single)?.rate();
    let [many, few] = ASKING;
    let questions = [ask(&server.door, many)?, ask(&server.door, few)?];
    server.stop()?;
    Ok(Rates { bulk, single, questions })
}

/// Questions a second over so many connections.
fn ask(door: &Door, connections: usize) -> Result<f64> {
    let start = Instant::now();
    let body = json!({ "query": QUESTION }).to_string();
    let one = || {
        let mut client = Client::connect(door)?;
        let mut asked = 0_u64;
        while start.elapsed() < TIME {
            client.post("/api/v1/sql", "application/json", "application/json", body.as_bytes())?.ok("a question")?;
            asked += 1;
        }
        Ok(asked)
    };
    let asked: Result<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(crate::error::Error::new("a connection failed")))).collect()
    });
    Ok(asked?.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64())
}
