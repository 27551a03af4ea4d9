//! Every test: the workspace's, and those of the Python verifier, with the packages these need in an environment of their own.

use std::path::PathBuf;

use crate::browser;
use crate::error::{Context, Error, Result};
use crate::postgres;
use crate::process::{cargo, command, is_there, output, root, run as execute, target};

/// Where a Rust test finds the Python that has the verifier's packages.
const PYTHON_VARIABLE: &str = "TEST_PYTHON";
const REQUIREMENTS: &str = "verifier/requirements.txt";

/// Runs the tests. Needs a C compiler and Python 3; says what to install where one is missing. A PostgreSQL server, a browser and an OpenID provider are
/// installed where that is possible.
pub fn run() -> Result<()> {
    need_tools()?;
    postgres::need()?;
    browser::need()?;
    let python = python("verifier", REQUIREMENTS)?;
    if is_there("cargo-nextest", &["nextest"]) {
        execute(cargo().args(["nextest", "run", "--workspace"]).env(PYTHON_VARIABLE, &python))?;
        execute(cargo().args(["test", "--quiet", "--workspace", "--doc"]).env(PYTHON_VARIABLE, &python))?;
    } else {
        execute(cargo().args(["test", "--workspace"]).env(PYTHON_VARIABLE, &python))?;
    }
    execute(command(&python.to_string_lossy()).args(["-B", "-m", "unittest", "discover", "--start-directory", "verifier"]))
}

fn need_tools() -> Result<()> {
    if !is_there("cc", &[]) {
        return Err(Error::new("no C compiler: SQLite and Zstandard are compiled from C. On Debian: apt-get install gcc libc6-dev"));
    }
    if !is_there("python3", &[]) {
        return Err(Error::new("no python3: the second verifier is written in it. On Debian: apt-get install python3 python3-venv"));
    }
    Ok(())
}

/// The Python of an environment that holds what `requirements` lists, made if it is missing or the list has changed.
pub fn python(name: &str, requirements: &str) -> Result<PathBuf> {
    let folder = target().join("python").join(name);
    let python = folder.join("bin/python");
    let stamp = folder.join("installed.txt");
    let path = root().join(requirements);
    let wanted = std::fs::read_to_string(&path).context(|| format!("cannot read {requirements}"))?;
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    output(command("python3").args(["-m", "venv", "--clear"]).arg(&folder))
        .context(|| "cannot make a Python environment; on Debian: apt-get install python3-venv")?;
    execute(command(&python.to_string_lossy()).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&path))?;
    std::fs::write(&stamp, wanted).context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}
