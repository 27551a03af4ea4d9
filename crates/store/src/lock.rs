//! One writer at a time: the lock on a data folder.

use crate::error::{Result, StoreError};
use std::fs::{File, TryLockError};
use std::path::Path;

/// Held as long as the value lives; the system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock or says who has it.
    pub fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(StoreError::file("opening", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(StoreError::file("locking", path)(error)),
        }
    }
}
