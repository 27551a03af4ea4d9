//! Verification of an exported bundle: format §3.1, step by step. Nothing in the folder is trusted.

use super::join::Join;
use super::ndjson::LineReader;
use super::parquet::RecordFile;
use super::records::{Salts, StreamCheck};
use super::run::{Run, Workers};
use super::schema::{bundle_schema, table_of};
use super::{Report, VerifyOptions};
use crate::{EngineError, Result};
use muniment_ledger::bundle::{
    CHECKPOINT, CHECKPOINTS, File as ListedFile, MANIFEST, META, Manifest, RecordFormat, STREAMS, Scope, Stream,
};
use muniment_ledger::verify::{Checkpoints, Extent, Finding, Ledger, MetaVerifier, NamedNote, Outcome, Reason, Verdict};
use muniment_model::Table;
use muniment_store::parquet_file::hash_file;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAX_MANIFEST_BYTES: u64 = 256 << 20;
const MAX_NOTE_BYTES: u64 = 1 << 20;
const MAX_META_BYTES: u64 = 4 << 30;
/// Folders below `streams` that a bundle can have: log and class.
const MAX_DEPTH: usize = 8;

/// Verifies the bundle in a folder. Blocking, and busy on all cores.
///
/// # Errors
///
/// If it could not do its work: no key is given, the folder or its manifest can't be opened, or the bundle has a log that this version does
/// not know. What is wrong with the bundle is in the report.
pub fn verify_bundle(folder: &Path, options: &VerifyOptions) -> Result<Report> {
    let Some(trusted) = options.trusted.clone() else {
        return Err(EngineError::Parameter { name: "key", reason: "a bundle is verified against a key that you trust".to_owned() });
    };
    let path = folder.join(MANIFEST);
    let json = read_limited(&path, MAX_MANIFEST_BYTES).map_err(EngineError::file("reading", &path))?;
    let mut report = Report {
        origin: trusted.origin().to_owned(),
        scope: Scope::All,
        key: trusted.to_string(),
        key_given: true,
        outcome: Outcome::default(),
    };
    let manifest = match Manifest::parse(&json) {
        Ok(manifest) => manifest,
        Err(error) => {
            let reason = Reason::Unreadable(super::nodes::with_sources(&error));
            report.outcome.findings.push(Finding::new(Verdict::Malformed, reason).file(MANIFEST));
            return Ok(report);
        }
    };
    report.origin.clone_from(&manifest.origin);
    report.scope = if options.demand_all { Scope::All } else { manifest.scope };
    let verifier = BundleVerifier { folder, manifest: &manifest, scope: report.scope };
    verifier.run(options, &mut report.outcome)?;
    Ok(report)
}

struct BundleVerifier<'a> {
    folder: &'a Path,
    manifest: &'a Manifest,
    scope: Scope,
}

