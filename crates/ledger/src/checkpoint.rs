//! Checkpoints: C2SP signed notes of the meta-log's size and root, and the Ed25519 keys that sign them (format §2.2).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ed25519_dalek::Signer as _;
use rand_core::CryptoRngCore;
use signed_note::{Note, StandardVerifier, Verifier as _, VerifierList};

use crate::{Error, Hash};

/// What a checkpoint says: the meta-log of this origin had this size and this root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger's name, which is also the name of its keys.
    pub origin: String,
    /// Number of leaves of the meta-log.
    pub size: u64,
    /// Root of its tree.
    pub root: Hash,
}

impl fmt::Display for Checkpoint {
    /// The text that is signed: three lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, BASE64_STANDARD.encode(self.root))
    }
}

impl Checkpoint {
    fn parse(text: &[u8]) -> Result<Self, Error> {
        let text = str::from_utf8(text).map_err(|_| Error::Checkpoint("it is not UTF-8"))?;
        let lines: Vec<&str> = text.split('\n').collect();
        let [origin, size, root, ""] = lines[..] else {
            return Err(Error::Checkpoint("it has not just three lines"));
        };
        check_origin(origin)?;
        let number = size.parse::<u64>().ok().filter(|number| number.to_string() == size && (1..1 << 63).contains(number));
        let number = number.ok_or(Error::Checkpoint("the size is not a number from 1 on, in decimal"))?;
        let root = BASE64_STANDARD.decode(root).ok().and_then(|root| Hash::try_from(root).ok());
        let root = root.ok_or(Error::Checkpoint("the root is not 32 bytes in Base64"))?;
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }
}

/// A checkpoint that was opened, and by whom it was signed.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// The trusted keys whose signatures were found and are good; at least one.
    pub signers: Vec<VerifierKey>,
}

/// A secret key that signs checkpoints. Its `Debug` output shows only the public half.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    verifier: VerifierKey,
}

impl SigningKey {
    /// A new key for the ledger of this origin.
    ///
    /// # Errors
    ///
    /// [`Error::Origin`] if the origin is empty or holds white space, `+` or a control character.
    pub fn generate(origin: &str, random: &mut impl CryptoRngCore) -> Result<Self, Error> {
        Self::of(origin, ed25519_dalek::SigningKey::generate(random))
    }

    /// The key of this 32-byte seed.
    ///
    /// # Errors
    ///
    /// As [`generate`](Self::generate).
    pub fn from_bytes(origin: &str, seed: &[u8; 32]) -> Result<Self, Error> {
        Self::of(origin, ed25519_dalek::SigningKey::from_bytes(seed))
    }

    fn of(origin: &str, key: ed25519_dalek::SigningKey) -> Result<Self, Error> {
        check_origin(origin)?;
        let verifier = signed_note::new_ed25519_verifier_key(origin, &key.verifying_key()).parse()?;
        Ok(Self { key, verifier })
    }

    /// The 32-byte seed. It is a secret.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The origin whose checkpoints it signs.
    pub fn origin(&self) -> &str {
        self.verifier.origin()
    }

    /// The public half.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.verifier
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

impl signed_note::Signer for SigningKey {
    fn name(&self) -> &str {
        self.origin()
    }

    fn key_id(&self) -> u32 {
        self.verifier.key.key_id()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ed25519_dalek::SignatureError> {
        Ok(self.key.try_sign(message)?.to_vec())
    }
}

/// A public key that verifies checkpoints; as text `<origin>+<key hash>+<Base64>`.
#[derive(Clone)]
pub struct VerifierKey {
    key: StandardVerifier,
    text: String,
}

impl VerifierKey {
    /// The origin whose checkpoints it verifies.
    pub fn origin(&self) -> &str {
        self.key.name()
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for VerifierKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let key = StandardVerifier::new(text).map_err(Error::VerifierKey)?;
        check_origin(key.name())?;
        let encoded = text.splitn(3, '+').last().unwrap_or_default();
        let text = format!("{}+{:08x}+{encoded}", key.name(), key.key_id());
        Ok(Self { key, text })
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({})", self.text)
    }
}

impl PartialEq for VerifierKey {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for VerifierKey {}

/// Signs a checkpoint with each key, two at a rotation, and returns the signed note.
///
/// # Errors
///
/// [`Error::Signer`] if there is no key or the name of one is not the checkpoint's origin.
pub fn sign(checkpoint: &Checkpoint, keys: &[&SigningKey]) -> Result<String, Error> {
    if keys.is_empty() || keys.iter().any(|key| key.origin() != checkpoint.origin) {
        return Err(Error::Signer { origin: checkpoint.origin.clone() });
    }
    let mut note = Note::new(checkpoint.to_string().as_bytes(), &[]).map_err(Error::Note)?;
    let signers: Vec<&dyn signed_note::Signer> = keys.iter().map(|key| *key as _).collect();
    note.add_sigs(&signers).map_err(Error::Note)?;
    String::from_utf8(note.to_bytes()).map_err(|_| Error::Checkpoint("it is not UTF-8"))
}

/// Opens a signed note if a trusted key signed it. Signatures by other keys are ignored.
///
/// # Errors
///
/// [`Error::Note`] if it isn't a signed note, no trusted key signed it, or a signature by a trusted key is bad; [`Error::Checkpoint`] if
/// what was signed isn't a checkpoint; [`Error::Signer`] if the key is that of another origin.
pub fn open(note: &str, trusted: &[VerifierKey]) -> Result<Opened, Error> {
    let parsed = Note::from_bytes(note.as_bytes()).map_err(Error::Note)?;
    let by_text: BTreeMap<&str, &VerifierKey> = trusted.iter().map(|key| (key.as_str(), key)).collect();
    let known = VerifierList::new(by_text.values().map(|key| Box::new(key.key.clone()) as _).collect());
    let (signatures, _) = parsed.verify(&known).map_err(Error::Note)?;
    let checkpoint = Checkpoint::parse(parsed.text())?;
    let signed = |key: &&&VerifierKey| {
        key.origin() == checkpoint.origin
            && signatures.iter().any(|signature| (signature.name(), signature.id()) == (key.key.name(), key.key.key_id()))
    };
    let signers: Vec<VerifierKey> = by_text.values().filter(signed).map(|key| (*key).clone()).collect();
    if signers.is_empty() {
        return Err(Error::Signer { origin: checkpoint.origin });
    }
    Ok(Opened { checkpoint, signers })
}

/// Reads what a signed note says without asking who signed it.
///
/// # Errors
///
/// [`Error::Note`] if it isn't a signed note; [`Error::Checkpoint`] if its text isn't a checkpoint.
pub fn parse_unverified(note: &str) -> Result<Checkpoint, Error> {
    Checkpoint::parse(Note::from_bytes(note.as_bytes()).map_err(Error::Note)?.text())
}

fn check_origin(origin: &str) -> Result<(), Error> {
    if signed_note::is_key_name_valid(origin) && !origin.contains(char::is_control) {
        Ok(())
    } else {
        Err(Error::Origin(origin.to_owned()))
    }
}
