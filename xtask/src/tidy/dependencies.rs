//! Who may depend on whom: directions inside the workspace, what the pure crates must never reach, one version of the heavy crates, and a
//! written reason for each dependency from outside.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{File, Finding};
use crate::error::{Context, Error, Result};

const REASONS: &str = "docs/dependencies.md";
const MANIFEST: &str = "Cargo.toml";

/// Crate, and the crates of the workspace that it may use.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("muniment-model", &[]),
    ("muniment-ledger", &[]),
    ("muniment-access", &["muniment-model"]),
    ("muniment-store", &["muniment-model", "muniment-ledger"]),
    ("muniment-capture", &["muniment-model"]),
    ("muniment-engine", &["muniment-model", "muniment-ledger", "muniment-access", "muniment-store", "muniment-capture"]),
    ("muniment-server", &["muniment-model", "muniment-ledger", "muniment-access", "muniment-capture", "muniment-engine"]),
    (
        "muniment-cli",
        &[
            "muniment-model",
            "muniment-ledger",
            "muniment-access",
            "muniment-store",
            "muniment-capture",
            "muniment-engine",
            "muniment-server",
        ],
    ),
    ("muniment-testkit", &[]),
    ("xtask", &[]),
];

/// Crate, and the families that it must not reach by any path.
const UNREACHABLE: [(&str, &[&str]); 4] = [
    ("muniment-ledger", &["tokio", "arrow", "datafusion", "sqlx"]),
    ("muniment-model", &["tokio", "datafusion", "sqlx"]),
    ("muniment-access", &["tokio", "datafusion", "sqlx"]),
    ("xtask", &["tokio", "arrow", "datafusion", "sqlx"]),
];

/// Families of which two versions would double build time and keep types from fitting.
const SINGLE: [&str; 5] = ["arrow", "parquet", "datafusion", "sqlx", "tokio"];

/// The packages that the workspace is built from.
#[derive(Debug, Default)]
pub struct Graph {
    packages: BTreeMap<String, Package>,
}

#[derive(Debug, Default)]
struct Package {
    name: String,
    version: String,
    inside: bool,
    /// Ids of packages used outside tests.
    uses: BTreeSet<String>,
    /// Names of direct dependencies, those of tests included.
    direct: BTreeSet<String>,
}

impl Graph {
    /// Reads what `cargo metadata --format-version 1` prints.
    pub fn parse(metadata: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(metadata).context(|| "cannot read cargo's metadata")?;
        let mut graph = Self::default();
        let members: BTreeSet<&str> = strings(&metadata["workspace_members"]).collect();
        for package in list(&metadata["packages"]) {
            let text = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
            let direct = list(&package["dependencies"]).iter().filter_map(|dependency| dependency["name"].as_str()).map(str::to_owned);
            let inside = members.contains(text("id").as_str());
            let read = Package { name: text("name"), version: text("version"), inside, direct: direct.collect(), ..Package::default() };
            graph.packages.insert(text("id"), read);
        }
        for node in list(&metadata["resolve"]["nodes"]) {
            let used = list(&node["deps"]).iter().filter(|dep| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev"));
            let uses = used.filter_map(|dep| dep["pkg"].as_str()).map(str::to_owned).collect();
            if let Some(package) = node["id"].as_str().and_then(|id| graph.packages.get_mut(id)) {
                package.uses = uses;
            }
        }
        if graph.packages.is_empty() {
            return Err(Error::new("cargo's metadata names no package"));
        }
        Ok(graph)
    }

    fn members(&self) -> impl Iterator<Item = (&String, &Package)> {
        self.packages.iter().filter(|(_, package)| package.inside)
    }

    /// A path of names from a package to the nearest one of a family.
    fn path_to(&self, from: &str, family: &str) -> Option<String> {
        let mut paths = vec![(from, self.packages.get(from)?.name.clone())];
        let mut seen = BTreeSet::from([from]);
        let mut next = 0;
        while let Some((id, path)) = paths.get(next).cloned() {
            next += 1;
            for used in &self.packages.get(id)?.uses {
                let Some(package) = self.packages.get(used).filter(|_| seen.insert(used)) else { continue };
                let path = format!("{path} → {}", package.name);
                if is_of(&package.name, family) {
                    return Some(path);
                }
                paths.push((used, path));
            }
        }
        None
    }
}

/// All rules on dependencies.
pub fn check(graph: &Graph, files: &[File]) -> Vec<Finding> {
    let mut findings = directions(graph);
    findings.extend(unreachable(graph));
    findings.extend(single_versions(graph));
    findings.extend(reasons(graph, files));
    findings
}

fn directions(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, package) in graph.members() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            findings.push(Finding::new(MANIFEST, 0, format!("{} has no entry in the allow-list of directions", package.name)));
            continue;
        };
        let used = package.uses.iter().filter_map(|id| graph.packages.get(id)).filter(|used| used.inside);
        let wrong = used.filter(|used| !allowed.contains(&used.name.as_str()));
        findings.extend(wrong.map(|used| Finding::new(MANIFEST, 0, format!("{} must not depend on {}", package.name, used.name))));
    }
    findings
}

