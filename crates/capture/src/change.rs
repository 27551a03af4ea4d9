//! One change of one row, whatever it came from, and the line of `sys_audit_log` it becomes.

use crate::row::{cut, without_nul, write_string};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// Most characters of `sys_audit_log.primary_key`.
const KEY_CHARS: usize = 100;
/// Characters of a long key that are kept before its hash.
const KEY_PREFIX: usize = 64;

/// What happened to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// The row came into being.
    Insert,
    /// The row changed.
    Update,
    /// The row went.
    Delete,
    /// All rows of the table went.
    Truncate,
    /// The row was there when capture began, or began again.
    Snapshot,
    /// The table itself changed.
    Ddl,
}

impl Operation {
    /// As in `sys_audit_log.operation`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::Snapshot => "SNAPSHOT",
            Self::Ddl => "DDL",
        }
    }
}

/// How it is known who made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Attribution {
    /// The application said so in the transaction.
    Application,
    /// Only the database's own user is known.
    Database,
    /// Nobody could be named.
    None,
}

impl Attribution {
    /// As in `sys_audit_log.attribution`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Application => "APPLICATION",
            Self::Database => "DATABASE",
            Self::None => "NONE",
        }
    }
}

/// Who made a change and why, as the application says in the transaction: the JSON object of `muniment.context`. Unknown members are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// Who, by number: `users.id`.
    #[serde(deserialize_with = "whole_number")]
    pub user_id: Option<i64>,
    /// Who, by name.
    pub user_name: Option<String>,
    /// Session of the application.
    pub session_id: Option<String>,
    /// Address the request came from.
    pub ip_address: Option<String>,
    /// Program the request came from.
    pub user_agent: Option<String>,
    /// Business process.
    pub business_context: Option<String>,
    /// Why.
    pub change_reason: Option<String>,
    /// Workflow instance.
    pub workflow_instance_id: Option<String>,
    /// Ties together what one request caused.
    pub correlation_id: Option<String>,
    /// Sensitivity, 1 to 3; more counts as 3.
    #[serde(deserialize_with = "whole_number")]
    pub compliance_level: Option<i64>,
}

/// Most bytes of a context.
const MAX_CONTEXT_BYTES: usize = 64 << 10;
/// Members of a context that are whole numbers.
const WHOLE: [&str; 2] = ["user_id", "compliance_level"];

impl Context {
    /// Reads the text of a context and says what in it could not be understood. Nothing, `null` and `{}` are no context.
    pub(crate) fn read(text: &[u8]) -> (Self, Option<String>) {
        let text = text.trim_ascii();
        if text.is_empty() || text == b"null" {
            return (Self::default(), None);
        }
        if text.len() > MAX_CONTEXT_BYTES {
            return (Self::default(), Some(format!("{} bytes", text.len())));
        }
        if text.first() != Some(&b'{') {
            return (Self::default(), Some("it is no JSON object".to_owned()));
        }
        if let Ok(context) = serde_json::from_slice(text) {
            return (context, None);
        }
        match serde_json::from_slice(text) {
            Ok(members) => Self::member_by_member(members),
            Err(error) => (Self::default(), Some(error.to_string())),
        }
    }

    /// One bad member does not spoil the others; where a text is wanted, any other value is its JSON.
    fn member_by_member(members: Map<String, Value>) -> (Self, Option<String>) {
        let (mut good, mut bad) = (Map::new(), Vec::new());
        for (name, value) in members {
            let value = match value {
                Value::String(_) | Value::Null => value,
                other if WHOLE.contains(&name.as_str()) => other,
                other => Value::String(other.to_string()),
            };
            let member = Map::from_iter([(name, value)]);
            match serde_json::from_value::<Self>(Value::Object(member.clone())) {
                Ok(_) => good.extend(member),
                Err(error) => bad.extend(member.keys().map(|name| format!("{name}: {error}"))),
            }
        }
        let context = serde_json::from_value(Value::Object(good)).unwrap_or_default();
        (context, (!bad.is_empty()).then(|| bad.join("; ")))
    }

    /// Whether it says who.
    pub(crate) fn names_somebody(&self) -> bool {
        self.user_id.is_some() || self.user_name.is_some()
    }

    /// The address, without a port that stands behind it.
    fn address(&self) -> Option<String> {
        let text = self.ip_address.as_deref()?.trim();
        let plain = text.parse::<IpAddr>();
        let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
        plain.ok().or_else(bracketed).or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())).map(|address| address.to_string())
    }
}

