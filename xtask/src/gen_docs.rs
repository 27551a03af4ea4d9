//! Documents generated from code: `docs/schema.md` from the model.

use crate::error::{Context, Error, Result};
use crate::process::{cargo, command, output, root, run as execute, target};

const SCHEMA: &str = "docs/schema.md";

/// Writes the generated documents; with `check`, compares them and fails where one is out of date.
pub fn run(check: bool) -> Result<()> {
    let wanted = schema()?;
    let path = root().join(SCHEMA);
    let present = std::fs::read_to_string(&path).ok();
    if present.as_deref() == Some(&wanted) {
        println!("{SCHEMA} is up to date");
        return Ok(());
    }
    if check {
        let line = 1 + present.unwrap_or_default().lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
        return Err(Error::new(format!("{SCHEMA} is out of date from line {line} on; run `cargo xtask gen`")));
    }
    std::fs::write(&path, wanted).context(|| format!("cannot write {SCHEMA}"))?;
    println!("wrote {SCHEMA}");
    Ok(())
}

/// The schema page, printed by an example of the model. It is built with the features of the whole workspace,
/// so what it compiles is what the tests need, too; and this program needs no heavy dependency.
fn schema() -> Result<String> {
    execute(cargo().args(["build", "--quiet", "--workspace", "--example", "schema"]))?;
    let program = target().join("debug/examples/schema");
    let page = output(command(&program.to_string_lossy()).arg("markdown"))?;
    if page.is_empty() { Err(Error::new("the model printed an empty page")) } else { Ok(page) }
}
