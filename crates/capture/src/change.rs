//! One change of one row, whatever it came from, and the line of `sys_audit_log` it becomes.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

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

/// Who made a change and why, as the application says in the transaction: the JSON object of `muniment.context`. Unknown members are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// Who, by number: `users.id`.
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
    /// Sensitivity, 1 to 3.
    pub compliance_level: Option<i64>,
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

/// A line of `sys_audit_log`; members that are `None` are left out.
#[derive(Serialize)]
struct Line<'a> {
    table_name: Cow<'a, str>,
    operation: Operation,
    primary_key: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_values: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_values: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change_details: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_by: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_by_username: Option<Cow<'a, str>>,
    changed_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change_reason: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    business_context: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow_instance_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compliance_level: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_position: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Cow<'a, str>>,
    attribution: Attribution,
}

/// At most `chars` characters: a captured change is never refused because of a long name or reason.
fn cut(text: Cow<'_, str>, chars: usize) -> Cow<'_, str> {
    if text.len() <= chars {
        return text;
    }
    match text.char_indices().nth(chars) {
        Some((at, _)) => Cow::Owned(text[..at].to_owned()),
        None => text,
    }
}

fn cut_some(text: Option<&String>, chars: usize) -> Option<Cow<'_, str>> {
    text.map(|text| cut(Cow::Borrowed(text), chars))
}

fn raw(text: Option<&str>) -> serde_json::Result<Option<&RawValue>> {
    text.map(serde_json::from_str).transpose()
}

impl Change<'_> {
    /// Appends the change as one line of `sys_audit_log`, with its line end. Texts longer than their column are cut; an address that is none is left out.
    ///
    /// # Errors
    /// If `old` or `new` is not JSON.
    pub fn write(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let context = self.context;
        let line = Line {
            table_name: cut(Cow::Borrowed(&self.table), 128),
            operation: self.operation,
            primary_key: Cow::Borrowed(&self.key),
            old_values: raw(self.old)?,
            new_values: raw(self.new)?,
            change_details: self.details.as_deref().map(|details| cut(Cow::Borrowed(details), 1000)),
            changed_by: context.user_id,
            changed_by_username: cut_some(context.user_name.as_ref(), 100),
            changed_at: self.changed_at,
            ip_address: context.ip_address.as_deref().filter(|address| address.parse::<std::net::IpAddr>().is_ok()),
            user_agent: cut_some(context.user_agent.as_ref(), 500),
            session_id: cut_some(context.session_id.as_ref(), 128),
            change_reason: cut_some(context.change_reason.as_ref(), 200),
            business_context: cut_some(context.business_context.as_ref(), 200),
            workflow_instance_id: cut_some(context.workflow_instance_id.as_ref(), 255),
            compliance_level: context.compliance_level.filter(|level| (1..=3).contains(level)),
            transaction_id: self.transaction,
            source_position: self.position,
            correlation_id: cut_some(context.correlation_id.as_ref(), 128),
            attribution: self.attribution,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.push(b'\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
            old: Some(r#"{"a":1.000000000000000000001}"#),
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
        let table = muniment_model::table("sys_audit_log").unwrap();
        let mut uuid = || [0; 16];
        let mut options = muniment_model::ParseOptions {
            now: 0,
            format: muniment_model::Format::Ndjson,
            limits: muniment_model::Limits::default(),
            uuid: &mut uuid,
            retention_years: None,
        };
        assert_eq!(muniment_model::parse(table, &line, &mut options).unwrap().records, 1);
    }
}
