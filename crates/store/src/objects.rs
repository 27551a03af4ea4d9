//! The object store: where Parquet files live. A local folder, whose files are synced to disk before anyone relies on them.

use crate::error::{Result, StoreError};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of immutable files.
#[derive(Clone, Debug)]
pub struct Objects {
    root: PathBuf,
    store: Arc<LocalFileSystem>,
}

impl Objects {
    /// Opens the folder, creating it if need be.
    pub fn open(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root).map_err(StoreError::file("creating", root))?;
        let root = root.canonicalize().map_err(StoreError::file("opening", root))?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|source| StoreError::File {
            action: "opening",
            path: root.clone(),
            source: source.into(),
        })?;
        Ok(Self { root, store: Arc::new(store) })
    }

    /// For readers such as DataFusion and the Parquet reader.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// Where a file of this path is on the local disk.
    pub fn local_path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A place for a file that is still being written, on the same file system.
    pub fn scratch(&self) -> Result<PathBuf> {
        let folder = self.root.join("scratch");
        std::fs::create_dir_all(&folder).map_err(StoreError::file("creating", &folder))?;
        Ok(folder)
    }

    /// Moves a finished scratch file to its path. When this returns, file and name survive a power loss.
    pub fn publish(&self, scratch: &Path, path: &str) -> Result<()> {
        let target = self.local_path(path);
        let folder = target.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(StoreError::file("creating", folder))?;
        File::open(scratch).and_then(|file| file.sync_all()).map_err(StoreError::file("syncing", scratch))?;
        std::fs::rename(scratch, &target).map_err(StoreError::file("moving", scratch))?;
        for folder in folder.ancestors().take_while(|ancestor| ancestor.starts_with(&self.root)) {
            sync_folder(folder)?;
        }
        Ok(())
    }

    /// Removes a file; it is no error if it is gone already.
    pub fn remove(&self, path: &str) -> Result<()> {
        let target = self.local_path(path);
        match std::fs::remove_file(&target) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::file("removing", target)(error)),
            _ => Ok(()),
        }
    }

    /// All record files, with the time of their last change in µs UTC.
    pub async fn list(&self) -> Result<Vec<(String, i64)>> {
        let prefix = ObjectPath::from("logs");
        self.store
            .list(Some(&prefix))
            .map_ok(|meta| (meta.location.to_string(), meta.last_modified.timestamp_micros()))
            .try_collect()
            .await
            .map_err(|source| StoreError::File { action: "listing", path: self.root.clone(), source: source.into() })
    }

    /// Whether a file of this path exists.
    pub async fn exists(&self, path: &str) -> bool {
        self.store.head(&ObjectPath::from(path)).await.is_ok()
    }
}

/// Makes the names in a folder survive a power loss.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::file("syncing", folder))
}
