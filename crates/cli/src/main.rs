//! The `muniment` command.
fn main() {}
