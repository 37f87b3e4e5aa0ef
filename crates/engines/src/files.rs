//! Owns small state files: JSON that is written whole or not at all.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Larger than any state file of ours.
const LIMIT: u64 = 64 << 20;

/// Reads a file; `None` if there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let size = match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::file(path, "read"))?.len(),
    };
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    if size > LIMIT {
        return Err(damaged(format!("it has {size} bytes and may have {LIMIT}")));
    }
    let bytes = fs::read(path).map_err(Error::file(path, "read"))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| damaged(e.to_string()))
}

/// Writes JSON as [`write_bytes`] does.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::file(path, "written")(e.into()))?;
    write_bytes(path, &bytes)
}

/// Writes beside the file, makes it durable, then puts it in the file's place.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Error::file(folder, "created"))?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("new-{}-{number}", std::process::id()));
    let write = || {
        let mut file = private_file(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map_err(Error::file(path, "written"))
}

/// A new file that nobody else reads.
fn private_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// A private folder, made if it is missing. One that belongs to somebody else, or that others may
/// enter, is refused: sockets and saved prompts lie there.
#[cfg(unix)]
pub fn private_folder(path: &Path) -> Result<(), Error> {
    own_folder(path, 0o700, None)
}

/// The same for a folder that others may pass through, but not list; or, with `user`, for one that may have
/// been given to that user.
///
/// # Errors
/// [`Error::File`].
#[cfg(unix)]
pub fn own_folder(path: &Path, mode: u32, user: Option<u32>) -> Result<(), Error> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    let create = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let found = fs::symlink_metadata(path)?;
        let ours = found.uid() == rustix::process::geteuid().as_raw() || Some(found.uid()) == user;
        if !found.is_dir() || !ours {
            return Err(std::io::Error::other("it is no folder of this user"));
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    create().map_err(Error::file(path, "made a folder of ours"))
}

/// A fresh folder for one test.
#[cfg(test)]
pub fn test_folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("pontoon-engines-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}
