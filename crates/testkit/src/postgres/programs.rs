//! Where PostgreSQL's programs are, and as whom they run.

use crate::error::{Result, TestkitError};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the folder of the programs, if they are in no usual place.
const FOLDER_VARIABLE: &str = "TEST_POSTGRES_BIN";
/// Where packages put versions side by side: before and after the version.
const PACKAGED: [(&str, &str, &str); 2] = [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin")];
/// Who may run the server if we are root, the first that exists.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The programs of one PostgreSQL version.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    folder: PathBuf,
    /// User and group to run as, if we are root.
    owner: Option<(u32, u32)>,
}

impl Programs {
    pub(super) fn find() -> Result<Self> {
        let named = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
        let searched = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
        let folder =
            named.into_iter().chain(searched).chain(packaged()).filter(|folder| has_server(folder)).find_map(|folder| real(&folder));
        let folder = folder.ok_or(TestkitError::NoPostgres)?;
        Ok(Self { folder, owner: if is_root() { unprivileged() } else { None } })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// User and group of the server's files, if not ours.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        self.owner
    }

    /// One of the programs, to run as an unprivileged user, with messages in English.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        command.current_dir("/").env("LC_ALL", "C").env_remove("PGDATA").env_remove("PGPORT").env_remove("PGHOST");
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

fn has_server(folder: &Path) -> bool {
    ["postgres", "initdb"].iter().all(|program| folder.join(program).is_file())
}

/// Where the server is: a link to it may stand alone in its folder, and the other programs are where it leads.
fn real(folder: &Path) -> Option<PathBuf> {
    Some(std::fs::canonicalize(folder.join("postgres")).ok()?.parent()?.to_owned())
}

/// Folders of packaged versions, newest first.
fn packaged() -> Vec<PathBuf> {
    let mut versions = Vec::new();
    for (parent, prefix, below) in PACKAGED {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|version| version.parse::<u32>().ok());
            versions.extend(version.map(|version| (version, entry.path().join(below))));
        }
    }
    versions.sort();
    versions.into_iter().rev().map(|(_, folder)| folder).collect()
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1));
    effective == Some("0")
}

fn unprivileged() -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    UNPRIVILEGED.iter().find_map(|wanted| {
        let line = users.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut ids = line.split(':').skip(2).map(str::parse);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    })
}
