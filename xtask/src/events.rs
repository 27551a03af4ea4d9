//! Change events of an imagined agency, for benchmarks: NDJSON for `sys_audit_log`, the same bytes for the same seed.
//!
//! Six tables of a case system live through twelve months of office hours. Every entity has a state, so the old values of
//! an update are the new values of the change before it, and about twenty changes fall on each entity, more of them on
//! recent ones.

mod json;
mod tables;

use std::io::{self, Write};

use json::{Object, number, padded, timestamp};
use tables::{Change, LOGIN_FAMILY, LOGIN_GIVEN, REASON, TABLES, Table, choose_table};

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of events, one a line.
    pub count: u64,
    /// Start of the random sequence; equal seeds give equal bytes.
    pub seed: u64,
}

/// What was generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Lines written.
    pub events: u64,
    /// Bytes written, line ends included.
    pub bytes: u64,
    /// Entities that were inserted.
    pub entities: u64,
}

/// Writes the events to `out`.
///
/// # Errors
///
/// Whatever `out` answers.
pub fn write(out: &mut impl Write, options: Options) -> io::Result<Written> {
    let mut agency = Agency::new(options.seed);
    let mut written = Written { events: options.count, bytes: 0, entities: 0 };
    let mut line = Vec::with_capacity(2048);
    let clock = Clock { count: options.count.max(1) };
    for number in 0..options.count {
        line.clear();
        agency.event(clock.time(number, &mut agency.random.clone()), &mut line);
        written.bytes += line.len() as u64;
        out.write_all(&line)?;
    }
    written.entities = agency.tables.iter().map(|table| table.inserted).sum();
    Ok(written)
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast and good enough to imitate an office.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// A number below `end`, small ones more often: the square of a uniform one.
    fn skewed(&mut self, end: u64) -> u64 {
        let uniform = self.next() >> 32;
        ((u128::from(uniform * uniform) * u128::from(end)) >> 64) as u64
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Spreads the events over the office hours of twelve months, in order, to the microsecond.
struct Clock {
    count: u64,
}

const MICROS: u64 = 1_000_000;
const DAY: u64 = 86_400;
/// 2025-01-01T00:00:00Z, a Wednesday, in seconds.
const YEAR_START: u64 = 1_735_689_600;
const OFFICE_OPENS: u64 = 7 * 3_600 + 1_800;
const OFFICE_SECONDS: u64 = 10 * 3_600;
/// Working days of 2025, Mondays to Fridays.
const WORKING_DAYS: u64 = 261;

impl Clock {
    /// Microseconds since 1970 of event `number`; grows with it.
    fn time(&self, number: u64, random: &mut Random) -> u64 {
        let span = WORKING_DAYS * OFFICE_SECONDS * MICROS;
        let from = (u128::from(span) * u128::from(number) / u128::from(self.count)) as u64;
        let end = (u128::from(span) * u128::from(number + 1) / u128::from(self.count)) as u64;
        let worked = from + random.below((end - from).max(1));
        let working_day = worked / (OFFICE_SECONDS * MICROS);
        // Working day 0 is a Wednesday; two days are skipped at each week's end.
        let day = working_day + (working_day + 2) / 5 * 2;
        (YEAR_START + day * DAY + OFFICE_OPENS) * MICROS + worked % (OFFICE_SECONDS * MICROS)
    }
}

/// People who work in the agency.
const USERS: u64 = 800;

struct User {
    id: u64,
    username: String,
    address: String,
    session: u64,
    session_day: u64,
}

struct Agency {
    random: Random,
    users: Vec<User>,
    tables: Vec<Table>,
}

impl Agency {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let users = (0..USERS)
            .map(|index| User {
                id: 1_000 + index,
                username: format!("{}.{}{}", random.pick(&LOGIN_GIVEN), random.pick(&LOGIN_FAMILY), index % 97),
                address: format!("10.{}.{}.{}", 16 + index / 100, 1 + random.below(24), 2 + random.below(250)),
                session: 0,
                session_day: 0,
            })
            .collect();
        let tables = TABLES.iter().map(|&(kind, _, inserts)| Table { kind, inserts, entities: Vec::new(), inserted: 0 }).collect();
        Self { random, users, tables }
    }

    fn event(&mut self, time: u64, line: &mut Vec<u8>) {
        let random = &mut self.random;
        let table = &mut self.tables[choose_table(random)];
        let kind = table.kind;
        let Change { operation, entity, old, new } = table.change(random, time);
        let user = &mut self.users[random.skewed(USERS) as usize];
        let day = time / (DAY * MICROS);
        if user.session_day != day {
            (user.session_day, user.session) = (day, random.next());
        }

        let mut event = Object::new(line)
            .text("table_name", &[kind.name()])
            .text("operation", &[operation])
            .text("primary_key", &[&number(entity.number)]);
        if let Some(old) = &old {
            kind.row(old, event.value("old_values"));
        }
        if let Some(new) = &new {
            kind.row(new, event.value("new_values"));
        }
        if let (Some(old), Some(new)) = (&old, &new)
            && old.status != new.status
        {
            let (field, names) = kind.status();
            let (from, to) = (names[usize::from(old.status)], names[usize::from(new.status)]);
            event = event.text("change_details", &[field, ": ", from, " -> ", to]);
        }
        event = event.number("changed_by", user.id).text("changed_by_username", &[&user.username]);
        timestamp(time, event.value("changed_at"));
        event = event.text("ip_address", &[&user.address]).text("session_id", &[&format!("{:016x}", user.session)]);
        if random.percent(8) {
            event = event.text("change_reason", &[random.pick(&REASON)]);
        }
        if random.percent(80) {
            event = event.text("business_context", &[kind.context(random)]);
        }
        if kind.has_workflow() {
            event = event.text("workflow_instance_id", &["WF-25-", &padded(entity.case(), 7)]);
        }
        event.end();
        line.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use std::collections::HashMap;

    fn events(count: u64, seed: u64) -> (Vec<serde_json::Value>, Written) {
        let mut bytes = Vec::new();
        let written = write(&mut bytes, Options { count, seed }).unwrap();
        assert_eq!(written.bytes, bytes.len() as u64);
        let lines = String::from_utf8(bytes).unwrap();
        (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), written)
    }

    #[test]
    fn same_seed_same_bytes() {
        assert_eq!(events(500, 7), events(500, 7));
        assert_ne!(events(500, 7).0, events(500, 8).0);
    }

    #[test]
    fn old_values_are_the_new_values_of_the_change_before() {
        let mut rows: HashMap<(String, String), serde_json::Value> = HashMap::new();
        for event in events(20_000, 1).0 {
            let key = (event["table_name"].to_string(), event["primary_key"].to_string());
            assert_eq!(rows.get(&key), event.get("old_values"), "{event}");
            match event.get("new_values") {
                Some(new) => rows.insert(key, new.clone()),
                None => rows.remove(&key),
            };
        }
    }

    #[test]
    fn size_mix_and_time_are_as_described() {
        let (events, written) = events(50_000, 1);
        let mean = written.bytes / written.events;
        assert!((500..550).contains(&mean), "mean line is {mean} bytes");
        assert!((15..25).contains(&(written.events / written.entities)), "{written:?}");
        let times: Vec<_> = events.iter().map(|event| event["changed_at"].as_str().unwrap()).collect();
        assert!(times.is_sorted());
        assert!(times[0].starts_with("2025-01-01T07:") && times[49_999].starts_with("2025-12-31T17:"));
        for operation in ["INSERT", "UPDATE", "DELETE"] {
            assert!(events.iter().any(|event| event["operation"] == operation));
        }
    }
}
