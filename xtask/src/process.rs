//! Running other programs, and where things are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Error, Result};

/// The folder of the workspace.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The folder where cargo puts what it builds.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// A cargo command in the workspace, by the cargo that runs this task.
pub fn cargo() -> Command {
    command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
}

/// A command that runs in the workspace.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Runs a command to its end, its output going where ours goes.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", show(command));
    let status = command.status().context(|| format!("cannot run `{}`", show(command)))?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("`{}` failed: {status}", show(command)))) }
}

/// Runs a command and answers its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context(|| format!("cannot run `{}`", show(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("`{}` failed: {}\n{}", show(command), output.status, said.trim_end())));
    }
    String::from_utf8(output.stdout).context(|| format!("`{}` printed something other than UTF-8", show(command)))
}

/// Whether a program is there and answers `--version`.
pub fn is_there(program: &str, arguments: &[&str]) -> bool {
    command(program).args(arguments).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
