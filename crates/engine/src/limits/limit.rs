//! A limit as it is configured, and which calls it is for.

use crate::error::{EngineError, Result};
use muniment_model::{Table, table};
use muniment_store::register::{RegisterRow, Value, Values};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Whose calls are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CountedBy {
    /// Those of a user.
    User,
    /// Those from an address; of IPv6, from a network of 64 bits.
    Address,
    /// Those with an API key.
    Key,
    /// Everybody's of an endpoint.
    Endpoint,
}

impl CountedBy {
    const ALL: [Self; 4] = [Self::User, Self::Address, Self::Key, Self::Endpoint];

    /// As in the register.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Address => "ADDRESS",
            Self::Key => "KEY",
            Self::Endpoint => "ENDPOINT",
        }
    }
}

/// Where a limit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Applications that ask before they act.
    Check,
    /// Records of `api_access_log`.
    Log,
    /// The API of Muniment itself.
    OwnApi,
}

fn yes() -> bool {
    true
}

fn minute() -> i64 {
    60
}

/// A rate limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The endpoint it is for, or the beginning of it and `*`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The method it is for.
    #[serde(default)]
    pub method: Option<String>,
    /// Whose calls are counted together.
    pub counted_by: CountedBy,
    /// The one user, address, network or key it is for.
    #[serde(default)]
    pub subject: Option<String>,
    /// Calls allowed within the window.
    pub limit_threshold: i64,
    /// Length of the window, seconds.
    #[serde(default = "minute")]
    pub time_window_seconds: i64,
    /// Calls allowed at once by the check.
    #[serde(default)]
    pub burst: Option<i64>,
    /// How long who exceeds it is blocked, minutes.
    #[serde(default)]
    pub block_minutes: i64,
    /// Whether it answers applications that ask.
    #[serde(default = "yes")]
    pub on_check: bool,
    /// Whether records of `api_access_log` are held against it.
    #[serde(default = "yes")]
    pub on_log: bool,
    /// Whether it protects the API of Muniment itself.
    #[serde(default)]
    pub on_own_api: bool,
    /// Whether it is in force.
    #[serde(default = "yes")]
    pub is_active: bool,
}

/// A call that is held against the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call<'a> {
    /// What is called.
    pub endpoint: &'a str,
    /// How.
    pub method: Option<&'a str>,
    /// Who, if known.
    pub user_id: Option<i64>,
    /// From where, if known.
    pub ip_address: Option<IpAddr>,
    /// With which key, if with one.
    pub api_key_id: Option<&'a str>,
    /// With which program, if known.
    pub user_agent: Option<&'a str>,
}

pub(super) fn register() -> Result<&'static Table> {
    table("rate_limits").ok_or_else(|| EngineError::NotFound("rate_limits".to_owned()))
}

impl Limit {
    pub(super) fn of_row(row: &RegisterRow) -> Option<Self> {
        let text = |name| row.text(name).map(str::to_owned);
        let counted_by = row.text("counted_by")?;
        Some(Self {
            name: text("name")?,
            endpoint: text("endpoint"),
            method: text("method"),
            counted_by: CountedBy::ALL.into_iter().find(|known| known.name() == counted_by)?,
            subject: text("subject"),
            limit_threshold: row.int("limit_threshold")?,
            time_window_seconds: row.int("time_window_seconds")?,
            burst: row.int("burst"),
            block_minutes: row.int("block_minutes").unwrap_or(0),
            on_check: row.bool("on_check"),
            on_log: row.bool("on_log"),
            on_own_api: row.bool("on_own_api"),
            is_active: row.bool("is_active"),
        })
    }

    pub(super) fn values(&self, now: i64) -> Values {
        vec![
            ("name", self.name.as_str().into()),
            ("endpoint", self.endpoint.clone().into()),
            ("method", self.method.clone().into()),
            ("counted_by", self.counted_by.name().into()),
            ("subject", self.subject.clone().into()),
            ("limit_threshold", self.limit_threshold.into()),
            ("time_window_seconds", self.time_window_seconds.into()),
            ("burst", self.burst.into()),
            ("block_minutes", self.block_minutes.into()),
            ("on_check", self.on_check.into()),
            ("on_log", self.on_log.into()),
            ("on_own_api", self.on_own_api.into()),
            ("is_active", self.is_active.into()),
            ("updated_at", Value::Int(now)),
        ]
    }

