//! Keys and roles as text.

use chrono::{DateTime, SecondsFormat};
use muniment_engine::identity::{CreatedKey, KeyInfo, KeyState, RoleGrant};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) fn time(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)).unwrap_or_default()
}

fn joined(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// Lines of columns, each as wide as its widest cell.
pub(super) fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).chain([head[at].chars().count()]).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().fold(line(head.to_vec()), |text, row| text + &line(row.iter().map(String::as_str).collect()))
}

/// All keys.
pub fn keys(keys: &[KeyInfo]) -> String {
    let row = |key: &KeyInfo| {
        let state = match key.state {
            KeyState::Active => "active",
            KeyState::Expired => "expired",
            KeyState::Revoked => "revoked",
        };
        let limits: Vec<String> = [("tables", &key.tables), ("actions", &key.actions)]
            .into_iter()
            .filter_map(|(what, names)| Some(format!("{what}: {}", joined(names.as_ref()?))))
            .collect();
        let expires = key.expires_at.map_or_else(|| "never".to_owned(), time);
        vec![key.id.to_string(), key.key_id.clone(), state.to_owned(), joined(&key.roles), expires, key.name.clone(), limits.join("; ")]
    };
    columns(&["id", "key", "state", "roles", "expires", "name", "limits"], &keys.iter().map(row).collect::<Vec<_>>())
}

/// A key that was just made: alone on its line, so that it can be cut out.
pub fn created(created: &CreatedKey) -> String {
    let expires = created.info.expires_at.map_or_else(|| "until it is revoked".to_owned(), |expires| format!("until {}", time(expires)));
    eprintln!("Key {} ({}), valid {expires}. It is shown only this once:", created.info.id, created.info.name);
    format!("{}\n", created.key)
}

/// Who has which role.
pub fn grants(grants: &[RoleGrant]) -> String {
    let row = |grant: &RoleGrant| {
        vec![grant.user_id.to_string(), grant.username.clone(), grant.role.clone(), grant.granted_by.clone(), time(grant.granted_at)]
    };
    columns(&["user", "name", "role", "granted by", "granted at"], &grants.iter().map(row).collect::<Vec<_>>())
}

/// Who one is.
pub fn me(me: &Value) -> String {
    let list = |value: &Value| {
        let names: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let mut text = format!(
        "{}: {}\nmay: {}\nreads: {}\n",
        me["name"].as_str().unwrap_or_default(),
        list(&me["roles"]),
        list(&me["may"]),
        list(&me["may_read"])
    );
    for (what, limit) in [("tables", &me["tables"]), ("actions", &me["actions"])] {
        if !limit.is_null() {
            text += &format!("limited to {what}: {}\n", list(limit));
        }
    }
    text
}
