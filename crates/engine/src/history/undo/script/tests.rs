//! What is written is SQL of its dialect, whatever names and values there are.
#![allow(clippy::unwrap_used)]

use super::*;
use datafusion::sql::sqlparser::dialect::{Dialect as Grammar, MsSqlDialect, MySqlDialect};
use datafusion::sql::sqlparser::parser::Parser;

fn field(name: &str, value: &str) -> Field {
    (name.to_owned(), RawValue::from_string(value.to_owned()).unwrap())
}

fn steps() -> Vec<Step> {
    let row = || {
        vec![
            field("we\"i`r]d", r#""it's; -- \\ $undo$ ư""#),
            field("n", "12345678901234567890.50"),
            field("nothing", "null"),
            field("yes", "true"),
            field("doc", r#"{"a":["it's",1.0]}"#),
        ]
    };
    let step = |inverse| Step {
        record: 7,
        table: "case.h'o\"s`o]".to_owned(),
        primary_key: "1".to_owned(),
        key: vec![field("id", "1")],
        expected: row(),
        inverse,
    };
    vec![step(Inverse::Insert(row())), step(Inverse::Update(row())), step(Inverse::Delete)]
}

fn script(dialect: Dialect) -> String {
    let steps = steps();
    write(dialect, &Selection::Transaction("x\n; DROP TABLE t".to_owned()), &steps.iter().collect::<Vec<_>>()).unwrap()
}

/// Those that no test can run; PostgreSQL and SQLite judge for themselves in `tests/reconstruction`.
#[test]
fn every_statement_is_of_its_dialect() {
    let grammars: [(&dyn Writer, &dyn Grammar, &str); 2] =
        [(&Mysql, &MySqlDialect {}, "\nINSERT INTO muniment_undo"), (&Sqlserver, &MsSqlDialect {}, "\nIF @@ROWCOUNT")];
    for (writer, grammar, check) in grammars {
        for (number, step) in steps().iter().enumerate() {
            let text = writer.step(step, number + 1).unwrap();
            let (statement, _) = text.split_once(check).unwrap();
            let parsed = Parser::parse_sql(grammar, statement);
            assert!(parsed.is_ok_and(|parsed| parsed.len() == 1), "{statement}");
        }
    }
    for dialect in [Dialect::Postgresql, Dialect::Sqlite, Dialect::Mysql, Dialect::Sqlserver] {
        let script = script(dialect);
        assert!(script.starts_with("-- Takes back transaction x; DROP TABLE t: 3 statements"), "{script}");
    }
}

#[test]
fn names_and_values_are_quoted() {
    let script = script(Dialect::Postgresql);
    assert!(script.contains(r#"DELETE FROM "case"."h'o""s`o]" AS t"#), "{script}");
    assert!(script.contains("DO $undo1$ DECLARE"), "the tag is not in the text: {script}");
    assert!(script.contains(r#""n":12345678901234567890.50"#));
    let mysql = self::script(Dialect::Mysql);
    assert!(mysql.contains("`we\"i``r]d` <=> _utf8mb4 X'6974277320") || mysql.contains("_utf8mb4 X'"), "{mysql}");
    assert!(!mysql.contains('\\'), "{mysql}");
    assert!(mysql.contains("`doc` <=> CAST('{\"a\":[\"it''s\",1.0]}' AS JSON) ") || mysql.contains("AS JSON)"), "{mysql}");
    let sqlserver = self::script(Dialect::Sqlserver);
    assert!(sqlserver.contains("[case].[h'o\"s`o]]]") && sqlserver.contains("[nothing] IS NULL AND [yes] = 1"), "{sqlserver}");
    let sqlite = self::script(Dialect::Sqlite);
    assert!(sqlite.contains(r#""we""i`r]d" IS 'it''s; -- \ $undo$ ư'"#), "{sqlite}");
}

#[test]
fn what_can_not_be_written_is_refused() {
    let mut step = steps().remove(2);
    step.expected = vec![field("a", r#""\u0000""#)];
    assert!(Sqlite.step(&step, 1).unwrap_err().contains("NUL"));
    step.table = "a.b.c".to_owned();
    assert!(Sqlserver.step(&step, 1).is_err());
    step.expected.clear();
    assert!(Sqlserver.step(&step, 1).is_ok() && Mysql.step(&step, 1).is_err());
    assert!(Sqlite.step(&step, 1).unwrap().contains("\"a\".\"b.c\""), "what follows the first dot is the table");
}
