//! Tables as the stream has announced them: columns, how their values become JSON, and which columns are the key.
//!
//! Under full replica identity the stream flags every column as part of the key, so the primary key comes from the catalog; the event trigger keeps the key that
//! a table had for the changes that still waited when it was given another.

use crate::error::{CaptureError, Result};
use crate::postgres::patterns::ColumnPattern;
use crate::postgres::pgoutput::{Relation, TypeName};
use crate::row::{RowColumn, ValueKind};
use std::collections::HashMap;

/// Columns that are left out or masked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnRules {
    /// Never recorded.
    pub excluded: Vec<ColumnPattern>,
    /// Recorded as `***`, with the fact that they changed.
    pub masked: Vec<ColumnPattern>,
}

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    /// Schema and name, unquoted.
    pub name: String,
    /// Columns in the order of tuples.
    pub columns: Vec<TableColumn>,
    /// Places of the key's columns, in the key's order.
    pub key: Vec<usize>,
}

/// A column of a table.
#[derive(Debug)]
pub(super) struct TableColumn {
    pub row: RowColumn,
    pub excluded: bool,
    /// Whether it is sent when only the replica identity is.
    pub identity: bool,
}

/// Tables known, by object id.
#[derive(Debug, Default)]
pub(super) struct Relations {
    tables: HashMap<u32, Table>,
    types: HashMap<u32, ValueKind>,
    rules: ColumnRules,
}

impl Relations {
    pub fn new(rules: ColumnRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Notes what a type that isn't built in is based on: a domain over `numeric` is a number.
    pub fn note_type(&mut self, oid: u32, base: &TypeName) {
        let kind =
            if matches!(base.schema.as_str(), "" | "pg_catalog") { ValueKind::of_postgres_type(&base.name) } else { ValueKind::Text };
        self.types.insert(oid, kind);
    }

    /// Notes a table; `primary_key` has the names of its columns according to the catalog, in key order, `masked` those that were masked under another name.
    pub fn note_table(&mut self, relation: Relation, primary_key: &[String], masked: &[String]) {
        let name = format!("{}.{}", relation.schema, relation.name);
        let key = key_columns(&relation, primary_key);
        let Relation { schema, name: table, .. } = &relation;
        let (schema, table) = (schema.clone(), table.clone());
        let ruled = |rules: &[ColumnPattern], column: &str| rules.iter().any(|rule| rule.matches(&schema, &table, column));
        let columns = relation.columns.into_iter().map(|column| {
            let kind = self.types.get(&column.type_oid).copied().unwrap_or_else(|| ValueKind::of_postgres_oid(column.type_oid));
            let excluded = ruled(&self.rules.excluded, &column.name);
            let masked = ruled(&self.rules.masked, &column.name) || masked.contains(&column.name);
            TableColumn { row: RowColumn::new(column.name, kind, masked), excluded, identity: column.key }
        });
        let columns = columns.collect();
        self.tables.insert(relation.oid, Table { name, columns, key });
    }

    /// Takes the table of an object id out.
    pub fn take_table(&mut self, oid: u32) -> Option<Table> {
        self.tables.remove(&oid)
    }

    /// The table of an object id.
    pub fn table(&self, oid: u32) -> Result<&Table> {
        self.tables.get(&oid).ok_or_else(|| CaptureError::Malformed(format!("a change of table {oid}, which the stream has not announced")))
    }
}

fn key_columns(relation: &Relation, primary_key: &[String]) -> Vec<usize> {
    let place = |name: &String| relation.columns.iter().position(|column| column.name == *name);
    let primary: Option<Vec<usize>> = primary_key.iter().map(place).collect();
    let primary = primary.filter(|places| !places.is_empty());
    let flagged: Vec<usize> = (0..relation.columns.len()).filter(|&at| relation.columns[at].key).collect();
    let all = || (0..relation.columns.len()).collect();
    match (relation.identity, primary) {
        (b'f' | b'n', primary) => primary.unwrap_or_else(all),
        // The same columns, but in the key's order.
        (_, Some(primary)) if primary.len() == flagged.len() && primary.iter().all(|at| flagged.contains(at)) => primary,
        (_, Some(primary)) if flagged.is_empty() => primary,
        _ if flagged.is_empty() => all(),
        _ => flagged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::pgoutput::Column;

    #[test]
    fn keys() {
        let relation = |identity: u8, flags: [bool; 3]| Relation {
            oid: 1,
            schema: "s".into(),
            name: "t".into(),
            identity,
            columns: ["a", "b", "c"].iter().zip(flags).map(|(name, key)| Column { key, name: (*name).into(), type_oid: 23 }).collect(),
        };
        let check = |identity, flags, primary: &[&str], expected: &[usize]| {
            let primary: Vec<String> = primary.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(key_columns(&relation(identity, flags), &primary), expected);
        };
        check(b'f', [true; 3], &["c", "a"], &[2, 0]);
        check(b'f', [true; 3], &[], &[0, 1, 2]);
        check(b'd', [true, false, true], &["c", "a"], &[2, 0]);
        check(b'i', [false, true, false], &["a"], &[1]);
        check(b'n', [false; 3], &["b"], &[1]);
        check(b'd', [false; 3], &[], &[0, 1, 2]);
    }
}
