//! The agency: people at work through the hours of the day, and the attacks among them.

use super::access::{self, Elsewhere};
use super::cases::Cases;
use super::events::{Events, Log, stamp};
use super::random::Random;
use super::staff::{Person, Role, hire};
use serde_json::json;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Hours of the agency's clock ahead of UTC.
const AHEAD: i64 = 7;
/// Days of the past that are filled in.
pub const DAYS: i64 = 30;

/// Address of whoever tries passwords; addresses of attackers are those reserved for documentation.
pub const SPRAYER: &str = "203.0.113.77";
const FAR_AWAY: &str = "198.51.100.23";

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// A few passwords are tried on every account from one address; one fits.
    PasswordSpraying,
    /// Somebody logs in from the other end of the world minutes after a log-in at the office.
    ImpossibleTravel,
    /// An administrator reads hundreds of cases one after the other.
    MassReading,
    /// Somebody at the database changes a payment, past the application.
    UnattributedChange,
}

/// Attacks come in this order.
pub const ATTACKS: [Attack; 4] = [Attack::PasswordSpraying, Attack::ImpossibleTravel, Attack::MassReading, Attack::UnattributedChange];

/// The agency, the same for the same seed.
pub struct Agency {
    random: Random,
    /// Who works there.
    pub staff: Vec<Person>,
    cases: Cases,
    /// Events that wait to be sent.
    pub events: Events,
    /// Key of a payment that was tampered with.
    pub tampered: Option<String>,
}

impl Agency {
    /// An agency whose next case gets the number after this one.
    pub fn new(seed: u64, after: u64) -> Self {
        let mut random = Random::new(seed);
        let staff = hire(&mut random);
        Self { random, staff, cases: Cases::new(after), events: Events::default(), tampered: None }
    }

    /// Something happens.
    pub fn step(&mut self, time: i64) {
        let random = &mut self.random;
        let events = &mut self.events;
        if random.percent(14) {
            return access::measure(time, load(time), random, events);
        }
        let place = random.place(self.staff.len());
        let person = &mut self.staff[place];
        access::ensure_session(person, time, random, events);
        let case = self.cases.some_key(random);
        match random.below(100) {
            0..36 if person.role != Role::Administrator => self.cases.work(person, time, random, events),
            0..78 => access::call(person, time, &case, random, events),
            _ => access::permission(person, time, &case, random, events),
        }
    }

    /// Fills in the days before `now` with about so many events; after each step `sent` may take what waits.
    pub fn past(&mut self, now: i64, count: u64) -> Past {
        let start = now - DAYS * DAY;
        let hours: Vec<f64> = (0..DAYS * 24).map(|hour| load(start + hour * HOUR)).collect();
        let total: f64 = hours.iter().sum();
        let night = |days_ago: i64, hour: i64, minute: i64| (now - days_ago * DAY) / DAY * DAY + (hour - AHEAD) * HOUR + minute * MINUTE;
        let mut attacks = vec![
            (night(9, 26, 14), Attack::PasswordSpraying),
            (night(6, 10, 5), Attack::ImpossibleTravel),
            (night(4, 22, 40), Attack::MassReading),
            (night(2, 27, 12), Attack::UnattributedChange),
        ];
        attacks.reverse();
        Past { start, hours, total, hour: 0, before: 0.0, count, attacks, attacked: 0 }
    }

    /// One step into the past. Returns `false` when it is filled in.
    pub fn fill(&mut self, past: &mut Past) -> bool {
        let ordinary = self.events.total - past.attacked;
        if ordinary >= past.count {
            return false;
        }
        let time = past.time(ordinary, self.random.share());
        while let Some((_, attack)) = past.attacks.pop_if(|(due, _)| *due <= time) {
            let before = self.events.total;
            self.attack(attack, time);
            past.attacked += self.events.total - before;
        }
        self.step(time);
        true
    }

    /// An attack begins at this time.
    pub fn attack(&mut self, attack: Attack, time: i64) {
        match attack {
            Attack::PasswordSpraying => self.spray(time),
            Attack::ImpossibleTravel => self.travel(time),
            Attack::MassReading => self.read_all(time),
            Attack::UnattributedChange => self.tampered = self.cases.tamper(time, &mut self.events).or(self.tampered.take()),
        }
    }

    fn spray(&mut self, time: i64) {
        let from = Elsewhere { address: SPRAYER, agent: "python-requests/2.32.3", location: json!({ "city": "unknown", "country": "ZZ" }) };
        let mut at = time;
        for round in 0..2 {
            for person in self.staff.iter_mut().filter(|person| person.role != Role::Service) {
                at += SECOND + self.random.below(4 * SECOND as u64) as i64;
                let open = person.session.clone();
                let fits = round == 1 && person.id == 17;
                access::log_in(person, at, Some(&from), (!fits).then_some("wrong password"), &mut self.random, &mut self.events);
                person.session = open;
            }
        }
    }

