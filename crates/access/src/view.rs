//! What of each table a principal gets to see: nothing, everything, or everything with some columns masked.

use crate::masking::{FieldMasks, Masking};
use muniment_model::{Column, Table, Type};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What stands for a masked text; a masked JSON document is this text as JSON. Masked values of other types are null.
pub const MASK: &str = "***";

/// Columns that are masked whatever their type: devices, sessions, free text that tends to quote payloads, keys of people in other systems.
const SENSITIVE: [&str; 17] = [
    "analyst_notes",
    "change_details",
    "device_fingerprint",
    "display_name",
    "email",
    "external_id",
    "last_error",
    "notes",
    "outcome",
    "request_body_hash",
    "session_id",
    "subject",
    "user_agent",
    "window_key",
    "evidence",
    "note",
    "body",
];

/// Columns that nobody gets to see through any door.
const SECRET: [&str; 5] = ["key_hash", "password_hash", "secret", "secret_hash", "token_hash"];

/// Columns that SQL adds to a table, and which of its columns or of another table they repeat: they are masked where that one is.
const ADDED: [(&str, &str, Option<&str>); 5] = [
    ("security_audit_log", "recorded_investigation_status", Some("investigation_status")),
    ("security_audit_log", "recorded_investigated_by", Some("investigated_by")),
    ("security_audit_log", "recorded_investigated_at", Some("investigated_at")),
    ("security_audit_log", "investigation_id", None),
    ("security_audit_log", "investigation_notes", Some("notes")),
];

/// The column that says how sensitive a record is.
const LEVEL: &str = "compliance_level";

/// What remains visible of a confidential record: that there is one, of which table, and when. The ledger's columns do, too.
pub(crate) const ALWAYS_SEEN: [&str; 5] = ["table_name", "operation", "changed_at", LEVEL, "retention_years"];

/// Records that a grant shows in clear although their columns are masked for the principal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cleared {
    /// The records with these ids.
    Ids(BTreeSet<i64>),
    /// The changes of one row of an audited table.
    Entity {
        /// The table, such as `case.hoso`.
        table: String,
        /// Key of the row, as text.
        key: String,
    },
}

/// The columns that SQL adds to a table.
pub(crate) fn added_columns(table: &Table) -> impl Iterator<Item = &'static str> + use<> {
    let name = table.name;
    ADDED.iter().filter(move |(of, ..)| *of == name).map(|(_, column, _)| *column)
}

/// Which columns are masked.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mask {
    /// Masked in every row.
    pub columns: BTreeSet<&'static str>,
    /// Masked, beside those, in the rows whose `compliance_level` is 3, or is not known since the record was erased.
    pub confidential: BTreeSet<&'static str>,
    /// Documents that are shown but for some fields, in rows where they are not masked as a whole. In `sys_audit_log` they are, where a register has changed:
    /// who may not read the register doesn't get to see its rows as documents either.
    pub fields: BTreeMap<&'static str, Arc<FieldMasks>>,
    /// Rows in which nothing of this applies, but secrets stay hidden.
    pub cleared: Option<Cleared>,
}

/// What a principal sees of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Nothing: to the principal there is no such table.
    Forbidden,
    /// Everything.
    Clear,
    /// Every row, with columns masked.
    Masked(Mask),
}

impl View {
    /// The view of somebody who may read the table; `unmasked` and `confidential` tell whether sensitive columns and confidential records are in clear.
    pub fn new(table: &Table, unmasked: bool, confidential: bool) -> Self {
        Self::configured(table, (unmasked, confidential), &Masking::default())
    }

    /// The same where more is masked, or less of documents, by configuration.
    pub fn configured(table: &Table, (unmasked, confidential): (bool, bool), masking: &Masking) -> Self {
        let configured = masking.of(table).filter(|_| !unmasked).cloned().unwrap_or_default();
        let is_shown = |column: &Column| configured.shown.contains_key(column.name);
        let masked = |column: &&Column| {
            is_secret(column) || configured.columns.contains(column.name) || (!unmasked && is_sensitive(column) && !is_shown(column))
        };
        let mut columns: BTreeSet<_> = table.columns.iter().filter(masked).map(|column| column.name).collect();
        for (of, column, source) in ADDED {
            let source_is_masked = source.is_some_and(|source| columns.contains(source) || (!unmasked && SENSITIVE.contains(&source)));
            if of == table.name && (source_is_masked || configured.columns.contains(column)) {
                columns.insert(column);
            }
        }
        let hides = !confidential && table.column(LEVEL).is_some();
        let hidden = |name: &&'static str| hides && !ALWAYS_SEEN.contains(name) && !columns.contains(name);
        let confidential: BTreeSet<_> = table.columns.iter().map(|column| column.name).filter(hidden).collect();
        let fields = configured.shown;
        if columns.is_empty() && confidential.is_empty() && fields.is_empty() {
            return Self::Clear;
        }
        Self::Masked(Mask { columns, confidential, fields, cleared: None })
    }

    /// Masks a row as JSON, of which no more than [`Mask::columns`] may be masked. What is no column of the table stays.
    pub fn mask_row(&self, table: &Table, row: &mut Map<String, Value>) {
        let Self::Masked(mask) = self else { return };
        for (name, value) in row.iter_mut().filter(|(name, _)| mask.columns.contains(name.as_str())) {
            let is_text = |ty| matches!(ty, Type::Text { .. } | Type::Json { .. } | Type::Inet | Type::Uuid);
            *value = if table.column(name).is_some_and(|column| is_text(column.ty)) { MASK.into() } else { Value::Null };
        }
    }

