//! Whole files against their listed length and SHA-256.

use muniment_ledger::hash_streams;
use muniment_ledger::verify::{Finding, Reason, Verdict};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A file and what it should be.
pub(super) struct Whole<'a> {
    pub(super) path: PathBuf,
    /// Name for findings.
    pub(super) name: &'a str,
    pub(super) stream: &'a str,
    pub(super) bytes: u64,
    pub(super) sha256: &'a [u8; 32],
}

/// One or two files to hash side by side, each with its place in the list.
pub(super) type Pair<'a> = Vec<(usize, Whole<'a>)>;

/// Pairs of files of about the same length, the longest first.
pub(super) fn pairs<'a>(files: impl Iterator<Item = Whole<'a>>) -> Vec<Pair<'a>> {
    let mut files: Vec<_> = files.enumerate().collect();
    files.sort_by_key(|(_, file)| std::cmp::Reverse(file.bytes));
    let mut pairs = Vec::new();
    let mut files = files.into_iter();
    while let Some(first) = files.next() {
        pairs.push(std::iter::once(first).chain(files.next()).collect());
    }
    pairs
}

/// What is wrong with the files of a pair.
pub(super) fn check(pair: Pair<'_>) -> Vec<(usize, Finding)> {
    let open = |file: Option<&(usize, Whole<'_>)>| file.map_or_else(|| Ok(Input::Nothing), |(_, file)| Input::open(&file.path));
    let (mut a, mut b) = (open(pair.first()), open(pair.get(1)));
    let nothing = &mut Input::Nothing;
    let hashed = {
        let mut other = Input::Nothing;
        hash_streams(a.as_mut().unwrap_or(nothing), b.as_mut().unwrap_or(&mut other))
    };
    let outcomes = [a, b].into_iter().zip(hashed).map(|(opened, hashed)| opened.and(hashed));
    pair.into_iter().zip(outcomes).filter_map(|((place, file), outcome)| Some((place, file.finding(outcome)?))).collect()
}

/// What was found wrong, in the order of the list.
pub(super) fn in_order(found: Vec<Vec<(usize, Finding)>>) -> Vec<Finding> {
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, finding)| finding).collect()
}

impl Whole<'_> {
    fn finding(&self, outcome: io::Result<([u8; 32], u64)>) -> Option<Finding> {
        let finding = |verdict, reason| Some(Finding::new(verdict, reason).stream(self.stream).file(self.name));
        match outcome {
            Err(error) => finding(Verdict::Malformed, Reason::Unreadable(super::nodes::with_sources(&error))),
            Ok((_, found)) if found != self.bytes => finding(Verdict::Altered, Reason::FileSize { found, expected: self.bytes }),
            Ok((hash, _)) if hash != *self.sha256 => finding(Verdict::Altered, Reason::FileHash),
            Ok(_) => None,
        }
    }
}

enum Input {
    File(File),
    Nothing,
}

impl Input {
    fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self::File)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Nothing => Ok(0),
        }
    }
}
