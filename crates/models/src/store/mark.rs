//! Owns the marks by which a blob is known to have its digest without reading all of it again.
//!
//! Whoever has computed the digest writes it to an extended attribute of the file, with the file's size and time of
//! modification. Who changes the file changes its time, and it is read again before an engine gets it. What a failing
//! disk changes is not found so, but by [`Store::verify`](super::Store::verify).

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
};

use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};

use crate::Digest;

/// Name of the attribute.
const NAME: &str = "user.pontoon.whole";

/// Files of file systems without attributes that are remembered, for as long as this process lives.
const MAX_KNOWN: usize = 4096;

/// By device and inode.
type Known = Mutex<HashMap<(u64, u64), String>>;

static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);

/// The digest, and what changes with a file's content.
fn text(digest: &Digest, file: &fs::Metadata) -> String {
    format!("{} {} {}.{:09}", digest.hex(), file.len(), file.mtime(), file.mtime_nsec())
}

fn known() -> std::sync::MutexGuard<'static, HashMap<(u64, u64), String>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that the file has this digest. `file` is what was known of it before its bytes were read: who changes it
/// meanwhile makes the mark worthless.
pub(super) fn set(path: &Path, digest: &Digest, file: &fs::Metadata) {
    let text = text(digest, file);
    if setxattr(path, NAME, text.as_bytes(), XattrFlags::empty()).is_err() {
        let mut known = known();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert((file.dev(), file.ino()), text);
    }
}

/// Takes a mark away.
pub(super) fn clear(path: &Path, file: &fs::Metadata) {
    let _ = removexattr(path, NAME);
    known().remove(&(file.dev(), file.ino()));
}

/// Whether the file had this digest and was not changed since.
pub(super) fn holds(path: &Path, digest: &Digest) -> bool {
    let Ok(file) = fs::metadata(path) else { return false };
    let (mut value, text) = ([0; 160], text(digest, &file));
    match getxattr(path, NAME, &mut value) {
        Ok(length) if value.get(..length) == Some(text.as_bytes()) => true,
        _ => known().get(&(file.dev(), file.ino())) == Some(&text),
    }
}
