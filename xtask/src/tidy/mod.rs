//! Checks of the tree that no compiler makes: each rule of the project that a reader relies on and nobody would re-check by hand.

mod dependencies;
mod map;
mod sources;
mod words;

use std::fmt;

use crate::error::{Error, Result};
use crate::process::{cargo, command, output, root};

/// A text file of the tree.
#[derive(Clone, Debug)]
pub struct File {
    /// Path from the root of the tree, with forward slashes.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    path: String,
    /// 1-based; 0 stands for the whole file.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Checks the tree; prints every finding and fails if there is one. Long files are only warned of.
pub fn run() -> Result<()> {
    let files = tree()?;
    let graph = dependencies::Graph::parse(&output(cargo().args(["metadata", "--format-version", "1"]))?)?;
    for warning in sources::long_files(&files) {
        println!("warning: {warning}");
    }
    let findings: Vec<Finding> = [sources::check(&files), map::check(&files), words::check(&files), dependencies::check(&graph, &files)]
        .into_iter()
        .flatten()
        .collect();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files, nothing to say", files.len());
            Ok(())
        }
        count => Err(Error::new(format!("tidy: {count} findings"))),
    }
}

/// The text files that git tracks or would track.
fn tree() -> Result<Vec<File>> {
    let listed = output(command("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]))?;
    let paths = listed.split('\0').filter(|path| !path.is_empty());
    Ok(paths
        .filter_map(|path| {
            let bytes = std::fs::read(root().join(path)).ok()?;
            Some(File { path: path.to_owned(), text: String::from_utf8(bytes).ok()? })
        })
        .collect())
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}
