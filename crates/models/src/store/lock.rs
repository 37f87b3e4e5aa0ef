//! Owns who may change the store when: the lock that lasts for one change, and leases, which last
//! for a whole pull.
//!
//! The kernel frees both when their process ends, however it ends. A lease lists the blobs that its
//! owner is about to use, so that nobody sweeps them away while they belong to no model yet.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use super::disk;
use crate::{Digest, Error, Result};

/// The store's lock is held until this is dropped.
pub(super) struct Guard {
    _file: File,
}

fn lock_file(root: &Path) -> Result<File> {
    let path = root.join("lock");
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(Error::io("cannot open", path))
}

/// Waits until nobody else reads or changes the store.
pub(super) fn exclusive(root: &Path) -> Result<Guard> {
    let file = lock_file(root)?;
    file.lock().map_err(Error::io("cannot lock", root.join("lock")))?;
    Ok(Guard { _file: file })
}

/// Waits until nobody changes the store.
pub(super) fn shared(root: &Path) -> Result<Guard> {
    let file = lock_file(root)?;
    file.lock_shared().map_err(Error::io("cannot lock", root.join("lock")))?;
    Ok(Guard { _file: file })
}

/// The lock if it is free.
pub(super) fn try_exclusive(root: &Path) -> Result<Option<Guard>> {
    let file = lock_file(root)?;
    Ok(is_free(&file).map_err(Error::io("cannot lock", root.join("lock")))?.then_some(Guard { _file: file }))
}

/// Locks the file if nobody else has.
pub(super) fn is_free(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A name that no other temporary file of any process has.
pub(super) fn unique_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{}-{number}-{now:x}", process::id())
}

/// Somebody is bringing blobs into the store.
pub(super) struct Lease {
    name: String,
    path: PathBuf,
    file: File,
}

impl Lease {
    /// To be called with the store's lock held: a sweep must not meet a lease that is not locked yet.
    pub(super) fn new(root: &Path, _guard: &Guard) -> Result<Self> {
        let name = unique_name();
        let path = root.join("leases").join(&name);
        let file = disk::create_new(&path).map_err(Error::io("cannot create", &path))?;
        file.lock().map_err(Error::io("cannot lock", &path))?;
        Ok(Self { name, path, file })
    }

    /// Temporary files of this lease begin with this.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// From now on no sweep takes this blob. The store's lock must be held.
    pub(super) fn protect(&self, digest: &Digest, _guard: &Guard) -> Result<()> {
        // Not flushed to the disk: a crash of the machine ends the lease anyway.
        (&self.file)
            .write_all(format!("{}\n", digest.hex()).as_bytes())
            .map_err(Error::io("cannot write", &self.path))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = disk::remove_file(&self.path);
    }
}

/// What the leases of running processes protect.
#[derive(Default)]
pub(super) struct Living {
    pub(super) names: BTreeSet<String>,
    pub(super) digests: BTreeSet<Digest>,
}

/// Reads all leases and removes those whose owners are gone. The store's lock must be held.
pub(super) fn living_leases(root: &Path, _guard: &Guard) -> Result<Living> {
    let folder = root.join("leases");
    let mut living = Living::default();
    for entry in fs::read_dir(&folder).map_err(Error::io("cannot read", &folder))? {
        let path = entry.map_err(Error::io("cannot read", &folder))?.path();
        // It may have been dropped by its owner just now.
        let Ok(file) = File::open(&path) else { continue };
        if is_free(&file).map_err(Error::io("cannot lock", &path))? {
            disk::remove_file(&path).map_err(Error::io("cannot remove", &path))?;
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        living.digests.extend(text.lines().filter_map(Digest::from_hex));
        living.names.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
    }
    Ok(living)
}