/// A whole number, or its digits as a text, as JavaScript and some drivers write large ones.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    struct WholeNumber;

    impl Visitor<'_> for WholeNumber {
        type Value = Option<i64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
            Ok(Some(number))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
            i64::try_from(number).map(Some).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
        }

        fn visit_str<E: Error>(self, digits: &str) -> Result<Self::Value, E> {
            digits.parse().map(Some).map_err(|_| E::custom("a text where a whole number was expected"))
        }
    }
    deserializer.deserialize_any(WholeNumber)
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The table with its schema, unquoted: `case.hoso`.
    pub table: Cow<'a, str>,
    /// What happened.
    pub operation: Operation,
    /// Key of the row, see [`key_text`]; `*` for a whole table.
    pub key: Cow<'a, str>,
    /// The row before, a JSON object.
    pub old: Option<&'a str>,
    /// The row after, a JSON object.
    pub new: Option<&'a str>,
    /// Summary: changed columns, or the statement of a DDL change.
    pub details: Option<Cow<'a, str>>,
    /// Time of the change at the source (its commit, where known), µs UTC.
    pub changed_at: i64,
    /// The source's transaction, unique over all sources: `<source>:<number>@<position of its commit>`.
    pub transaction: Option<&'a str>,
    /// Identity of the change, unique over all sources: `<source>:<position>`.
    pub position: Option<&'a str>,
    /// Who and why.
    pub context: &'a Context,
    /// How that is known.
    pub attribution: Attribution,
}

/// The text of a key: the value itself if one column makes it, a JSON array of the values' texts otherwise. A key longer than the column allows
/// keeps its first 64 characters and is told apart by its hash.
pub fn key_text<'a>(values: &[Option<&'a str>]) -> Cow<'a, str> {
    let text: Cow<'a, str> = match values {
        [Some(value)] => Cow::Borrowed(*value),
        _ => Cow::Owned(serde_json::json!(values).to_string()),
    };
    if text.len() <= KEY_CHARS || text.chars().count() <= KEY_CHARS {
        return text;
    }
    let prefix: String = text.chars().take(KEY_PREFIX).collect();
    Cow::Owned(format!("{prefix}~{}", hex::encode(&Sha256::digest(text.as_bytes())[..16])))
}

/// What the lines of a transaction have in common: when, in which transaction, who, why. Written once, appended to each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineTail(Vec<u8>);

impl LineTail {
    /// Texts longer than their column are cut; an address that is none is left out.
    pub fn new(context: &Context, attribution: Attribution, changed_at: i64, transaction: Option<&str>) -> Self {
        let mut out = Vec::with_capacity(256);
        let text = |name: &str, value: Option<&str>, chars: usize, out: &mut Vec<u8>| {
            let Some(value) = value else { return };
            out.extend_from_slice(name.as_bytes());
            write_string(cut(&without_nul(value), chars), out);
        };
        // Writing to a vector can't fail.
        if let Some(user) = context.user_id {
            let _ = write!(out, ",\"changed_by\":{user}");
        }
        text(",\"changed_by_username\":", context.user_name.as_deref(), 100, &mut out);
        let _ = write!(out, ",\"changed_at\":{changed_at}");
        text(",\"ip_address\":", context.address().as_deref(), 64, &mut out);
        text(",\"user_agent\":", context.user_agent.as_deref(), 500, &mut out);
        text(",\"session_id\":", context.session_id.as_deref(), 128, &mut out);
        text(",\"change_reason\":", context.change_reason.as_deref(), 200, &mut out);
        text(",\"business_context\":", context.business_context.as_deref(), 200, &mut out);
        text(",\"workflow_instance_id\":", context.workflow_instance_id.as_deref(), 255, &mut out);
        if let Some(level) = context.compliance_level.filter(|level| *level >= 1).map(|level| level.min(3)) {
            let _ = write!(out, ",\"compliance_level\":{level}");
        }
        text(",\"transaction_id\":", transaction, 128, &mut out);
        text(",\"correlation_id\":", context.correlation_id.as_deref(), 128, &mut out);
        text(",\"attribution\":", Some(attribution.as_str()), 12, &mut out);
        out.extend_from_slice(b"}\n");
        Self(out)
    }
}

/// A line before its tail. `old` and `new` must be JSON.
pub(crate) struct LineHead<'a> {
    pub table: &'a str,
    pub operation: Operation,
    pub key: &'a str,
    pub old: Option<&'a [u8]>,
    pub new: Option<&'a [u8]>,
    pub details: Option<&'a str>,
    pub position: Option<&'a str>,
}