fn unreachable(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, families) in UNREACHABLE {
        for (id, _) in graph.members().filter(|(_, package)| package.name == name) {
            let paths = families.iter().filter_map(|family| graph.path_to(id, family));
            findings.extend(paths.map(|path| Finding::new(MANIFEST, 0, format!("{name} must not reach it: {path}"))));
        }
    }
    findings
}

fn single_versions(graph: &Graph) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in graph.packages.values().filter(|package| SINGLE.iter().any(|family| is_of(&package.name, family))) {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let double = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    double
        .map(|(name, versions)| Finding::new("Cargo.lock", 0, format!("{name} is there in versions {}", versions.join(" and "))))
        .collect()
}

/// `arrow` and `arrow-array` are of the family `arrow`; `tokio-util` is another thing than `tokio`.
fn is_of(name: &str, family: &str) -> bool {
    name == family || (family != "tokio" && name.strip_prefix(family).is_some_and(|rest| rest.starts_with('-')))
}

/// The workspace manifest, the crates that use it and the page of reasons name the same dependencies.
fn reasons(graph: &Graph, files: &[File]) -> Vec<Finding> {
    let inside: BTreeSet<&str> = graph.members().map(|(_, package)| package.name.as_str()).collect();
    let used: BTreeSet<&str> =
        graph.members().flat_map(|(_, package)| &package.direct).map(String::as_str).filter(|name| !inside.contains(name)).collect();
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let reasoned = table_names(text(REASONS));
    let declared = workspace_dependencies(text(MANIFEST));

    let unreasoned = used.iter().filter(|name| !reasoned.iter().any(|(_, reasoned)| reasoned == *name));
    let unreasoned = unreasoned.map(|name| Finding::new(REASONS, 0, format!("gives no reason for `{name}`")));
    let obsolete = reasoned.iter().filter(|(_, name)| !used.contains(name));
    let obsolete = obsolete.map(|(line, name)| Finding::new(REASONS, *line, format!("`{name}` is no direct dependency")));
    let unused = declared.iter().filter(|(_, name)| !used.contains(name) && !inside.contains(name));
    let unused = unused.map(|(line, name)| Finding::new(MANIFEST, *line, format!("`{name}` is declared and no crate uses it")));
    unreasoned.chain(obsolete).chain(unused).collect()
}

/// The names that lead the rows of a Markdown table: `| `name` | …`.
fn table_names(text: &str) -> Vec<(usize, &str)> {
    let rows = text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, line.strip_prefix("| `")?)));
    rows.filter_map(|(line, rest)| Some((line, rest.split_once('`')?.0))).collect()
}

