//! What can go wrong when bytes are read or a checkpoint is signed or opened.

/// An error of this crate; proofs and verification have their own findings, [`crate::proof::ProofError`] and [`crate::verify::Finding`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A node does not begin where the one before it ended.
    #[error("a node of level {level} and index {index} cannot follow {size} leaves")]
    NotAdjacent {
        /// The node's level.
        level: u8,
        /// The node's index at its level.
        index: u64,
        /// Leaves covered so far.
        size: u64,
    },
    /// The bytes of a frontier have the wrong length for its size.
    #[error("the frontier's bytes are malformed")]
    Frontier,
    /// A meta-log leaf is not CBOR.
    #[error("the meta-log leaf is not well-formed CBOR")]
    LeafCbor(#[source] minicbor::decode::Error),
    /// A meta-log leaf is CBOR but breaks a rule of the format.
    #[error("the meta-log leaf is malformed: {0}")]
    Leaf(&'static str),
    /// A payload is not CBOR.
    #[error("the payload is not well-formed CBOR")]
    PayloadCbor(#[source] minicbor::decode::Error),
    /// A payload is CBOR but breaks a rule of the format.
    #[error("the payload is malformed: {0}")]
    Payload(&'static str),
    /// A verifier key does not parse.
    #[error("the verifier key is malformed")]
    VerifierKey(#[source] signed_note::VerifierError),
    /// An origin is empty or holds white space, `+` or a control character.
    #[error("\u{201c}{0}\u{201d} cannot be an origin")]
    Origin(String),
    /// A checkpoint is not a signed note, or a signature in it by a trusted key is bad, or none is by a trusted key.
    #[error("the checkpoint cannot be accepted")]
    Note(#[source] signed_note::NoteError),
    /// The text of a checkpoint is not the three lines of a tlog-checkpoint.
    #[error("the checkpoint's text is malformed: {0}")]
    Checkpoint(&'static str),
    /// No key that signed the checkpoint has the checkpoint's origin as its name, or a signer's name is not the origin.
    #[error("the checkpoint of {origin} is not signed by a key of that name")]
    Signer {
        /// The checkpoint's origin.
        origin: String,
    },
    /// A file is not JSON of the expected shape.
    #[error("the JSON document is malformed")]
    Json(#[source] serde_json::Error),
    /// A JSON document names a format that this version does not know, or contradicts itself.
    #[error("the document is malformed: {0}")]
    Document(String),
}