impl LineHead<'_> {
    /// Appends the line, with its line end.
    pub fn write(&self, tail: &LineTail, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"table_name\":");
        write_string(cut(self.table, 128), out);
        out.extend_from_slice(b",\"operation\":\"");
        out.extend_from_slice(self.operation.as_str().as_bytes());
        out.extend_from_slice(b"\",\"primary_key\":");
        write_string(&without_nul(self.key), out);
        if let Some(old) = self.old {
            out.extend_from_slice(b",\"old_values\":");
            out.extend_from_slice(old);
        }
        if let Some(new) = self.new {
            out.extend_from_slice(b",\"new_values\":");
            out.extend_from_slice(new);
        }
        if let Some(details) = self.details {
            out.extend_from_slice(b",\"change_details\":");
            write_string(cut(&without_nul(details), 1000), out);
        }
        if let Some(position) = self.position {
            out.extend_from_slice(b",\"source_position\":");
            write_string(cut(position, 128), out);
        }
        out.extend_from_slice(&tail.0);
    }
}

/// A JSON document without line ends, which can only stand between its tokens.
fn one_line(text: &str) -> serde_json::Result<Cow<'_, str>> {
    serde_json::from_str::<&RawValue>(text)?;
    Ok(if text.contains(['\n', '\r']) { Cow::Owned(text.replace(['\n', '\r'], " ")) } else { Cow::Borrowed(text) })
}

impl Change<'_> {
    /// Appends the change as one line of `sys_audit_log`, with its line end. Texts longer than their column are cut; an address that is none is left out.
    ///
    /// # Errors
    /// If `old` or `new` is not JSON.
    pub fn write(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let (old, new) = (self.old.map(one_line).transpose()?, self.new.map(one_line).transpose()?);
        let tail = LineTail::new(self.context, self.attribution, self.changed_at, self.transaction);
        let line = LineHead {
            table: &self.table,
            operation: self.operation,
            key: &self.key,
            old: old.as_deref().map(str::as_bytes),
            new: new.as_deref().map(str::as_bytes),
            details: self.details.as_deref(),
            position: self.position,
        };
        line.write(&tail, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_bad_member_of_a_context_does_not_spoil_the_others() {
        let text = br#" {"user_id":"seven","user_name":"lan","session_id":17,"business_context":{"case":12},"change_reason":true,"compliance_level":[2],"other":[]} "#;
        let (context, bad) = Context::read(text);
        let expected = Context {
            user_name: Some("lan".into()),
            session_id: Some("17".into()),
            business_context: Some(r#"{"case":12}"#.into()),
            change_reason: Some("true".into()),
            ..Context::default()
        };
        assert_eq!(context, expected);
        let bad = bad.unwrap();
        assert!(bad.contains("user_id: ") && bad.contains("compliance_level: ") && !bad.contains("session_id"), "{bad}");
        for nothing in ["", " null ", "{}", r#"{"unknown":1}"#] {
            assert_eq!(Context::read(nothing.as_bytes()), (Context::default(), None), "{nothing}");
        }
        for broken in ["{", "[]", "7", r#"{"user_name":"lan"}}"#] {
            let (context, bad) = Context::read(broken.as_bytes());
            assert!(context == Context::default() && bad.is_some(), "{broken}");
        }
    }

    #[test]
    fn addresses_may_have_a_port() {
        let address = |text: &str| Context { ip_address: Some(text.into()), ..Context::default() }.address();
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            (" 10.0.0.1:5432", Some("10.0.0.1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("unknown", None),
            ("10.0.0.1:", None),
        ] {
            assert_eq!(address(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn keys() {
        assert_eq!(key_text(&[Some("7")]), "7");
        assert_eq!(key_text(&[Some("a"), Some("1")]), r#"["a","1"]"#);
        assert_eq!(key_text(&[Some("a"), None]), r#"["a",null]"#);
        let (one, other) = ("x".repeat(200), format!("{}y", "x".repeat(199)));
        assert_eq!(key_text(&[Some(&one)]).chars().count(), 97);
        assert_ne!(key_text(&[Some(&one)]), key_text(&[Some(&other)]));
    }

    #[test]
    fn a_line_is_accepted_whatever_it_says() {
        let long = "ư".repeat(2000);
        let context =
            Context { user_name: Some(long.clone()), ip_address: Some("nonsense".into()), compliance_level: Some(9), ..Context::default() };
        let change = Change {
            table: Cow::Borrowed("case.hoso"),
            operation: Operation::Update,
            key: key_text(&[Some(&long)]),
            old: Some("{\"a\":\n1.000000000000000000001}"),
            new: Some(r#"{"a":null}"#),
            details: Some(Cow::Borrowed(&long)),
            changed_at: 1_700_000_000_000_000,
            transaction: Some("pg:734@1/16B3748"),
            position: Some("pg:1/16B3748/0"),
            context: &context,
            attribution: Attribution::Application,
        };
        let mut line = Vec::new();
        change.write(&mut line).unwrap();
        assert_eq!(crate::accepted("sys_audit_log", &line), 1);
    }
}
