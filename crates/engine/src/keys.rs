//! The signing key on disk: one file that only its owner may read, and a second one while a rotation is under way.

use crate::error::{EngineError, Result};
use muniment_ledger::checkpoint::{self, SigningKey};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const CURRENT: &str = "signing.key";
const NEXT: &str = "next.key";

/// The folder with the signing key.
#[derive(Debug)]
pub(crate) struct KeyFolder {
    folder: PathBuf,
    origin: String,
}

impl KeyFolder {
    /// The key folder of a data folder.
    pub(crate) fn open(data: &Path, origin: &str) -> Result<Self> {
        let folder = data.join("keys");
        std::fs::create_dir_all(&folder).map_err(EngineError::file("creating", &folder))?;
        Ok(Self { folder, origin: origin.to_owned() })
    }

    /// The key in force, created if the log is new. `newest` is the newest checkpoint: the key must be the one that signed it.
    pub(crate) fn current(&self, newest: Option<&str>) -> Result<SigningKey> {
        let Some(newest) = newest else {
            return match self.read(CURRENT)? {
                Some(key) => Ok(key),
                None => self.create(CURRENT),
            };
        };
        let signed = |key: &SigningKey| checkpoint::open(newest, std::slice::from_ref(key.verifier_key())).is_ok();
        if let Some(next) = self.read(NEXT)?
            && signed(&next)
        {
            self.promote()?;
            return Ok(next);
        }
        match self.read(CURRENT)? {
            Some(key) if signed(&key) => Ok(key),
            Some(_) => Err(self.error(CURRENT, "it did not sign the newest checkpoint")),
            None => Err(self.error(CURRENT, "it is missing, and a log can't be continued with another key")),
        }
    }

    /// A new key, kept beside the current one until [`Self::promote`].
    pub(crate) fn create_next(&self) -> Result<SigningKey> {
        self.create(NEXT)
    }

    /// Puts the new key in the place of the current one, which is gone after that.
    pub(crate) fn promote(&self) -> Result<()> {
        let (next, current) = (self.folder.join(NEXT), self.folder.join(CURRENT));
        std::fs::rename(&next, &current).map_err(EngineError::file("moving", next))?;
        Ok(muniment_store::objects::sync_folder(&self.folder)?)
    }

    fn create(&self, name: &str) -> Result<SigningKey> {
        let key = SigningKey::generate(&self.origin, &mut rand_core::OsRng)?;
        let path = self.folder.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            writeln!(file, "{}", hex::encode(key.to_bytes()))?;
            file.sync_all()
        };
        write().map_err(EngineError::file("writing", &path))?;
        muniment_store::objects::sync_folder(&self.folder)?;
        Ok(key)
    }

    fn read(&self, name: &str) -> Result<Option<SigningKey>> {
        let path = self.folder.join(name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(EngineError::file("reading", path)(error)),
        };
        let mut seed = [0; 32];
        hex::decode_to_slice(text.trim(), &mut seed).map_err(|_| self.error(name, "it is not 64 hexadecimal digits"))?;
        Ok(Some(SigningKey::from_bytes(&self.origin, &seed)?))
    }

    fn error(&self, name: &str, reason: &str) -> EngineError {
        EngineError::Key { path: self.folder.join(name), reason: reason.to_owned() }
    }
}