    /// The same with all rows in clear.
    #[must_use]
    pub fn unmasked(self, table: &Table) -> Self {
        if self == Self::Forbidden { self } else { Self::new(table, true, true) }
    }

    /// The same with some rows in clear.
    #[must_use]
    pub fn clearing(self, rows: Cleared) -> Self {
        match self {
            Self::Masked(mask) => Self::Masked(Mask { cleared: Some(rows), ..mask }),
            view => view,
        }
    }
}

fn is_secret(column: &Column) -> bool {
    SECRET.contains(&column.name)
}

fn is_sensitive(column: &Column) -> bool {
    matches!(column.ty, Type::Inet | Type::Json { .. }) || SENSITIVE.contains(&column.name)
}

/// What a principal sees of every table. Equal views share what queries need.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Views(BTreeMap<&'static str, View>);

impl Views {
    /// The views of all tables, each as this function says.
    pub fn new(of: impl Fn(&'static Table) -> View) -> Self {
        Self(muniment_model::tables().iter().map(|table| (table.name, of(table))).collect())
    }

    /// Everything but secrets: for Muniment's own work, and for whoever has the data folder anyway.
    pub fn everything() -> Self {
        Self::new(|table| View::new(table, true, true))
    }

    /// The view of a table; forbidden if there is no such table.
    pub fn of(&self, table: &str) -> &View {
        self.0.get(table).unwrap_or(&View::Forbidden)
    }

    /// The same with another view of one table.
    #[must_use]
    pub fn with(mut self, table: &'static Table, view: View) -> Self {
        self.0.insert(table.name, view);
        self
    }

    /// Whether something beside secrets is masked in a table that is seen.
    pub fn mask_contents(&self) -> bool {
        let masks = |table: &&Table| matches!(self.of(table.name), View::Masked(_)) && *self.of(table.name) != View::new(table, true, true);
        muniment_model::tables().iter().any(masks)
    }

    /// Whether no log and no register has anything masked but secrets, and none is missing.
    pub fn hide_only_secrets(&self) -> bool {
        muniment_model::tables().iter().all(|table| *self.of(table.name) == View::new(table, true, true))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn masked(table: &str) -> Mask {
        let View::Masked(mask) = View::new(muniment_model::table(table).unwrap(), false, false) else { panic!("{table} is clear") };
        mask
    }

    #[test]
    fn every_address_and_every_document_is_masked() {
        for table in muniment_model::tables() {
            for column in table.columns.iter().filter(|column| matches!(column.ty, Type::Inet | Type::Json { .. })) {
                assert!(masked(table.name).columns.contains(column.name), "{}.{}", table.name, column.name);
            }
        }
    }

    #[test]
    fn confidential_records_show_that_they_are_there_and_no_more() {
        let mask = masked("sys_audit_log");
        let log = muniment_model::table("sys_audit_log").unwrap();
        let seen: Vec<_> = log.columns.iter().map(|column| column.name).filter(|name| !mask.columns.contains(name)).collect();
        let open: Vec<_> = seen.into_iter().filter(|name| !mask.confidential.contains(name)).collect();
        assert_eq!(open, ["table_name", "operation", "changed_at", "compliance_level", "retention_years"]);
        assert!(masked("auth_audit_log").confidential.is_empty());
    }

    #[test]
    fn what_is_cleared_is_not_wider_than_the_view() {
        let log = muniment_model::table("sys_audit_log").unwrap();
        let rows = Cleared::Ids(BTreeSet::from([1]));
        assert_eq!(View::Forbidden.clearing(rows.clone()), View::Forbidden);
        assert_eq!(View::Forbidden.unmasked(log), View::Forbidden);
        assert_eq!(View::Clear.clearing(rows), View::Clear);
        assert_eq!(View::new(log, false, false).unmasked(log), View::Clear);
    }

    #[test]
    fn configuration_masks_more_columns_and_shows_documents_but_for_fields() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let masking = Masking::new(
            &list("sys_audit_log.change_reason sys_audit_log.new_values.cmnd *.username security_audit_log.investigated_by"),
            &list("sys_audit_log.new_values"),
        )
        .unwrap();
        let view = |table: &str, unmasked| View::configured(muniment_model::table(table).unwrap(), (unmasked, unmasked), &masking);
        let View::Masked(mask) = view("sys_audit_log", false) else { panic!("the log is clear") };
        assert!(mask.columns.contains("change_reason") && mask.columns.contains("old_values"));
        assert!(!mask.columns.contains("new_values") && mask.fields.contains_key("new_values") && mask.confidential.contains("new_values"));
        let View::Masked(mask) = view("security_audit_log", false) else { panic!("the log is clear") };
        let more = ["username", "investigated_by", "recorded_investigated_by", "investigation_notes"];
        assert!(more.iter().all(|column| mask.columns.contains(column)) && !mask.columns.contains("recorded_investigated_at"));
        for table in muniment_model::tables() {
            assert_eq!(view(table.name, true), View::new(table, true, true), "{}", table.name);
        }
    }

    #[test]
    fn no_table_that_is_not_known_is_seen() {
        assert_eq!(*Views::everything().of("sqlite_master"), View::Forbidden);
        assert!(Views::everything().hide_only_secrets());
    }
}