impl BundleVerifier<'_> {
    fn run(&self, options: &VerifyOptions, outcome: &mut Outcome) -> Result<()> {
        let Some(trusted) = &options.trusted else { return Ok(()) };
        let ledger = self.checkpoints(&options.published).and_then(|checkpoints| {
            let mut verifier = MetaVerifier::new(checkpoints)?;
            verifier.add_sequence(&self.read(META, MAX_META_BYTES)?);
            outcome.leaves = verifier.size();
            let ledger = verifier.finish(trusted)?;
            ledger.check_columns(&self.manifest.columns)?;
            Ok(ledger)
        });
        let ledger = match ledger {
            Ok(ledger) => ledger,
            Err(finding) => {
                outcome.findings.push(finding);
                return Ok(());
            }
        };
        outcome.findings = self.check_listing(&ledger);
        if !outcome.findings.is_empty() {
            return Ok(());
        }
        let mut workers = Workers::new(options.threads, options.progress.clone())?;
        workers.start(self.manifest.streams.iter().map(|stream| stream.end - stream.first).sum());
        let files = self.manifest.streams.iter().flat_map(|stream| stream.files.iter().map(|file| (stream.stream.as_str(), file)));
        let check =
            |(stream, file): (&str, &ListedFile)| file_finding(&self.folder.join(&file.path), &file.path, file.bytes, &file.sha256, stream);
        // Step 8 counts only if everything else holds, but is done meanwhile.
        let (findings, files) = workers.map_beside(files.collect(), check, || {
            let mut findings = Vec::new();
            for stream in &self.manifest.streams {
                findings.extend(self.check_stream(stream, &ledger, &workers, outcome)?);
            }
            Ok::<_, EngineError>(findings)
        });
        let mut findings = findings?;
        findings.sort_by_key(|(step, _)| *step);
        outcome.findings.extend(findings.into_iter().map(|(_, finding)| finding));
        if outcome.findings.is_empty() {
            outcome.findings = files.into_iter().flatten().collect();
        }
        Ok(())
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, Finding> {
        let path = self.folder.join(name);
        let finding = |verdict, reason| Finding::new(verdict, reason).file(name);
        regular(&path).map_err(|(verdict, reason)| finding(verdict, reason))?;
        read_limited(&path, limit).map_err(|error| finding(Verdict::Malformed, Reason::Unreadable(error.to_string())))
    }

    fn note(&self, name: &str) -> Result<NamedNote, Finding> {
        let note = String::from_utf8(self.read(name, MAX_NOTE_BYTES)?);
        let unreadable = |_| Finding::new(Verdict::Malformed, Reason::Unreadable("it is not UTF-8".to_owned())).file(name);
        Ok(NamedNote { name: name.to_owned(), note: note.map_err(unreadable)? })
    }

    fn checkpoints(&self, published: &[String]) -> Result<Checkpoints, Finding> {
        let newest = self.note(CHECKPOINT)?;
        let folder = self.folder.join(CHECKPOINTS);
        let unreadable = |error: std::io::Error| Finding::new(Verdict::Malformed, Reason::Unreadable(error.to_string())).file(CHECKPOINTS);
        let mut rotations = Vec::new();
        if folder.exists() {
            for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
                let name = entry.map_err(unreadable)?.file_name();
                let name = name.to_string_lossy();
                let note = self.note(&format!("{CHECKPOINTS}/{name}"))?;
                if note.note.lines().nth(1) != Some(&*name) {
                    let reason = Reason::Unreadable("it is not of the size that its name says".to_owned());
                    return Err(Finding::new(Verdict::Malformed, reason).file(&note.name));
                }
                rotations.push(note);
            }
        }
        let published = published.iter().map(|note| NamedNote { name: "the published checkpoint".to_owned(), note: note.clone() });
        Ok(Checkpoints { origin: self.manifest.origin.clone(), newest, rotations, published: published.collect() })
    }

    /// Step 4.
    fn check_listing(&self, ledger: &Ledger) -> Vec<Finding> {
        let extent = |stream: &Stream| Extent { stream: stream.stream.clone(), size: stream.size, first: stream.first, end: stream.end };
        let extents: Vec<Extent> = self.manifest.streams.iter().map(extent).collect();
        let mut findings = ledger.check_extents(self.scope, &extents);
        let mut listed = BTreeSet::new();
        for stream in &self.manifest.streams {
            for file in &stream.files {
                listed.insert(file.path.as_str());
                if let Err((verdict, reason)) = regular(&self.folder.join(&file.path)) {
                    findings.push(Finding::new(verdict, reason).stream(&stream.stream).file(&file.path).records(file.first..file.end));
                }
            }
        }
        let mut found = Vec::new();
        if let Err(error) = walk(&self.folder.join(STREAMS), STREAMS, 0, &mut found) {
            findings.push(Finding::new(Verdict::Malformed, Reason::Unreadable(error.to_string())).file(STREAMS));
        }
        let unlisted = found.iter().filter(|path| !listed.contains(path.as_str()));
        findings.extend(unlisted.map(|path| Finding::new(Verdict::Altered, Reason::Unlisted).file(path)));
        findings
    }

    /// Steps 5 to 7 of one stream.
    fn check_stream(&self, stream: &Stream, ledger: &Ledger, workers: &Workers, outcome: &mut Outcome) -> Result<Vec<(u8, Finding)>> {
        let table = table_of(&stream.log, &self.manifest.columns[&stream.log])
            .ok_or_else(|| EngineError::NotFound(format!("the log {} with the columns of the bundle", stream.log)))?;
        let history = &ledger.streams[&stream.stream];
        let check = StreamCheck::new(&self.manifest.origin, &stream.stream, table, history);
        let mut join = Join::new(&check, stream.first, stream.previous_hash, &stream.left);
        let mut failure = None;
        for file in &stream.files {
            if let Err(finding) = self.check_file(file, table, &check, workers, &mut join) {
                failure = Some((5, *finding));
                break;
            }
        }
        outcome.streams += 1;
        outcome.records += join.records;
        outcome.erased += join.erased;
        outcome.disposed += stream.first.min(history.disposed);
        Ok(match failure {
            Some(failure) => vec![failure],
            None => join.finish(stream.end, &stream.right),
        })
    }

    fn check_file(
        &self,
        file: &ListedFile,
        table: &Table,
        check: &StreamCheck<'_>,
        workers: &Workers,
        join: &mut Join<'_>,
    ) -> Result<(), Box<Finding>> {
        let (path, range) = (self.folder.join(&file.path), file.first..file.end);
        let schema = bundle_schema(table);
        let done = |run: Run| {
            workers.advance(run.records);
            run
        };
        match self.manifest.record_format {
            RecordFormat::Parquet => {
                let opened = Arc::new(RecordFile::open(&file.path, &path, range, &schema, check)?);
                workers.join_all(opened.groups().into_iter(), |group| done(group.check(check, Salts::Column)), join)
            }
            RecordFormat::Ndjson => {
                let unreadable = |error: std::io::Error| {
                    let reason = Reason::Unreadable(error.to_string());
                    Box::new(check.finding(Verdict::Malformed, reason).file(&file.path).records(file.first..file.end))
                };
                let lines = LineReader::open(&file.path, &path, range).map_err(unreadable)?;
                workers.join_all(lines, |lines| done(lines.check(check, &schema)), join)
            }
        }
    }
}