    fn travel(&mut self, time: i64) {
        let person = &mut self.staff[11];
        access::log_in(person, time, None, None, &mut self.random, &mut self.events);
        let office = person.session.clone();
        let agent = person.agent.clone();
        let from = Elsewhere { address: FAR_AWAY, agent: &agent, location: json!({ "city": "Sao Paulo", "country": "BR" }) };
        access::log_in(person, time + 23 * MINUTE, Some(&from), None, &mut self.random, &mut self.events);
        person.session = office;
    }

    fn read_all(&mut self, time: i64) {
        let administrator = &mut self.staff[1];
        access::ensure_session(administrator, time, &mut self.random, &mut self.events);
        let mut at = time;
        for _ in 0..420 {
            at += SECOND + self.random.below(3 * SECOND as u64) as i64;
            let case = self.cases.some_key(&mut self.random);
            access::request(administrator, at, ("GET", &format!("/api/cases/{case}"), 200), &mut self.random, &mut self.events);
            if self.random.percent(25) {
                let resource = format!("case.hoso/{case}");
                access::check(administrator, at, "case.read", &resource, true, &mut self.random, &mut self.events);
            }
        }
        self.events.push(Log::Security, json!({
            "event_type": "EXPORT", "event_category": "DATA_ACCESS", "severity": 3, "user_id": administrator.id, "username": administrator.username,
            "ip_address": administrator.address, "resource_accessed": "case.hoso", "permission_checked": "report.export", "access_granted": true,
            "risk_score": 70, "threat_indicators": ["volume", "time of day"], "requires_investigation": true, "investigation_status": 1,
            "event_time": stamp(at),
        }));
    }
}

/// The days that are being filled in.
pub struct Past {
    start: i64,
    hours: Vec<f64>,
    total: f64,
    hour: usize,
    before: f64,
    count: u64,
    attacks: Vec<(i64, Attack)>,
    /// Events of attacks until now, which come on top.
    attacked: u64,
}

impl Past {
    /// Time of event `number`, µs UTC: the busier an hour, the more of them lie in it.
    fn time(&mut self, number: u64, share: f64) -> i64 {
        let wanted = (number as f64 + share) / self.count as f64 * self.total;
        while self.hour + 1 < self.hours.len() && self.before + self.hours[self.hour] < wanted {
            self.before += self.hours[self.hour];
            self.hour += 1;
        }
        let within = ((wanted - self.before) / self.hours[self.hour]).clamp(0.0, 1.0);
        self.start + self.hour as i64 * HOUR + (within * HOUR as f64) as i64
    }
}

/// How busy the agency is at a time, from 0 to 1.
fn load(time: i64) -> f64 {
    let local = time + AHEAD * HOUR;
    // Day 0 of the calendar was a Thursday.
    let weekend = matches!((local.div_euclid(DAY) + 3).rem_euclid(7), 5 | 6);
    let day = match local.rem_euclid(DAY) / HOUR {
        8..=10 | 14..=16 => 1.0,
        11 | 13 | 17 => 0.7,
        12 => 0.4,
        7 | 18 => 0.25,
        19..=22 => 0.08,
        _ => 0.02,
    };
    if weekend { day * 0.12 } else { day }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-02T05:00:00Z.
    const NOW: i64 = 1_772_427_600_000_000;

    fn past(seed: u64) -> Vec<(&'static str, Vec<u8>)> {
        let mut agency = Agency::new(seed, 0);
        let mut past = agency.past(NOW, 5_000);
        while agency.fill(&mut past) {}
        agency.events.take(1)
    }

    #[test]
    fn the_same_seed_makes_the_same_events() {
        assert_eq!(past(7), past(7));
        assert_ne!(past(7), past(8));
    }

    #[test]
    fn every_event_is_valid_and_every_log_is_filled() {
        let bodies = past(1);
        assert_eq!(bodies.len(), 5);
        for (log, body) in bodies {
            let mut uuid = || [0; 16];
            let limits = muniment_model::Limits::default();
            let mut options = muniment_model::ParseOptions {
                now: NOW,
                format: muniment_model::Format::Ndjson,
                limits,
                uuid: &mut uuid,
                retention_years: None,
                users: None,
            };
            let parsed = muniment_model::table(log).map(|table| muniment_model::parse(table, &body, &mut options));
            let records = parsed.and_then(Result::ok).map(|parsed| parsed.records);
            assert!(records.is_some_and(|records| records > 100), "{log}: {records:?}");
        }
    }

    #[test]
    fn attacks_are_among_them() {
        let bodies = past(1);
        let found = |text: &str| bodies.iter().map(|(_, body)| String::from_utf8_lossy(body).matches(text).count()).sum::<usize>();
        assert!(found(SPRAYER) > 150);
        assert!(found(FAR_AWAY) == 2);
        assert!(found("\"psql\"") >= 1);
        assert!(found("report.export") >= 1);
    }

    #[test]
    fn offices_are_busy_by_day() {
        assert!(load(NOW) > 10.0 * load(NOW + 14 * HOUR));
    }
}
