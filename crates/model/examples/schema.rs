//! Prints what is made from the tables: `schema markdown` (the text of `docs/schema.md`), `schema openapi`, `schema sqlite` or `schema postgres`.

use muniment_model::{Dialect, openapi, registers, schema_markdown};

fn main() {
    let registers = |dialect| registers().iter().map(|table| table.create_table_sql(dialect)).collect::<Vec<_>>().join("\n");
    match std::env::args().nth(1).as_deref() {
        Some("markdown") => print!("{}", schema_markdown()),
        Some("openapi") => println!("{:#}", openapi()),
        Some("sqlite") => print!("{}", registers(Dialect::Sqlite)),
        Some("postgres") => print!("{}", registers(Dialect::Postgres)),
        _ => eprintln!("schema markdown | openapi | sqlite | postgres"),
    }
}
