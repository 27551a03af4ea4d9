//! The reference page of the schema, `docs/schema.md`.

use std::fmt::Write as _;

use crate::sql::decimal_text;
use crate::{Column, DefaultValue, Kind, Table, Type, logs, registers, tables};

const INTRODUCTION: &str = "\
# The schema

This page is made from the code (`crates/model/src/tables`); a test compares the two.

The tables are those of two documents, called the *seeds* here: the audit schema of a SQL Server system and the entity diagram of a PostgreSQL
one. Every table and column of theirs is here under one style of names: `SYS_AUDIT_LOG.ChangedByUsername` is `sys_audit_log.changed_by_username`.
The column *seed* says where each comes from; where it is empty, the column is Muniment's own.

**Logs** are append-only and kept in the ledger. **Registers** are ordinary tables of the commit database, which change; every change of
theirs is a record of `sys_audit_log`.

## Types

| type | in Arrow and Parquet | in SQLite | in PostgreSQL | as sent in JSON |
| --- | --- | --- | --- | --- |
| text(n) | Utf8 | TEXT | VARCHAR(n) | a string of at most n Unicode characters, without NUL |
| json | Utf8 | TEXT | JSONB | any JSON value, or a string that holds a JSON document; kept as the exact text, at most 1 MiB (1,048,576 bytes) |
| inet | Utf8 | TEXT | INET | a string: IPv4 or IPv6 address, optionally with `/prefix`; kept in canonical form |
| uuid | Utf8 | TEXT | UUID | a string; kept in lower case with hyphens |
| int | Int64 | INTEGER | BIGINT | a whole number |
| bool | Boolean | INTEGER | BOOLEAN | `true` or `false` |
| time | Timestamp(µs, UTC) | INTEGER, microseconds | TIMESTAMPTZ | a string in RFC 3339 (without offset: UTC), or a number of microseconds since 1970-01-01T00:00:00Z |
| decimal(p, s) | Decimal128(p, s) | INTEGER, times 10^s | NUMERIC(p, s) | a number, or a string that holds one; it must fit exactly |
| hash | FixedSizeBinary(32) | BLOB | BYTEA | not sent |

Rules for records as they are sent:

* `null` is the same as giving nothing. A column with a default is therefore never null.
* A field that the log doesn't have, a field given twice, and a column that the ledger supplies are errors.
* Times have microseconds; further digits are dropped. Years run from 0001 to 9999.
* In Arrow and Parquet every data column is nullable, because an erased record has lost its payload.

## Retention

`retention_years` decides which stream a record belongs to, and so when it is disposed of.

| log | years unless the record says otherwise | rule of the seeds |
| --- | --- | --- |
";

/// The text of `docs/schema.md`.
pub fn schema_markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    for log in logs() {
        let rule = match log.name {
            "sys_audit_log" => "Standard data 7 years; sensitive data (`compliance_level` 2 or more) 10 years",
            "auth_audit_log" | "security_audit_log" => "Security events 5 years",
            "system_performance_log" => "Performance data 2 years",
            _ => "Standard data 7 years",
        };
        let years = log.default_retention_years().unwrap_or_default();
        let _ = writeln!(out, "| `{}` | {years} | {rule} |", log.name);
    }
    out.push_str("\n## Tables\n\n| table | | seed | what it holds |\n| --- | --- | --- | --- |\n");
    for table in tables() {
        let kind = if table.is_log() { "log" } else { "register" };
        let _ = writeln!(out, "| [`{0}`](#{0}) | {kind} | {1} | {2} |", table.name, seed(table.seed), table.title);
    }
    out.push_str("\n# Logs\n");
    for log in logs() {
        section(log, &mut out);
    }
    out.push_str("\n# Registers\n");
    for register in registers() {
        section(register, &mut out);
    }
    out
}

fn section(table: &Table, out: &mut String) {
    let _ = writeln!(out, "\n## {}\n\n{}", table.name, table.doc);
    if !table.seed.is_empty() {
        let _ = writeln!(out, "\nSeed: {}.", seed(table.seed));
    }
    if matches!(table.kind, Kind::Log { .. }) {
        out.push_str("\nColumns that the ledger supplies:\n");
        columns(table.ledger_columns, false, out);
        out.push_str("\nData columns:\n");
    }
    columns(table.columns, true, out);
    if !table.checks.is_empty() {
        out.push_str("\nChecks over several columns:\n\n");
        for check in table.checks {
            let _ = writeln!(out, "* `{}`: `{}`. {}", check.name, check.sql, check.doc);
        }
    }
    foreign_keys(table, out);
    indexes(table, out);
}

