//! What verification says.

use std::fmt;
use std::ops::Range;

/// The kind of a result. All but [`Valid`](Self::Valid) are failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything holds.
    Valid,
    /// Something is not what was committed.
    Altered,
    /// Something that was committed is not there.
    Missing,
    /// It ends before what was published.
    Cut,
    /// A checkpoint was not made by a trusted key.
    Forged,
    /// Something cannot be read.
    Malformed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Valid => "valid",
            Self::Altered => "altered",
            Self::Missing => "missing",
            Self::Cut => "cut",
            Self::Forged => "forged",
            Self::Malformed => "malformed",
        })
    }
}

/// One failure, and where it is. Displayed as `altered: sys_audit_log/7y, record 42, in <file>: <reason>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its kind; never [`Verdict::Valid`].
    pub verdict: Verdict,
    /// The stream, if it is in one.
    pub stream: Option<Box<str>>,
    /// The indexes among which the first bad record is; one if it is known exactly.
    pub records: Option<Range<u64>>,
    /// The file, if it is in one.
    pub file: Option<Box<str>>,
    /// What is wrong.
    pub reason: Reason,
}

impl Finding {
    /// A finding about the ledger as a whole.
    pub fn new(verdict: Verdict, reason: Reason) -> Self {
        Self { verdict, stream: None, records: None, file: None, reason }
    }

    /// The same, about this stream.
    #[must_use]
    pub fn stream(self, stream: &str) -> Self {
        Self { stream: Some(stream.into()), ..self }
    }

    /// The same, about these records.
    #[must_use]
    pub fn records(self, records: Range<u64>) -> Self {
        Self { records: Some(records), ..self }
    }

    /// The same, about this record.
    #[must_use]
    pub fn record(self, index: u64) -> Self {
        self.records(index..index.saturating_add(1))
    }

