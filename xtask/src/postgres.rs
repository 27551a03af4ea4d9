//! PostgreSQL's server programs, which tests and benchmarks run: finds them, or installs them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::process::{command, is_there, output, run as execute};

/// Names the folder of the programs; the tests look there first, too.
const FOLDER_VARIABLE: &str = "TEST_POSTGRES_BIN";
const PACKAGE: &str = "postgresql";
/// Keeps the package from setting up and starting a server of its own, which nobody here asked for.
const CLUSTER_SETTINGS: &str = "/etc/postgresql-common/createcluster.conf";

/// Makes sure that there is a server, so that no test has to install one while others run.
pub fn need() -> Result<PathBuf> {
    if let Some(folder) = find() {
        return Ok(folder);
    }
    let is_root = output(command("id").arg("--user")).is_ok_and(|id| id.trim() == "0");
    if !is_root || !is_there("apt-get", &[]) {
        return Err(Error::new(format!(
            "no PostgreSQL server programs: capture is tested against a real server. On Debian: apt-get install {PACKAGE}; elsewhere, \
             set {FOLDER_VARIABLE} to the folder that has `postgres` and `initdb`"
        )));
    }
    install()?;
    find().ok_or_else(|| Error::new(format!("the package {PACKAGE} was installed and brought no `postgres`")))
}

fn install() -> Result<()> {
    let settings = Path::new(CLUSTER_SETTINGS);
    if !settings.exists() {
        let folder = settings.parent().unwrap_or(settings);
        // Without the file the package only does more than is needed.
        let _ = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(settings, "create_main_cluster = false\n"));
    }
    let apt = |arguments: &[&str]| execute(command("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments));
    apt(&["update", "--quiet"])?;
    apt(&["install", "--quiet", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", PACKAGE])
}

/// The folder of the programs: the one named, one of the search path, or that of the newest packaged version.
fn find() -> Option<PathBuf> {
    let named = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
    let searched = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let has_server = |folder: &PathBuf| ["postgres", "initdb"].iter().all(|program| folder.join(program).is_file());
    // A link to the server may stand alone in its folder: the other programs are where it leads.
    let real = |folder: PathBuf| std::fs::canonicalize(folder.join("postgres")).ok().and_then(|path| path.parent().map(Path::to_owned));
    named.into_iter().chain(searched).chain(packaged()).filter(has_server).find_map(real)
}

fn packaged() -> Vec<PathBuf> {
    let mut versions = Vec::new();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|version| version.parse::<u32>().ok());
            versions.extend(version.map(|version| (version, entry.path().join("bin"))));
        }
    }
    versions.sort();
    versions.into_iter().rev().map(|(_, folder)| folder).collect()
}
