//! Documents generated from code: `docs/schema.md` from the model, the tables of roles in `docs/access.md` from the policy.

use crate::error::{Context, Error, Result};
use crate::process::{cargo, command, output, root, run as execute, target};

const SCHEMA: &str = "docs/schema.md";
const ACCESS: &str = "docs/access.md";
/// What stands between these lines is generated.
const FROM: &str = "<!-- matrix: written by `cargo xtask gen` -->\n";
const TO: &str = "<!-- end of matrix -->";

/// Writes the generated documents; with `check`, compares them and fails where one is out of date.
pub fn run(check: bool) -> Result<()> {
    // Built with the features of the whole workspace, so what is compiled is what the tests need, too; and this program needs no heavy dependency.
    execute(cargo().args(["build", "--quiet", "--workspace", "--example", "schema", "--example", "matrix"]))?;
    bring_up_to_date(SCHEMA, &printed("schema", &["markdown"])?, check)?;
    let page = std::fs::read_to_string(root().join(ACCESS)).context(|| format!("cannot read {ACCESS}"))?;
    let lacks = || Error::new(format!("{ACCESS} lacks the lines between which the table of roles stands"));
    let (before, rest) = page.split_once(FROM).ok_or_else(lacks)?;
    let (_, after) = rest.split_once(TO).ok_or_else(lacks)?;
    bring_up_to_date(ACCESS, &format!("{before}{FROM}\n{}\n{TO}{after}", printed("matrix", &[])?), check)
}

fn bring_up_to_date(name: &str, wanted: &str, check: bool) -> Result<()> {
    let path = root().join(name);
    let present = std::fs::read_to_string(&path).ok();
    if present.as_deref() == Some(wanted) {
        println!("{name} is up to date");
        return Ok(());
    }
    if check {
        let line = 1 + present.unwrap_or_default().lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
        return Err(Error::new(format!("{name} is out of date from line {line} on; run `cargo xtask gen`")));
    }
    std::fs::write(&path, wanted).context(|| format!("cannot write {name}"))?;
    println!("wrote {name}");
    Ok(())
}

/// What an example prints.
fn printed(example: &str, arguments: &[&str]) -> Result<String> {
    let program = target().join("debug/examples").join(example);
    let text = output(command(&program.to_string_lossy()).args(arguments))?;
    if text.is_empty() { Err(Error::new(format!("{example} printed nothing"))) } else { Ok(text) }
}