fn columns(columns: &[Column], look_up: bool, out: &mut String) {
    out.push_str("\n| column | type | limits | unit | null, default | seed | meaning |\n| --- | --- | --- | --- | --- | --- | --- |\n");
    for column in columns {
        let mut meaning = column.doc.to_owned();
        if look_up && column.lookup {
            meaning.push_str(" *Bloom filter.*");
        }
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} | {} | {meaning} |",
            column.name,
            type_text(column.ty),
            limits(column),
            column.unit.unwrap_or_default(),
            null_or_default(column),
            seed(column.seed),
        );
    }
}

fn foreign_keys(table: &Table, out: &mut String) {
    if table.foreign_keys.is_empty() {
        return;
    }
    out.push_str(if table.is_log() {
        "\nForeign keys (what a join means; not enforced, since a record about a user nobody knows must be kept):\n\n"
    } else {
        "\nForeign keys:\n\n"
    });
    for key in table.foreign_keys {
        let _ = write!(out, "* `{}` refers to `{}.{}`", key.column, key.table, key.target);
        let _ = writeln!(out, "{}", if key.seed.is_empty() { String::new() } else { format!(" ({})", seed(key.seed)) });
    }
}

fn indexes(table: &Table, out: &mut String) {
    if table.indexes.is_empty() {
        return;
    }
    out.push_str("\n| index | columns | seed | what does its job |\n| --- | --- | --- | --- |\n");
    for index in table.indexes {
        let _ = writeln!(out, "| `{}` | {} | {} | {} |", index.name, index.columns.join(", "), seed(index.seed), index.stands_for);
    }
}

fn seed(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("`{}`", name.replace('|', "\\|")) }
}

fn type_text(ty: Type) -> String {
    match ty {
        Type::Text { max_chars } => format!("text({max_chars})"),
        Type::Decimal { precision, scale } => format!("decimal({precision}, {scale})"),
        Type::Timestamp => "time".to_owned(),
        _ => ty.kind().to_owned(),
    }
}

fn limits(column: &Column) -> String {
    let mut limits = Vec::new();
    match column.ty {
        Type::Int { min: i64::MIN, max: i64::MAX } => {}
        Type::Int { min, max: i64::MAX } => limits.push(format!("from {min}")),
        Type::Int { min, max } => limits.push(format!("{min} to {max}")),
        Type::Decimal { scale, .. } => {
            limits.extend(column.range.map(|(min, max)| format!("{} to {}", decimal_text(min, scale), decimal_text(max, scale))));
        }
        Type::Json { .. } if column.array => limits.push("an array".to_owned()),
        _ => {}
    }
    if !column.values.is_empty() {
        limits.push(column.values.join(", "));
    }
    if !column.names.is_empty() {
        limits.push(column.names.iter().map(|(value, name)| format!("{value}={name}")).collect::<Vec<_>>().join(", "));
    }
    if column.unique {
        limits.push("unique".to_owned());
    }
    limits.join("; ")
}

fn null_or_default(column: &Column) -> String {
    match column.default {
        DefaultValue::None if column.nullable => "null".to_owned(),
        DefaultValue::None => "required".to_owned(),
        DefaultValue::Identity => "the next number".to_owned(),
        DefaultValue::Now => "time of receipt".to_owned(),
        DefaultValue::RandomUuid => "a random UUID".to_owned(),
        DefaultValue::Text(text) => format!("`{text}`"),
        DefaultValue::Int(number) => number.to_string(),
        DefaultValue::Bool(value) => value.to_string(),
        DefaultValue::Decimal(number) => match column.ty {
            Type::Decimal { scale, .. } => decimal_text(number, scale),
            _ => number.to_string(),
        },
        DefaultValue::RetentionYears => "by [retention](#retention)".to_owned(),
        DefaultValue::ChangeSize => "bytes of `old_values` and `new_values`".to_owned(),
        DefaultValue::ThresholdReached => "whether `metric_value` has reached a threshold".to_owned(),
    }
}

/// What a column means, with unit and names of its values, in a few sentences.
pub(crate) fn description(column: &Column) -> String {
    let mut text = column.doc.to_owned();
    if let Some(unit) = column.unit {
        let _ = write!(text, " In {unit}.");
    }
    if !column.names.is_empty() {
        let names: Vec<String> = column.names.iter().map(|(value, name)| format!("{value} is {name}")).collect();
        let _ = write!(text, " {}.", names.join(", "));
    }
    text
}
