//! The triggers' text.

use crate::row::write_string;

/// A table to be audited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDescription {
    /// Its name, without a schema.
    pub name: String,
    /// All of its columns, in order.
    pub columns: Vec<String>,
    /// Those of the primary key, in key order.
    pub key: Vec<String>,
    /// Columns that are left out.
    pub excluded: Vec<String>,
    /// Columns of which only `***` is kept.
    pub masked: Vec<String>,
}

impl TableDescription {
    fn visible(&self) -> impl Iterator<Item = &String> {
        self.columns.iter().filter(|column| !self.excluded.contains(column))
    }
}

/// Quotes a name.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The statements that make a table's triggers, each with the name of its trigger.
pub(super) fn named_statements(table: &TableDescription) -> Vec<(String, String)> {
    let statement = |operation: &str, old: String, new: String, masked: String| {
        let name = format!("muniment_{}_{}", operation.to_lowercase(), table.name);
        let text = format!(
            "CREATE TRIGGER {} AFTER {operation} ON {} BEGIN\n    INSERT INTO muniment_audit_queue (table_name, operation, old_row, new_row, masked_changes, context_id, context)\n    \
             SELECT {}, '{operation}', {old}, {new}, {masked}, c.id, c.document\n    \
             FROM (SELECT 1) LEFT JOIN (SELECT id, document FROM muniment_context ORDER BY id DESC LIMIT 1) c;\nEND",
            identifier(&name),
            identifier(&table.name),
            literal(&format!("main.{}", table.name)),
        );
        (name, text)
    };
    let (null, old, new) = (|| "NULL".to_owned(), || image(table, "OLD"), || image(table, "NEW"));
    vec![
        statement("INSERT", null(), new(), null()),
        statement("UPDATE", old(), new(), masked_changes(table)),
        statement("DELETE", old(), null(), null()),
    ]
}

/// The statements that make a table's triggers: one each for INSERT, UPDATE and DELETE.
pub fn trigger_statements(table: &TableDescription) -> Vec<String> {
    named_statements(table).into_iter().map(|(_, text)| text).collect()
}

/// The same as one script.
pub fn trigger_sql(table: &TableDescription) -> String {
    trigger_statements(table).into_iter().map(|text| text + ";\n").collect()
}

/// An expression that makes a JSON object of a row. Put together as text, since functions take no more than 100 arguments, and JSON functions neither bytes nor all digits
/// of a number.
pub(super) fn image(table: &TableDescription, row: &str) -> String {
    let mut out = String::from("'{");
    for (index, column) in table.visible().enumerate() {
        let mut member = Vec::new();
        write_string(column, &mut member);
        let comma = if index > 0 { "," } else { "" };
        let member = String::from_utf8_lossy(&member).replace('\'', "''");
        if table.masked.contains(column) {
            out.push_str(&format!("{comma}{member}:\"***\""));
            continue;
        }
        let value = format!("{row}.{}", identifier(column));
        out.push_str(&format!(
            "{comma}{member}:' || CASE typeof({value}) WHEN 'real' THEN CASE WHEN abs({value}) <= 1.7976931348623157e308 THEN printf('%!.17g', {value}) \
             WHEN {value} > 0 THEN '\"Infinity\"' ELSE '\"-Infinity\"' END WHEN 'blob' THEN '\"\\\\x' || lower(hex({value})) || '\"' ELSE json_quote({value}) END || '"
        ));
    }
    out.push_str("}'");
    out
}

/// An expression that lists the masked columns that changed.
fn masked_changes(table: &TableDescription) -> String {
    let masked: Vec<&String> = table.visible().filter(|column| table.masked.contains(column)).collect();
    if masked.is_empty() {
        return "NULL".to_owned();
    }
    let cases = masked.iter().map(|column| {
        let (name, mut text) = (identifier(column), Vec::new());
        write_string(column, &mut text);
        format!("CASE WHEN OLD.{name} IS NOT NEW.{name} THEN {} ELSE '' END", literal(&format!("{},", String::from_utf8_lossy(&text))))
    });
    format!("'[' || {} || 'null]'", cases.collect::<Vec<_>>().join(" || "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let table = TableDescription {
            name: "a\"b'".into(),
            columns: vec!["x'y".into(), "secret".into(), "pin".into()],
            excluded: vec!["secret".into()],
            masked: vec!["pin".into()],
            ..TableDescription::default()
        };
        let text = trigger_sql(&table);
        assert!(text.contains(r#"AFTER UPDATE ON "a""b'" BEGIN"#) && text.contains("'main.a\"b'''") && text.contains(r#"'{"x''y":' ||"#));
        assert!(!text.contains("secret") && text.contains(r#""pin":"***""#));
    }
}
