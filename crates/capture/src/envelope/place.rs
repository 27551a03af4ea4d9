//! Where a change stands in its source, as a Debezium event's source block says: table, time, transaction, position.

use super::object::Object;

/// Members of the source block that make a position, by connector; the first that an event has counts.
const POSITIONS: &[&[&str]] = &[
    // SQL Server, Db2, Informix
    &["commit_lsn", "change_lsn", "event_serial_no"],
    // MySQL and MariaDB
    &["file", "pos", "row"],
    // Oracle
    &["scn", "commit_scn", "txId", "rs_id", "ssn", "txSeq"],
    // PostgreSQL
    &["lsn"],
    // MongoDB
    &["resume_token"],
    &["ts_ms", "ord", "h", "tord", "stxnid"],
    // Vitess, Spanner and others
    &["vgtid"],
    &["sequence"],
];

/// The first of its numbers that is none, with its value: times, and PostgreSQL's position.
pub(super) fn wrong_number(block: &Object<'_>) -> Option<(&'static str, String)> {
    let is_time =
        |name: &str, per_second: i64| block.int(name).is_some_and(|time| (0..=LAST_SECOND).contains(&time.div_euclid(per_second)));
    let times = [("ts_ms", 1_000), ("ts_us", 1_000_000), ("ts_ns", 1_000_000_000)];
    let times =
        times.into_iter().filter(|(name, per_second)| block.get(name).is_some() && !is_time(name, *per_second)).map(|(name, _)| name);
    let is_postgres = block.text("connector").as_deref() == Some("postgresql");
    let lsn = ["lsn"].into_iter().filter(|name| is_postgres && block.text(name).is_some_and(|lsn| lsn.parse::<u64>().is_err()));
    times.chain(lsn).map(|name| (name, block.get(name).unwrap_or_default().to_owned())).next()
}

/// The last second of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// Its position; `None` if the source block has none.
pub(super) fn position(source: &Object<'_>) -> Option<String> {
    let names = POSITIONS.iter().find(|names| source.get(names[0]).is_some() && (names[0] != "ts_ms" || source.get("ord").is_some()))?;
    if *names == ["lsn"] {
        let lsn: u64 = source.text("lsn")?.parse().ok()?;
        return Some(format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff));
    }
    let parts: Vec<_> = names.iter().filter_map(|name| source.text(name)).map(|part| part.trim().to_owned()).collect();
    Some(parts.join(":"))
}

/// Its table: with the schema where the source has schemas, with the database otherwise.
pub(super) fn table(source: &Object<'_>) -> Option<String> {
    let name = source.text("table").or_else(|| source.text("collection")).filter(|name| !name.is_empty())?;
    let space = ["schema", "db", "keyspace"].iter().find_map(|member| source.text(member).filter(|space| !space.is_empty()));
    Some(space.map_or_else(|| name.to_string(), |space| format!("{space}.{name}")))
}

/// Its time, as exactly as it is given, µs UTC. Zero is no time.
pub(super) fn time(block: &Object<'_>) -> Option<i64> {
    let micros = block.int("ts_us").or_else(|| block.int("ts_ns").map(|nanos| nanos.div_euclid(1000)));
    micros.or_else(|| block.int("ts_ms").and_then(|millis| millis.checked_mul(1000))).filter(|time| *time != 0)
}

/// Its transaction: as the connector numbers it in the event, else as the source block does.
pub(super) fn transaction(event: &Object<'_>, source: &Object<'_>) -> Option<String> {
    if let Some(id) = event.object("transaction").and_then(|transaction| transaction.text("id")) {
        return Some(id.into_owned());
    }
    if let Some(id) = number(source) {
        return Some(format!("{id}@{}", time(source).unwrap_or_default()));
    }
    ["gtid", "commit_lsn"].iter().find_map(|name| source.text(name)).map(|id| id.trim().to_owned())
}

/// The number of its transaction at the source.
pub(super) fn number(source: &Object<'_>) -> Option<String> {
    ["txId", "stxnid", "txnNumber"].iter().find_map(|name| source.text(name)).map(|id| id.into_owned())
}

/// Its place in its transaction.
pub(super) fn order(event: &Object<'_>) -> Option<(String, i64)> {
    let transaction = event.object("transaction")?;
    Some((transaction.text("id")?.into_owned(), transaction.int("total_order")?))
}

/// Whether the row was read by a snapshot.
pub(super) fn is_snapshot(source: &Object<'_>) -> bool {
    source.text("snapshot").is_some_and(|snapshot| snapshot != "false")
}