/// The names in the section `[workspace.dependencies]` of a manifest.
fn workspace_dependencies(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate().skip_while(|(_, line)| *line != "[workspace.dependencies]").skip(1);
    let section = lines.take_while(|(_, line)| !line.starts_with('['));
    section.filter_map(|(index, line)| Some((index + 1, line.split_once(" = ")?.0))).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    list(value).iter().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::file;
    use super::*;

    /// A graph from lines `name version: dependency dependency`; names that start with `muniment` are inside.
    fn graph(lines: &str) -> Graph {
        let mut graph = Graph::default();
        for line in lines.lines() {
            let (package, uses) = line.trim().split_once(':').unwrap();
            let (name, version) = package.split_once(' ').unwrap();
            let uses: BTreeSet<String> = uses.split_whitespace().map(str::to_owned).collect();
            let read =
                Package { name: name.into(), version: version.into(), inside: name.starts_with("muniment"), direct: uses.clone(), uses };
            let id = if graph.packages.contains_key(name) { format!("{name} {version}") } else { name.to_owned() };
            graph.packages.insert(id, read);
        }
        graph
    }

    fn messages(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn directions_follow_the_allow_list() {
        let good = graph("muniment-store 1: muniment-model\nmuniment-model 1: serde\nserde 1:");
        assert_eq!(messages(directions(&good)), [""; 0]);
        let bad = graph("muniment-ledger 1: muniment-model\nmuniment-model 1:\nmuniment-common 1:");
        assert_eq!(
            messages(directions(&bad)),
            ["muniment-common has no entry in the allow-list of directions", "muniment-ledger must not depend on muniment-model"]
        );
    }

    #[test]
    fn pure_crates_stay_pure_however_long_the_path() {
        let bad = graph("muniment-ledger 1: hash\nhash 1: pool\npool 1: tokio\ntokio 1:");
        assert_eq!(messages(unreachable(&bad)), ["muniment-ledger must not reach it: muniment-ledger → hash → pool → tokio"]);
        let good = graph("muniment-ledger 1: tokio-util\ntokio-util 1:\nmuniment-model 1: arrow-array\narrow-array 1:");
        assert_eq!(messages(unreachable(&good)), [""; 0]);
    }

    #[test]
    fn heavy_crates_have_one_version() {
        let bad = graph("arrow-array 58:\narrow-array 59:\nserde 1:\nserde 2:\ntokio-util 1:\ntokio-util 2:");
        assert_eq!(messages(single_versions(&bad)), ["arrow-array is there in versions 58 and 59"]);
    }

    #[test]
    fn every_dependency_has_its_reason() {
        let graph = graph("muniment-store 1: sqlx muniment-model\nmuniment-model 1: serde\nserde 1:\nsqlx 1: deep\ndeep 1:");
        let files = [
            file(REASONS, "| crate | why |\n| --- | --- |\n| `serde` | x |\n| `rayon` | x |\n"),
            file(
                MANIFEST,
                "[workspace]\n[workspace.dependencies]\nmuniment-model = { path = \"x\" }\nserde = \"1\"\nsqlx = \"1\"\nrayon = \"1\"\n\n[profile]\nx = 1\n",
            ),
        ];
        assert_eq!(
            messages(reasons(&graph, &files)),
            ["gives no reason for `sqlx`", "`rayon` is no direct dependency", "`rayon` is declared and no crate uses it"]
        );
    }

    #[test]
    fn metadata_is_read() {
        let metadata = r#"{
            "packages": [
                {"id": "a#1", "name": "a", "version": "1", "dependencies": [{"name": "b"}, {"name": "t"}]},
                {"id": "b#1", "name": "b", "version": "1", "dependencies": []},
                {"id": "t#1", "name": "t", "version": "1", "dependencies": []}
            ],
            "workspace_members": ["a#1"],
            "resolve": {"nodes": [{"id": "a#1", "deps": [
                {"pkg": "b#1", "dep_kinds": [{"kind": null}]},
                {"pkg": "t#1", "dep_kinds": [{"kind": "dev"}]}
            ]}]}
        }"#;
        let graph = Graph::parse(metadata).unwrap();
        let package = &graph.packages["a#1"];
        assert!(package.inside && !graph.packages["b#1"].inside);
        assert_eq!(package.uses, BTreeSet::from(["b#1".to_owned()]));
        assert_eq!(package.direct, BTreeSet::from(["b".to_owned(), "t".to_owned()]));
        assert!(Graph::parse("{}").is_err());
    }
}
