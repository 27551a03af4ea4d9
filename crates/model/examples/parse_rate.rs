//! How fast change events become columns, and columns canonical bytes: `cargo run --release -p muniment-model --example parse_rate`.

use std::fmt::Write as _;
use std::time::Instant;

use muniment_model::{Format, Limits, ParseOptions, PayloadEncoder, parse, table};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: usize = 50_000;
/// Bytes of a smaller request, as it comes over HTTP or as a piece of a file.
const PIECE: usize = 1 << 20;
const ROUNDS: usize = 15;

fn events() -> String {
    let tables = ["case.hoso", "case.task", "document.file", "payment.invoice", "workflow.step", "identity.user_profile"];
    let users = ["tran.thi.lan", "nguyen.van.an", "le.thi.hoa", "pham.minh.duc"];
    let states = ["submitted", "in_review", "approved", "returned", "closed"];
    let mut out = String::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for i in 0..EVENTS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let pick = |n: usize, shift: u32| (random >> shift) as usize % n;
        let (key, user) = (100_000 + pick(900_000, 3), users[pick(4, 20)]);
        let (old, new) = (states[pick(5, 24)], states[pick(5, 28)]);
        let fee = pick(9_000_000, 8) as f64 / 100.0;
        let (minute, second) = (i / 60 % 60, i % 60);
        let micros = pick(1_000_000, 10);
        let _ = writeln!(
            out,
            "{{\"table_name\":\"{}\",\"operation\":\"UPDATE\",\"primary_key\":\"{key}\",\
             \"old_values\":{{\"id\":{key},\"status\":\"{old}\",\"assignee\":\"{user}\",\"fee\":{fee:.2}}},\
             \"new_values\":{{\"id\":{key},\"status\":\"{new}\",\"assignee\":\"{user}\",\"fee\":{fee:.2}}},\
             \"change_details\":\"status\",\"change_reason\":\"Bổ sung hồ sơ\",\"changed_by\":{},\"changed_by_username\":\"{user}\",\
             \"changed_at\":\"2025-03-14T08:{minute:02}:{second:02}.{micros:06}Z\",\"ip_address\":\"10.20.{}.{}\",\
             \"session_id\":\"s-{:012x}\",\"business_context\":\"HoSo Processing\",\"workflow_instance_id\":\"wf-{}\"}}",
            tables[pick(6, 32)],
            1000 + pick(400, 12),
            pick(250, 14),
            pick(250, 16),
            random >> 16,
            key % 5000,
        );
    }
    out
}

/// Cuts at line ends.
fn pieces(body: &str) -> Vec<&[u8]> {
    let mut rest = body.as_bytes();
    let mut pieces = Vec::new();
    while rest.len() > PIECE {
        let end = rest[PIECE..].iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| PIECE + at + 1);
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

fn best(mut work: impl FnMut()) -> f64 {
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_nanos() as f64 / EVENTS as f64
    };
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| time(&mut work)).collect();
    times.sort_by(f64::total_cmp);
    println!("  median {:.0} ns, best {:.0} ns an event", times[ROUNDS / 2], times[0]);
    times[0]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let log = table("sys_audit_log").ok_or("no such log")?;
    let body = events();
    println!("{EVENTS} events of {} bytes", body.len() / EVENTS);
    let mut uuid = || [7; 16];
    let mut options =
        ParseOptions { now: 0, format: Format::Ndjson, limits: Limits::default(), uuid: &mut uuid, retention_years: None, users: None };
    let parsed = parse(log, body.as_bytes(), &mut options)?;
    println!("parse, all at once");
    best(|| drop(std::hint::black_box(parse(log, body.as_bytes(), &mut options))));
    println!("parse, in pieces of a mebibyte");
    let pieces = pieces(&body);
    best(|| pieces.iter().for_each(|piece| drop(std::hint::black_box(parse(log, piece, &mut options)))));
    let batch = &parsed.batches[0].data;
    let encoder = PayloadEncoder::new(log, batch)?;
    let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
    println!("encode");
    best(|| encoder.encode_all(&mut bytes, &mut offsets));
    println!("  {} bytes of payload an event", offsets.last().copied().unwrap_or_default() / EVENTS);
    Ok(())
}