    /// What is wrong with it, by field.
    pub(super) fn validate(&self) -> Result<()> {
        let wrong = |name, reason: &str| Err(EngineError::Parameter { name, reason: reason.to_owned() });
        let length = |text: &str, most| (1..=most).contains(&text.chars().count()) && !text.contains('\0');
        if !length(&self.name, 100) || self.name.chars().any(|c| c == '|' || c == '/' || c.is_control()) {
            return wrong("name", "it has 1 to 100 characters, without `|` and `/`");
        }
        if self.endpoint.as_deref().is_some_and(|endpoint| !length(endpoint, 255)) {
            return wrong("endpoint", "it has 1 to 255 characters");
        }
        if self.method.as_deref().is_some_and(|method| !length(method, 255)) {
            return wrong("method", "it has 1 to 255 characters");
        }
        if !(1..=i64::from(i32::MAX)).contains(&self.limit_threshold) {
            return wrong("limit_threshold", "it is from 1 to 2147483647");
        }
        if !(1..=86_400).contains(&self.time_window_seconds) {
            return wrong("time_window_seconds", "it is from 1 to 86400");
        }
        if self.burst.is_some_and(|burst| !(1..=self.limit_threshold).contains(&burst)) {
            return wrong("burst", "it is from 1 to limit_threshold");
        }
        if !(0..=i64::from(i32::MAX)).contains(&self.block_minutes) {
            return wrong("block_minutes", "it is from 0 to 2147483647");
        }
        match (&self.subject, self.counted_by) {
            (None, _) => Ok(()),
            (Some(_), CountedBy::Endpoint) => wrong("subject", "everybody is counted together: give an endpoint instead"),
            (Some(subject), CountedBy::User) if subject.parse::<i64>().is_err() => wrong("subject", "it is the number of a user"),
            (Some(subject), CountedBy::Address) if Network::parse(subject).is_none() => {
                wrong("subject", "it is an address, or a network such as 10.0.0.0/8")
            }
            (Some(subject), _) if !length(subject, 255) => wrong("subject", "it has 1 to 255 characters"),
            (Some(_), _) => Ok(()),
        }
    }

    fn is_at(&self, door: Door) -> bool {
        match door {
            Door::Check => self.on_check,
            Door::Log => self.on_log,
            Door::OwnApi => self.on_own_api,
        }
    }

    fn is_for(&self, call: &Call<'_>) -> bool {
        let endpoint = self.endpoint.as_deref().is_none_or(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => call.endpoint.starts_with(beginning),
            None => call.endpoint == pattern,
        });
        endpoint && self.method.as_deref().is_none_or(|method| call.method.is_some_and(|called| called.eq_ignore_ascii_case(method)))
    }

    /// Who is counted; `None` if the call doesn't say, or the limit is for somebody else.
    fn counted(&self, call: &Call<'_>) -> Option<String> {
        let (subject, mine) = match self.counted_by {
            CountedBy::Endpoint => (self.endpoint.clone().unwrap_or_else(|| call.endpoint.to_owned()), true),
            CountedBy::User => {
                let user = call.user_id?.to_string();
                let mine = self.subject.as_ref().is_none_or(|subject| *subject == user);
                (user, mine)
            }
            CountedBy::Key => {
                let key = call.api_key_id?;
                (key.to_owned(), self.subject.as_deref().is_none_or(|subject| subject == key))
            }
            CountedBy::Address => {
                let address = call.ip_address?.to_canonical();
                let mine = self.subject.as_deref().is_none_or(|own| Network::parse(own).is_some_and(|own| own.contains(address)));
                (counted_address(address), mine)
            }
        };
        mine.then(|| subject.chars().take(255).collect())
    }

    fn counts_the_same(&self, other: &Self) -> bool {
        (self.counted_by, &self.endpoint, &self.method) == (other.counted_by, &other.endpoint, &other.method)
    }

    /// Calls allowed at once.
    pub(super) fn burst(&self) -> i64 {
        self.burst.unwrap_or(self.limit_threshold)
    }

    /// Start of the window of a time, µs UTC: windows follow each other from 1970 on.
    pub(super) fn window_of(&self, time: i64) -> i64 {
        let length = self.time_window_seconds * 1_000_000;
        time.div_euclid(length) * length
    }
}

/// Names the row of a violation.
pub(super) fn window_key(limit: &str, subject: &str, start: i64) -> String {
    format!("{limit}|{subject}|{}", start / 1_000_000)
}

/// The limits in force.
#[derive(Clone, Debug, Default)]
pub(super) struct LimitSet {
    limits: Vec<Limit>,
}

impl LimitSet {
    pub(super) fn new(limits: Vec<Limit>) -> Self {
        Self { limits: limits.into_iter().filter(|limit| limit.is_active).collect() }
    }

