//! The proof of one record, alone (format §4).

use serde::{Deserialize, Serialize};

use crate::bundle::{self, Column, Kind};
use crate::checkpoint::{self, Checkpoint, VerifierKey};
use crate::meta::MetaLeaf;
use crate::{Error, Hash, Header, Salt, StreamId, Value, decode_payload, leaf_hash, payload_hash, verify_inclusion};

/// The `format` of a proof.
pub const FORMAT: &str = "muniment-proof/1";

/// A proof file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// [`FORMAT`].
    pub format: String,
    /// The ledger's name.
    pub origin: String,
    /// The record's log.
    pub log: String,
    /// The record's stream.
    pub stream: String,
    /// Its position in the stream.
    pub stream_index: u64,
    /// Its number in the log.
    pub id: i64,
    /// When it was committed, microseconds since 1970 UTC.
    pub recorded_at: i64,
    /// Its data columns, as they were hashed.
    #[serde(with = "crate::hexadecimal::base64")]
    pub payload: Vec<u8>,
    /// Its salt.
    #[serde(with = "crate::hexadecimal")]
    pub salt: Salt,
    /// `blockchain_hash` of the record before it.
    #[serde(with = "crate::hexadecimal")]
    pub previous_hash: Hash,
    /// Its own.
    #[serde(with = "crate::hexadecimal")]
    pub blockchain_hash: Hash,
    /// Inclusion path of the record in the stream's tree of the size that the commit leaf gives.
    #[serde(with = "crate::hexadecimal::list")]
    pub stream_path: Vec<Hash>,
    /// The commit leaf, in the meta-log of the checkpoint.
    pub commit: IncludedLeaf,
    /// The log's newest schema leaf before the commit leaf: it says what the numbers in the payload mean.
    pub schema: IncludedLeaf,
    /// The signed note.
    pub checkpoint: String,
    /// The key rotations that lead to the key of the checkpoint, in order.
    pub rotations: Vec<Rotation>,
}

/// A meta-log leaf and its inclusion path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncludedLeaf {
    /// Its position in the meta-log.
    pub number: u64,
    /// Its bytes.
    #[serde(with = "crate::hexadecimal::base64")]
    pub leaf: Vec<u8>,
    /// Its inclusion path in the meta-log of the checkpoint.
    #[serde(with = "crate::hexadecimal::list")]
    pub path: Vec<Hash>,
}

/// A key leaf in the meta-log of its own checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The signed note.
    pub checkpoint: String,
    /// The key leaf's position in the meta-log.
    pub number: u64,
    /// The key leaf's bytes.
    #[serde(with = "crate::hexadecimal::base64")]
    pub leaf: Vec<u8>,
    /// Its inclusion path in the meta-log of the note.
    #[serde(with = "crate::hexadecimal::list")]
    pub path: Vec<Hash>,
}

/// What a proof proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedRecord {
    /// The ledger's name.
    pub origin: String,
    /// The record's stream.
    pub stream: String,
    /// Its position in the stream.
    pub stream_index: u64,
    /// Its number in the log.
    pub id: i64,
    /// When it was committed, microseconds since 1970 UTC.
    pub recorded_at: i64,
    /// Its data columns.
    pub payload: Vec<(String, Value)>,
    /// The log's data columns, which say what the values are.
    pub columns: Vec<Column>,
    /// Its `blockchain_hash`.
    pub blockchain_hash: Hash,
    /// Position of its commit leaf in the meta-log.
    pub commit: u64,
    /// The checkpoint that vouches for it.
    pub checkpoint: Checkpoint,
}

