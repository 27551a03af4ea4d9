//! Checkpoints leave the data folder: written to folders elsewhere, and compared with the log at the next start, so that an older copy of the data
//! folder can't sign a second history (the rollback fence).

use crate::error::{EngineError, Result};
use crate::heads::Heads;
use muniment_ledger::checkpoint;
use muniment_ledger::{Frontier, leaf_hash};
use muniment_store::Store;
use muniment_store::objects::sync_folder;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Name of the newest published checkpoint.
pub(crate) const NEWEST: &str = "checkpoint";

/// Writes a checkpoint to each folder: as the newest, and under its size if it is to be `kept`.
pub(crate) fn publish(folders: &[PathBuf], size: u64, note: &str, kept: bool) -> Result<()> {
    for folder in folders {
        std::fs::create_dir_all(folder).map_err(EngineError::file("creating", folder))?;
        if kept {
            replace(folder, &size.to_string(), note)?;
        }
        replace(folder, NEWEST, note)?;
        sync_folder(folder)?;
    }
    Ok(())
}

fn replace(folder: &Path, name: &str, note: &str) -> Result<()> {
    let (path, scratch) = (folder.join(name), folder.join(format!(".{name}.new")));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&scratch)?;
        file.write_all(note.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&scratch, &path)
    };
    write().map_err(EngineError::file("publishing a checkpoint to", &path))
}

/// Refuses to go on if a published checkpoint is ahead of the log or contradicts it.
pub(crate) async fn fence(folders: &[PathBuf], store: &Store, heads: &Heads) -> Result<()> {
    for folder in folders {
        let path = folder.join(NEWEST);
        let note = match std::fs::read_to_string(&path) {
            Ok(note) => note,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(EngineError::file("reading", path)(error)),
        };
        let published = checkpoint::parse_unverified(&note)?;
        if published.origin != heads.origin() {
            return Err(EngineError::Forked(published.size));
        }
        if published.size > heads.size() {
            return Err(EngineError::RolledBack { published: published.size, local: heads.size() });
        }
        if root_at(store, published.size).await? != Some(published.root) {
            return Err(EngineError::Forked(published.size));
        }
    }
    Ok(())
}

/// The meta-log's root at a size: from the checkpoint of that size if there is one, else from the leaves.
async fn root_at(store: &Store, size: u64) -> Result<Option<muniment_ledger::Hash>> {
    if let Some((found, note)) = store.db().checkpoint_from(size).await?
        && found == size
    {
        return Ok(Some(checkpoint::parse_unverified(&note)?.root));
    }
    let mut frontier = Frontier::new();
    while frontier.size() < size {
        let end = size.min(frontier.size() + 10_000);
        let leaves = store.db().meta_leaves(frontier.size(), end).await?;
        if leaves.is_empty() {
            return Ok(None);
        }
        frontier.extend(&leaves.iter().map(|leaf| leaf_hash(leaf)).collect::<Vec<_>>());
    }
    Ok(Some(frontier.root()))
}