    /// The limits that a call counts towards, each with who is counted. One for somebody in particular stands in place of one for everybody.
    pub(super) fn of(&self, call: &Call<'_>, door: Door) -> Vec<(&Limit, String)> {
        let mut found: Vec<(&Limit, String)> = Vec::new();
        for limit in self.limits.iter().filter(|limit| limit.is_at(door) && limit.is_for(call)) {
            if let Some(subject) = limit.counted(call) {
                found.push((limit, subject));
            }
        }
        if found.iter().any(|(limit, _)| limit.subject.is_some()) {
            let particular: Vec<&Limit> = found.iter().map(|(limit, _)| *limit).filter(|limit| limit.subject.is_some()).collect();
            found.retain(|(limit, _)| limit.subject.is_some() || !particular.iter().any(|other| other.counts_the_same(limit)));
        }
        found
    }
}

/// An address of IPv6 is counted by its network of 64 bits, which is what a customer gets; one of IPv4 by itself.
fn counted_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            format!("{}/64", std::net::Ipv6Addr::from(network))
        }
    }
}

/// An address, or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = address.parse::<IpAddr>().ok()?.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
        Some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| self.bits == 0 || (a ^ b) >> (width - self.bits) == 0;
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(u32::from(own).into(), u32::from(other).into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.into(), other.into(), 128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn limit(name: &str, json: serde_json::Value) -> Limit {
        let mut limit: Limit = serde_json::from_value(json).unwrap();
        name.clone_into(&mut limit.name);
        limit.validate().unwrap();
        limit
    }

    fn set() -> LimitSet {
        use serde_json::json;
        LimitSet::new(vec![
            limit("login", json!({ "endpoint": "/login", "method": "POST", "counted_by": "ADDRESS", "limit_threshold": 5 })),
            limit("api", json!({ "endpoint": "/api/*", "counted_by": "USER", "limit_threshold": 100 })),
            limit("api-robot", json!({ "endpoint": "/api/*", "counted_by": "USER", "limit_threshold": 9000, "subject": "7" })),
            limit("office", json!({ "counted_by": "ADDRESS", "limit_threshold": 50, "subject": "10.1.0.0/16" })),
            limit("all", json!({ "endpoint": "/report", "counted_by": "ENDPOINT", "limit_threshold": 10 })),
            limit("key", json!({ "counted_by": "KEY", "limit_threshold": 10, "on_check": false })),
            limit("off", json!({ "counted_by": "ADDRESS", "limit_threshold": 1, "is_active": false })),
        ])
    }

    fn found(call: &Call<'_>) -> String {
        let found: Vec<String> = set().of(call, Door::Check).iter().map(|(limit, subject)| format!("{} {subject}", limit.name)).collect();
        found.join(", ")
    }

    #[test]
    fn a_call_counts_towards_the_limits_that_are_for_it() {
        let call = |endpoint, method, user_id, ip_address: Option<&str>| Call {
            endpoint,
            method: Some(method),
            user_id,
            ip_address: ip_address.map(|address| address.parse().unwrap()),
            api_key_id: Some("3"),
            ..Call::default()
        };
        assert_eq!(found(&call("/login", "post", None, Some("192.0.2.1"))), "login 192.0.2.1");
        assert_eq!(found(&call("/login", "GET", None, Some("192.0.2.1"))), "");
        assert_eq!(found(&call("/api/cases", "GET", Some(5), None)), "api 5");
        assert_eq!(found(&call("/api/cases", "GET", Some(7), Some("10.1.2.3"))), "api-robot 7, office 10.1.2.3");
        assert_eq!(found(&call("/report", "GET", Some(5), Some("2001:db8:1:2:3:4:5:6"))), "all /report");
        assert_eq!(found(&call("/login", "POST", None, Some("2001:db8:1:2:3:4:5:6"))), "login 2001:db8:1:2::/64");
        assert_eq!(found(&call("/login", "POST", None, Some("::ffff:192.0.2.1"))), "login 192.0.2.1");
    }

    #[test]
    fn what_is_wrong_is_named() {
        use serde_json::json;
        let check = |field: &str, json: serde_json::Value| {
            let mut limit: Limit = serde_json::from_value(json).unwrap();
            limit.name = "x".to_owned();
            let error = limit.validate().unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        };
        check("limit_threshold", json!({ "counted_by": "USER", "limit_threshold": 0 }));
        check("burst", json!({ "counted_by": "USER", "limit_threshold": 5, "burst": 6 }));
        check("time_window_seconds", json!({ "counted_by": "USER", "limit_threshold": 5, "time_window_seconds": 86_401 }));
        check("subject", json!({ "counted_by": "USER", "limit_threshold": 5, "subject": "an" }));
        check("subject", json!({ "counted_by": "ADDRESS", "limit_threshold": 5, "subject": "10.0.0.0/33" }));
        check("subject", json!({ "counted_by": "ENDPOINT", "limit_threshold": 5, "subject": "x" }));
    }
}
