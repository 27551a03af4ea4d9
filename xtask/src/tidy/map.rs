//! The map: `ARCHITECTURE.md` names every crate and every top-level module, and nothing that isn't there.
//!
//! A crate is named by its folder, `crates/store`; a module of it by `store::flush`; both between backticks.

use std::collections::BTreeSet;

use super::{File, Finding};

const MAP: &str = "ARCHITECTURE.md";
/// Files of a crate that are not modules of their own to a reader.
const NOT_MODULES: [&str; 3] = ["lib", "main", "tests"];

/// Compares the map with the tree.
pub fn check(files: &[File]) -> Vec<Finding> {
    let Some(map) = files.iter().find(|file| file.path == MAP) else {
        return vec![Finding::new(MAP, 0, "there is no map of the crates")];
    };
    let crates: BTreeSet<&str> = files.iter().filter_map(|file| crate_of(&file.path)).collect();
    let modules: BTreeSet<String> = files.iter().filter_map(|file| module_of(&file.path)).collect();
    let named: Vec<(usize, &str)> = backticked(&map.text);

    let missing_crates = crates
        .iter()
        .map(|name| format!("crates/{name}"))
        .filter(|folder| !named.iter().any(|(_, name)| name == folder))
        .map(|folder| format!("doesn't name `{folder}`"));
    let missing_modules =
        modules.iter().filter(|module| !named.iter().any(|(_, name)| name == module)).map(|module| format!("doesn't name `{module}`"));
    let missing = missing_crates.chain(missing_modules).map(|message| Finding::new(MAP, 0, message));

    let exists = |name: &str| match name.split_once("::") {
        Some((krate, _)) if crates.contains(krate) => modules.contains(name) || !is_module_path(name),
        Some(_) => true,
        None if is_tree_path(name) => {
            let folder = format!("{}/", name.trim_end_matches('/'));
            files.iter().any(|file| file.path == name || file.path.starts_with(&folder))
        }
        None => true,
    };
    let unknown = named
        .iter()
        .filter(|(_, name)| !exists(name))
        .map(|(line, name)| Finding::new(MAP, *line, format!("names `{name}`, which isn't there")));
    missing.chain(unknown).collect()
}

fn crate_of(path: &str) -> Option<&str> {
    path.strip_prefix("crates/")?.split_once('/').map(|(name, _)| name)
}

/// `crates/store/src/flush.rs` and `crates/store/src/flush/mod.rs` are `store::flush`.
fn module_of(path: &str) -> Option<String> {
    let (krate, rest) = path.strip_prefix("crates/")?.split_once("/src/")?;
    let module = match rest.split_once('/') {
        Some((folder, below)) if below.ends_with(".rs") => folder,
        Some(_) => return None,
        None => rest.strip_suffix(".rs")?,
    };
    (!NOT_MODULES.contains(&module) && module != "bin").then(|| format!("{krate}::{module}"))
}

/// Two snake_case names: a crate and a module, not a type or a function's path.
fn is_module_path(name: &str) -> bool {
    let snake = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    name.split("::").count() == 2 && name.split("::").all(snake)
}

fn is_tree_path(name: &str) -> bool {
    ["crates/", "docs/", "xtask/", "verifier/", "bench/", "fuzz/", ".ci/"].iter().any(|folder| name.starts_with(folder))
        && !name.contains(['*', '<', '{', ' ', '…'])
}

/// The code spans of a Markdown text outside fenced blocks, each with its line.
fn backticked(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut spans = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (index + 1, span)));
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn findings(map: &str) -> Vec<String> {
        let files = [
            file("crates/store/Cargo.toml", ""),
            file("crates/store/src/lib.rs", ""),
            file("crates/store/src/flush.rs", ""),
            file("crates/store/src/sqlite/mod.rs", ""),
            file("crates/store/src/sqlite/heads.sql", ""),
            file("docs/format.md", ""),
            file(MAP, map),
        ];
        check(&files).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_map() {
        assert_eq!(findings("`crates/store`: `store::flush`, `store::sqlite`, `Vec::new`, `docs/format.md`, `store::Snapshot`"), [""; 0]);
        assert_eq!(findings("`crates/store` `store::flush` `store::sqlite`\n```\n`store::nothing`\n```\n"), [""; 0]);
    }

    #[test]
    fn what_is_missing_and_what_is_invented() {
        assert_eq!(
            findings("\n`store::flush`, `store::compact`, `crates/rules`, `docs/lost.md`"),
            [
                "ARCHITECTURE.md: doesn't name `crates/store`",
                "ARCHITECTURE.md: doesn't name `store::sqlite`",
                "ARCHITECTURE.md:2: names `store::compact`, which isn't there",
                "ARCHITECTURE.md:2: names `crates/rules`, which isn't there",
                "ARCHITECTURE.md:2: names `docs/lost.md`, which isn't there",
            ]
        );
        assert_eq!(check(&[file("README.md", "")]).len(), 1);
    }
}
