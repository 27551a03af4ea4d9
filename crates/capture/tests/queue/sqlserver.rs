//! The T-SQL that is printed for SQL Server: read by a parser of its dialect, since there is no server here to run it.

use muniment_capture::queue::sqlserver::{Hidden, HiddenColumn, SqlServerTable, print};
use sqlparser::dialect::MsSqlDialect;
use sqlparser::parser::Parser;

/// What the parser doesn't know of the language, and what is put in its place for it. Everything else is read as it is printed.
const UNKNOWN: [(&str, &str); 2] =
    [("DELETE TOP (1000) FROM", "DELETE FROM"), ("NEXT VALUE FOR [audit].QueueNumbers OVER", "ROW_NUMBER() OVER")];

fn script() -> String {
    let tables = ["case.HOSO(HoSoID)", "[identity].[USER ROLE](UserID, [Role]]ID])"];
    let hidden = [("[identity].[USER ROLE].[Mã khóa]", Hidden::LeftOut), ("[identity].[USER ROLE].Phone", Hidden::Masked)];
    print(
        &tables.map(|table| SqlServerTable::parse(table).unwrap()),
        &hidden.map(|(column, how)| HiddenColumn::parse(column, how).unwrap()),
    )
    .unwrap()
}

#[test]
fn every_statement_is_parsed() {
    let script = script();
    let batches: Vec<&str> = script.split("\nGO\n").filter(|batch| !batch.trim().is_empty()).collect();
    let mut refused = Vec::new();
    for batch in batches {
        let text = UNKNOWN.iter().fold(batch.to_owned(), |text, (unknown, known)| text.replace(unknown, known));
        if let Err(error) = Parser::parse_sql(&MsSqlDialect {}, &text) {
            refused.push(format!("{error}: {text}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    let used = UNKNOWN.iter().filter(|(unknown, _)| !script.contains(unknown)).count();
    assert_eq!(used, 0, "an exception is not needed any more");
}

#[test]
fn names_and_keys_are_quoted() {
    let script = script();
    for expected in [
        "CREATE OR ALTER TRIGGER [identity].[tr_USER ROLE_Audit] ON [identity].[USER ROLE]",
        "FULL OUTER JOIN deleted AS d ON i.[UserID] = d.[UserID] AND i.[Role]]ID] = d.[Role]]ID]",
        "N'identity.USER ROLE'",
        "JSON_VALUE((SELECT i.[HoSoID] AS k FOR JSON PATH, WITHOUT_ARRAY_WRAPPER), N'$.k')",
        "(c.is_nullable = 1 OR c.name NOT IN (N'UserID', N'Role]ID'))",
        "N'$.\"Mã khóa\"', CASE WHEN i.[Mã khóa] IS NULL THEN CONVERT(NVARCHAR(1), NULL) END)",
        "N'strict $.\"Phone\"', CASE WHEN d.[Phone] IS NOT NULL THEN N'***' END)",
    ] {
        assert!(script.contains(expected), "{expected}\n{script}");
    }
}
