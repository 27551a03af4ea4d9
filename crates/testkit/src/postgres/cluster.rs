//! A cluster's files: prepared once by `initdb`, kept beside the build's output, and copied for each server.

use super::programs::Programs;
use super::{PASSWORD, PostgresOptions, USER};
use crate::error::{Result, TestkitError, file};
use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Part of the template's name; to be raised when what makes it changes.
const TEMPLATE: u32 = 1;
/// Cargo marks the folder of its output with this file.
const OUTPUT_MARK: &str = "CACHEDIR.TAG";

/// Settings of every test server: small, quiet, and nothing left behind in the system if it is killed.
const SETTINGS: [(&str, &str); 9] = [
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_permissions", "0777"),
    ("shared_buffers", "64MB"),
    ("max_connections", "60"),
    ("max_prepared_transactions", "10"),
    ("dynamic_shared_memory_type", "mmap"),
    ("timezone", "UTC"),
    ("jit", "off"),
    ("log_line_prefix", "%m [%p] %a "),
];

/// The cluster's folder (`PGDATA`) within a server's folder.
pub(super) fn data(home: &Path) -> PathBuf {
    home.join("data")
}

/// A new folder with a cluster that is ready to start.
pub(super) fn create(programs: &Programs, options: &PostgresOptions) -> Result<TempDir> {
    let template = template(programs)?;
    let home = home(programs)?;
    let data = data(home.path());
    copy(&template, &data, programs.owner())?;
    let mut text = String::new();
    let fsync = if options.fsync { "on" } else { "off" };
    let wal_level = if options.logical { "logical" } else { "replica" };
    let chosen = [("fsync", fsync), ("full_page_writes", fsync), ("wal_level", wal_level)];
    let further = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in SETTINGS.into_iter().chain(chosen).chain(further) {
        let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
    }
    let path = data.join("postgresql.auto.conf");
    std::fs::write(&path, text).map_err(file("cannot write", &path))?;
    Ok(home)
}

/// An empty folder of the server's user. Short, since a socket's path may have about a hundred bytes.
fn home(programs: &Programs) -> Result<TempDir> {
    let home = tempfile::Builder::new().prefix("muniment-pg-").tempdir().map_err(file("cannot make a folder in", &std::env::temp_dir()))?;
    let (path, mode) = (home.path(), PermissionsExt::from_mode(0o755));
    std::fs::set_permissions(path, mode).map_err(file("cannot change", path))?;
    give(path, programs.owner())?;
    Ok(home)
}

fn give(path: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let Some((user, group)) = owner else { return Ok(()) };
    chown(path, Some(user), Some(group)).map_err(file("cannot give away", path))
}

/// The prepared cluster; made by the first that asks for it, while the others wait.
fn template(programs: &Programs) -> Result<PathBuf> {
    let version = run(programs.command("postgres").arg("--version"), "postgres")?;
    let version: String = version.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    let cache = cache();
    std::fs::create_dir_all(&cache).map_err(file("cannot make", &cache))?;
    let template = cache.join(format!("{version}-{TEMPLATE}"));
    let lock_path = cache.join(format!("{version}-{TEMPLATE}.lock"));
    let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(file("cannot open", &lock_path))?;
    lock.lock().map_err(file("cannot lock", &lock_path))?;
    if template.exists() {
        return Ok(template);
    }
    // Made in the temporary folder, since the server's user may have no way into the other.
    let home = home(programs)?;
    let made = data(home.path());
    let password = home.path().join("password");
    std::fs::write(&password, PASSWORD).map_err(file("cannot write", &password))?;
    let mut initdb = programs.command("initdb");
    initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256", "--username", USER]);
    run(initdb.arg("--pwfile").arg(&password).arg("--pgdata").arg(&made), "initdb")?;
    let partial = template.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(file("cannot remove", &partial))?;
    }
    copy(&made, &partial, None)?;
    std::fs::rename(&partial, &template).map_err(file("cannot rename", &partial))?;
    Ok(template)
}

/// A folder beside the build's output; below the temporary folder if the running program is not there.
fn cache() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let output = program.ancestors().find(|folder| folder.join(OUTPUT_MARK).is_file());
    match output {
        Some(output) => output.join("tmp").join("postgres"),
        None => std::env::temp_dir().join("muniment-test-postgres"),
    }
}

fn run(command: &mut std::process::Command, program: &'static str) -> Result<String> {
    let output = command.output().map_err(file("cannot run", Path::new(program)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(TestkitError::Program { program, said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// Copies a folder with all below it, with permissions as PostgreSQL wants them.
fn copy(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    std::fs::create_dir(to).map_err(file("cannot make", to))?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o700)).map_err(file("cannot change", to))?;
    give(to, owner)?;
    for entry in std::fs::read_dir(from).map_err(file("cannot read", from))? {
        let entry = entry.map_err(file("cannot read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target, owner)?;
        } else {
            std::fs::copy(&source, &target).map_err(file("cannot copy", &source))?;
            give(&target, owner)?;
        }
    }
    Ok(())
}