/// Compares a file's length and SHA-256.
pub(super) fn file_finding(path: &Path, name: &str, bytes: u64, sha256: &[u8; 32], stream: &str) -> Option<Finding> {
    let finding = |verdict, reason| Some(Finding::new(verdict, reason).stream(stream).file(name));
    match hash_file(path) {
        Err(error) => finding(Verdict::Malformed, Reason::Unreadable(super::nodes::with_sources(&error))),
        Ok((_, found)) if found != bytes => finding(Verdict::Altered, Reason::FileSize { found, expected: bytes }),
        Ok((hash, _)) if hash != *sha256 => finding(Verdict::Altered, Reason::FileHash),
        Ok(_) => None,
    }
}

/// Whether there is a file, and no link or device.
pub(super) fn regular(path: &Path) -> Result<(), (Verdict, Reason)> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err((Verdict::Malformed, Reason::Unreadable("it is not a regular file".to_owned()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err((Verdict::Missing, Reason::NoFile)),
        Err(error) => Err((Verdict::Malformed, Reason::Unreadable(error.to_string()))),
    }
}

fn read_limited(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(length.min(limit) as usize);
    #[expect(clippy::disallowed_methods, reason = "limited, and the limit is checked")]
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(std::io::Error::other(format!("it has more than {limit} bytes"))) } else { Ok(bytes) }
}

/// Appends the paths of all files below a folder, but for those whose names start with a dot.
fn walk(folder: &PathBuf, name: &str, depth: usize, found: &mut Vec<String>) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && depth == 0 => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name();
        let file_name = file_name.to_string_lossy();
        let path = format!("{name}/{file_name}");
        if entry.file_type()?.is_dir() {
            if depth == MAX_DEPTH {
                return Err(std::io::Error::other(format!("{path} is too deep")));
            }
            walk(&entry.path(), &path, depth + 1, found)?;
        } else if !file_name.starts_with('.') {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}