/// Why a proof proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The file is not JSON of the shape of a proof.
    #[error("the proof is malformed")]
    Json(#[source] serde_json::Error),
    /// The proof is of another format or version.
    #[error("its format is \u{201c}{0}\u{201d}, not {FORMAT}")]
    Format(String),
    /// The stream is not one of the log.
    #[error("{stream} is not a stream of {log}")]
    Log {
        /// The stream that the proof names.
        stream: String,
        /// The log that it names.
        log: String,
    },
    /// The trusted key is that of another ledger.
    #[error("the proof is of {proof}, the trusted key of {key}")]
    Origin {
        /// The proof's origin.
        proof: String,
        /// The trusted key's.
        key: String,
    },
    /// The payload is not one.
    #[error("the payload cannot be read")]
    Payload(#[source] Error),
    /// The record doesn't have the hash that the proof says.
    #[error("the record does not have the blockchain_hash that the proof says: it was altered")]
    Record,
    /// The commit leaf is not one.
    #[error("the commit leaf cannot be read")]
    CommitLeaf(#[source] Error),
    /// The leaf is of another type.
    #[error("the leaf that should be a commit is not one")]
    NotACommit,
    /// The commit leaf has nothing on the stream.
    #[error("the commit leaf does not name {0}")]
    StreamNotInCommit(String),
    /// The record is not in the stream.
    #[error("record {index} is not in the stream of {size} records that was committed")]
    StreamPath {
        /// The record's index.
        index: u64,
        /// The stream's size.
        size: u64,
    },
    /// The commit leaf is not in the meta-log.
    #[error("leaf {number} is not in the meta-log of {size} leaves that was signed")]
    CommitPath {
        /// The leaf's number.
        number: u64,
        /// The meta-log's size.
        size: u64,
    },
    /// The checkpoint is not signed by a trusted key, or is not one.
    #[error("the checkpoint is not signed by a trusted key")]
    Checkpoint(#[source] Error),
    /// A rotation's checkpoint is not signed by both keys, or is not one.
    #[error("the checkpoint of rotation {0} is not signed by the keys before and after it")]
    RotationCheckpoint(usize, #[source] Error),
    /// A rotation's leaf is not one.
    #[error("the key leaf of rotation {0} cannot be read")]
    RotationLeaf(usize, #[source] Error),
    /// A rotation's leaf is not a key leaf, or its new key does not parse or is of another ledger.
    #[error("the leaf of rotation {0} is not a rotation of this ledger's key")]
    NotARotation(usize),
    /// A rotation's leaf is not in the meta-log of its checkpoint.
    #[error("the key leaf of rotation {0} is not in the meta-log that was signed")]
    RotationPath(usize),
    /// A rotation does not follow the one before.
    #[error("rotation {0} does not follow the key before it")]
    RotationPrevious(usize),
    /// The chain of rotations doesn't hold the trusted key.
    #[error("the trusted key is not among those of the rotations")]
    UntrustedChain,
    /// The checkpoint is older than a rotation of the proof.
    #[error("the checkpoint is older than the last rotation")]
    OlderThanRotation,
    /// The schema leaf is not one.
    #[error("the schema leaf cannot be read")]
    SchemaLeaf(#[source] Error),
    /// The leaf is of another type, of another log, or not before the commit.
    #[error("the leaf that should be the schema of {0} is not")]
    NotASchema(String),
    /// A value is not of its column's kind.
    #[error("the value of {0} is not of its column's kind")]
    Kind(String),
}

impl Proof {
    /// Reads a proof file.
    ///
    /// # Errors
    ///
    /// [`ProofError::Json`].
    pub fn parse(json: &[u8]) -> Result<Self, ProofError> {
        serde_json::from_slice(json).map_err(ProofError::Json)
    }
}

/// Checks a proof against a verifier key that the caller trusts.
///
/// # Errors
///
/// The first thing that does not hold: shape, record, stream, commit, rotations and checkpoint, inclusion of the commit.
pub fn check(proof: &Proof, trusted: &VerifierKey) -> Result<CheckedRecord, ProofError> {
    if proof.format != FORMAT {
        return Err(ProofError::Format(proof.format.clone()));
    }
    if bundle::log_of_stream(&proof.stream) != Some(&proof.log) {
        return Err(ProofError::Log { stream: proof.stream.clone(), log: proof.log.clone() });
    }
    if proof.origin != trusted.origin() {
        return Err(ProofError::Origin { proof: proof.origin.clone(), key: trusted.origin().to_owned() });
    }
    let payload = check_record(proof)?;
    check_stream(proof)?;
    let checkpoint = check_checkpoint(proof, trusted)?;
    for IncludedLeaf { number, leaf, path } in [&proof.commit, &proof.schema] {
        if !verify_inclusion(&leaf_hash(leaf), *number, checkpoint.size, path, &checkpoint.root) {
            return Err(ProofError::CommitPath { number: *number, size: checkpoint.size });
        }
    }
    let columns = check_schema(proof, &payload)?;
    Ok(CheckedRecord {
        origin: proof.origin.clone(),
        stream: proof.stream.clone(),
        stream_index: proof.stream_index,
        id: proof.id,
        recorded_at: proof.recorded_at,
        payload,
        columns,
        blockchain_hash: proof.blockchain_hash,
        commit: proof.commit.number,
        checkpoint,
    })
}

fn check_record(proof: &Proof) -> Result<Vec<(String, Value)>, ProofError> {
    let header = Header {
        stream: StreamId::new(&proof.origin, &proof.stream),
        stream_index: proof.stream_index,
        id: proof.id,
        recorded_at: proof.recorded_at,
        payload_hash: payload_hash(&proof.salt, &proof.payload),
        previous_hash: proof.previous_hash,
    };
    if header.leaf_hash() != proof.blockchain_hash {
        return Err(ProofError::Record);
    }
    decode_payload(&proof.payload).map_err(ProofError::Payload)
}

fn check_stream(proof: &Proof) -> Result<(), ProofError> {
    let leaf = MetaLeaf::decode(&proof.commit.leaf).map_err(ProofError::CommitLeaf)?;
    let MetaLeaf::Commit { streams, .. } = leaf else { return Err(ProofError::NotACommit) };
    let head = streams.iter().find(|head| head.stream == proof.stream);
    let head = head.ok_or_else(|| ProofError::StreamNotInCommit(proof.stream.clone()))?;
    let (index, size) = (proof.stream_index, head.size);
    if verify_inclusion(&proof.blockchain_hash, index, size, &proof.stream_path, &head.root) {
        Ok(())
    } else {
        Err(ProofError::StreamPath { index, size })
    }
}

fn check_schema(proof: &Proof, payload: &[(String, Value)]) -> Result<Vec<Column>, ProofError> {
    let leaf = MetaLeaf::decode(&proof.schema.leaf).map_err(ProofError::SchemaLeaf)?;
    let columns = match leaf {
        MetaLeaf::Schema { log, columns, .. } if log == proof.log && proof.schema.number < proof.commit.number => columns,
        _ => return Err(ProofError::NotASchema(proof.log.clone())),
    };
    let fits = |(name, value): &&(String, Value)| {
        let kind = columns.iter().find(|column| column.name == *name).map(|column| column.kind);
        matches!(
            (kind, value),
            (Some(Kind::Text | Kind::Json | Kind::Inet | Kind::Uuid), Value::Text(_))
                | (Some(Kind::Int | Kind::Timestamp | Kind::Decimal), Value::Int(_))
                | (Some(Kind::Bool), Value::Bool(_))
        )
    };
    match payload.iter().find(|field| !fits(field)) {
        Some((name, _)) => Err(ProofError::Kind(name.clone())),
        None => Ok(columns),
    }
}

/// The chain of keys must hold the trusted one, and its last key must have signed the checkpoint.
fn check_checkpoint(proof: &Proof, trusted: &VerifierKey) -> Result<Checkpoint, ProofError> {
    let mut chain: Vec<VerifierKey> = Vec::new();
    let mut size = 0;
    for (i, rotation) in proof.rotations.iter().enumerate() {
        let (before, after) = check_rotation(i, rotation, trusted.origin())?;
        if chain.last().is_some_and(|last| *last != before) || rotation.number < size {
            return Err(ProofError::RotationPrevious(i));
        }
        if chain.is_empty() {
            chain.push(before);
        }
        chain.push(after);
        size = rotation.number + 1;
    }
    let signer = if chain.is_empty() { trusted.clone() } else { chain[chain.len() - 1].clone() };
    if !chain.is_empty() && !chain.contains(trusted) {
        return Err(ProofError::UntrustedChain);
    }
    let opened = checkpoint::open(&proof.checkpoint, &[signer]).map_err(ProofError::Checkpoint)?;
    if opened.checkpoint.size < size { Err(ProofError::OlderThanRotation) } else { Ok(opened.checkpoint) }
}

/// The keys before and after a rotation, both of which signed its checkpoint.
fn check_rotation(i: usize, rotation: &Rotation, origin: &str) -> Result<(VerifierKey, VerifierKey), ProofError> {
    let leaf = MetaLeaf::decode(&rotation.leaf).map_err(|error| ProofError::RotationLeaf(i, error))?;
    let MetaLeaf::Key { vkey, previous: Some(previous), .. } = leaf else {
        return Err(ProofError::NotARotation(i));
    };
    let key = |text: &str| text.parse::<VerifierKey>().ok().filter(|key| key.origin() == origin).ok_or(ProofError::NotARotation(i));
    let (before, after) = (key(&previous)?, key(&vkey)?);
    let open = |key: &VerifierKey| {
        checkpoint::open(&rotation.checkpoint, std::slice::from_ref(key)).map_err(|error| ProofError::RotationCheckpoint(i, error))
    };
    open(&before)?;
    let Checkpoint { size, root, .. } = open(&after)?.checkpoint;
    let included = verify_inclusion(&leaf_hash(&rotation.leaf), rotation.number, size, &rotation.path, &root);
    if included && size - 1 == rotation.number { Ok((before, after)) } else { Err(ProofError::RotationPath(i)) }
}
