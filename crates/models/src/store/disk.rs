//! Owns every change to the disk: each is one step that can be the last before a crash.
//!
//! What must survive is written to a temporary file, flushed to the disk and renamed. Tests stop
//! the store at any of these steps; see `fault`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::Path,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

#[cfg(test)]
use super::fault;

/// Outside of tests nothing stops a step.
#[cfg(not(test))]
mod fault {
    pub(super) fn step() -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fault::step()?;
    fs::create_dir_all(path)
}

/// A new file for writing and reading; it must not exist.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    fault::step()?;
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(path)
}

/// Writes all bytes. A crash may leave a part of them.
pub(super) fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    if let Err(crash) = fault::step() {
        file.write_all(&bytes[..bytes.len() / 2])?;
        return Err(crash);
    }
    file.write_all(bytes)
}

pub(super) fn sync(file: &File) -> io::Result<()> {
    fault::step()?;
    file.sync_all()
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    fault::step()?;
    File::open(path)?.sync_all()
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fault::step()?;
    fs::rename(from, to)
}

/// Moves a blob to its place. If it is there already, that one stays: engines have links to it, and
/// making a link to a file that is just being replaced fails.
pub(super) fn place(from: &Path, to: &Path) -> io::Result<()> {
    fault::step()?;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) if fs::metadata(from)?.len() == fs::metadata(to)?.len() => remove_file(from),
        // Of another size it is not whole; and some file systems know no other way than to replace.
        Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::rename(from, to),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file; that it is not there is no error.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    fault::step()?;
    ignore_missing(fs::remove_file(path))
}

/// Removes a folder with all that is in it; that it is not there is no error.
pub(super) fn remove_dir(path: &Path) -> io::Result<()> {
    fault::step()?;
    ignore_missing(fs::remove_dir_all(path))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A second name for a file: a hard link, or a symbolic one where the file system has no other.
pub(super) fn link(original: &Path, name: &Path) -> io::Result<()> {
    fault::step()?;
    match fs::hard_link(original, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) => symlink(original, name),
        Ok(()) => Ok(()),
    }
}

/// Replaces a small file so that a reader sees the old or the new content, never a part.
pub(super) fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_new(temporary)?;
    let written = write(&mut file, bytes).and_then(|()| sync(&file)).and_then(|()| rename(temporary, path));
    if written.is_err() {
        let _ = remove_file(temporary);
    }
    written?;
    sync_dir(path.parent().unwrap_or(Path::new("/")))
}
