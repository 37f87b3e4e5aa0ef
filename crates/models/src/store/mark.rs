//! Owns the marks by which a blob is known to have its digest without reading all of it again.
//!
//! Whoever has computed the digest writes the file's size and time of modification to an extended attribute of the file.
//! Who changes the file changes its time, and it is read again before an engine gets it. What a failing disk changes is
//! not found so, but by [`Store::verify`](super::Store::verify).

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
};

use rustix::fs::{XattrFlags, getxattr, setxattr};

/// Name of the attribute.
const NAME: &str = "user.pontoon.whole";

/// Files of file systems without attributes that are remembered, for as long as this process lives.
const MAX_KNOWN: usize = 4096;

/// By device and inode.
type Known = Mutex<HashMap<(u64, u64), String>>;

static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);

/// What changes with a file's content.
fn state(file: &fs::Metadata) -> String {
    format!("{} {}.{:09}", file.len(), file.mtime(), file.mtime_nsec())
}

/// Notes that the file has the digest that it is named by.
///
/// # Errors
/// The system's, if the file is not there.
pub(super) fn set(path: &Path) -> io::Result<()> {
    let file = fs::metadata(path)?;
    let state = state(&file);
    if setxattr(path, NAME, state.as_bytes(), XattrFlags::empty()).is_err() {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert((file.dev(), file.ino()), state);
    }
    Ok(())
}

/// Whether the file had its digest and was not changed since.
pub(super) fn holds(path: &Path) -> bool {
    let Ok(file) = fs::metadata(path) else { return false };
    let mut value = [0; 64];
    let state = state(&file);
    match getxattr(path, NAME, &mut value) {
        Ok(length) => value.get(..length) == Some(state.as_bytes()),
        Err(_) => {
            let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&(file.dev(), file.ino())) == Some(&state)
        }
    }
}