    /// The same, in this file.
    #[must_use]
    pub fn file(self, file: &str) -> Self {
        Self { file: Some(file.into()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.records.as_ref().map(|Range { start, end }| {
            if end.saturating_sub(*start) == 1 {
                format!("record {start}")
            } else {
                format!("records {start} to {}", end.saturating_sub(1))
            }
        });
        let file = self.file.as_ref().map(|file| format!("in {file}"));
        let places = [self.stream.as_deref(), records.as_deref(), file.as_deref()];
        let places: Vec<&str> = places.into_iter().flatten().collect();
        write!(f, "{}: ", self.verdict)?;
        if !places.is_empty() {
            write!(f, "{}: ", places.join(", "))?;
        }
        self.reason.fmt(f)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// A file cannot be read as what it should be; the text tells the whole chain of errors.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// A checkpoint of another ledger.
    #[error("the checkpoint is of {found}, not of {expected}")]
    Origin {
        /// Its origin.
        found: String,
        /// The origin of the ledger.
        expected: String,
    },
    /// A checkpoint that no trusted key signed.
    #[error("no trusted key signed the checkpoint")]
    NotTrusted,
    /// A checkpoint on which a trusted key's signature is bad.
    #[error("the signature of a trusted key on the checkpoint is bad")]
    BadSignature,
    /// A checkpoint that a known key signed, but not the one in force at its size.
    #[error("the checkpoint is not signed by the keys that were in force at its size")]
    NotInForce,
    /// A meta-log leaf that cannot be read.
    #[error("leaf {number} of the meta-log cannot be read: {detail}")]
    Leaf {
        /// Its number.
        number: u64,
        /// Why.
        detail: String,
    },
    /// A meta-log leaf that breaks a rule of the format.
    #[error("leaf {number} of the meta-log breaks a rule: {rule}")]
    Rule {
        /// Its number.
        number: u64,
        /// Which.
        rule: &'static str,
    },
    /// The meta-log is not as long as the checkpoint says.
    #[error("the meta-log has {found} leaves, the checkpoint says {expected}")]
    LeafCount {
        /// Leaves at hand.
        found: u64,
        /// The checkpoint's size.
        expected: u64,
    },
    /// The meta-log is not the one of a checkpoint.
    #[error("the first {size} leaves of the meta-log do not have the root that was signed")]
    MetaRoot {
        /// The checkpoint's size.
        size: u64,
    },
    /// The listed columns are not those that were signed.
    #[error("the columns of {log} are not those of its newest schema leaf")]
    Columns {
        /// The log.
        log: String,
    },
    /// A newer checkpoint was published.
    #[error("a checkpoint of {published} leaves was published, but there are only {size}")]
    OlderThanPublished {
        /// The published checkpoint's size.
        published: u64,
        /// The size at hand.
        size: u64,
    },
    /// A stream that was committed is not there.
    #[error("the stream of {size} records is not there")]
    NoStream {
        /// Its size.
        size: u64,
    },
    /// A stream that was never committed.
    #[error("no commit names the stream")]
    UnknownStream,
    /// A stream's size is not that of its newest commit.
    #[error("the stream is said to have {found} records, its newest commit says {expected}")]
    StreamSize {
        /// What is said.
        found: u64,
        /// What was committed.
        expected: u64,
    },
    /// Records that were committed and not disposed of are not there.
    #[error("the records are not there")]
    Absent,
    /// A record is there twice or out of order.
    #[error("the record is twice there or out of order: record {expected} should come here")]
    OutOfOrder {
        /// The index that should come.
        expected: u64,
    },
    /// Another record stands in a record's place.
    #[error("record {found} stands in its place")]
    Misplaced {
        /// The `stream_index` that was found.
        found: i64,
    },
    /// A record is there that should not be.
    #[error("the record is beyond the end of what should be here")]
    Surplus,
    /// A record does not fit its `blockchain_hash`.
    #[error("the record does not fit its blockchain_hash")]
    Record,
    /// A record does not continue the chain.
    #[error("the record does not follow the blockchain_hash of the one before it")]
    Chain,
    /// A record is marked as erased without authority.
    #[error("the record is marked as erased, but no erasure is in the meta-log")]
    NotAuthorised,
    /// A record is marked as erased but has values, which nothing vouches for.
    #[error("the record is marked as erased, but still has values")]
    NotErased,
    /// A record was committed before the one before it.
    #[error("its recorded_at is before that of the record before it")]
    TimeBack,
    /// What the catalog says of a file or batch is not so.
    #[error("the catalog says otherwise: {0}")]
    Catalog(&'static str),
    /// A file is there that nothing lists.
    #[error("nothing lists the file")]
    Unlisted,
    /// A listed file is not there.
    #[error("the file is not there")]
    NoFile,
    /// The nodes beside the records are not what they should be.
    #[error("the nodes beside the records do not cover the rest of the stream")]
    Nodes,
    /// Records and stored hashes fit each other, but not what was committed.
    #[error("the records fit their hashes, but not the root of commit {disagreed}{}: hashes were rewritten", since(*agreed))]
    Rewritten {
        /// Number of the last commit leaf whose root agreed.
        agreed: Option<u64>,
        /// Number of the first one whose root did not.
        disagreed: u64,
    },
    /// A file doesn't have the listed length.
    #[error("the file has {found} bytes, {expected} are listed")]
    FileSize {
        /// Its length.
        found: u64,
        /// The listed one.
        expected: u64,
    },
    /// A file doesn't have the listed SHA-256.
    #[error("the file does not have the listed SHA-256")]
    FileHash,
}

fn since(agreed: Option<u64>) -> String {
    agreed.map_or_else(String::new, |number| format!(", while that of commit {number} agrees"))
}

/// The result of a whole verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Leaves of the meta-log.
    pub leaves: u64,
    /// Streams that were verified.
    pub streams: u64,
    /// Records that were verified.
    pub records: u64,
    /// Of these, erased with authority.
    pub erased: u64,
    /// Records that were disposed of with authority.
    pub disposed: u64,
    /// What failed, the first thing first; nothing if all is valid.
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// The verdict of the first finding, or valid.
    pub fn verdict(&self) -> Verdict {
        self.findings.first().map_or(Verdict::Valid, |finding| finding.verdict)
    }

    /// 0 if everything is valid, else 1. A verifier that could not do its work exits with 2.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.findings.is_empty())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        if self.findings.is_empty() {
            write!(f, "valid: ")?;
        } else {
            write!(f, "failed: ")?;
        }
        write!(f, "{} records in {} streams, {} meta-log leaves", self.records, self.streams, self.leaves)?;
        write!(f, "; erased with authority: {}; disposed with authority: {}", self.erased, self.disposed)
    }
}
