//! Owns unpacking the tars that some artifacts carry instead of single files: regular files and
//! folders, inside the target, within limits; nothing else.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use super::{bundle::safe_path, disk};
use crate::{Error, Result};

/// The most entries of a tar.
const MAX_ENTRIES: usize = 10_000;
/// All its files together, in bytes: these are configs and tokenizers.
const MAX_BYTES: u64 = 1 << 30;

pub(super) fn unpack(archive: &Path, into: &Path) -> Result<()> {
    let wrong = |reason: String| Error::malformed(format!("the archive {}", archive.display()), reason);
    let file = File::open(archive).map_err(Error::io("cannot open", archive))?;
    let mut tar = tar::Archive::new(file);
    let mut left = MAX_BYTES;
    for (number, entry) in tar.entries().map_err(|error| wrong(error.to_string()))?.enumerate() {
        let mut entry = entry.map_err(|error| wrong(error.to_string()))?;
        if number >= MAX_ENTRIES {
            return Err(wrong(format!("it has more than {MAX_ENTRIES} entries")));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        left = left
            .checked_sub(entry.size())
            .ok_or_else(|| wrong(format!("it has more than {MAX_BYTES} bytes")))?;
        let name = entry.path_bytes().into_owned();
        let name = String::from_utf8(name).map_err(|_| wrong("a path is not UTF-8".to_owned()))?;
        write(&into.join(safe_path(&name)?), &mut entry).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(())
}

fn write(path: &Path, from: &mut impl io::Read) -> io::Result<()> {
    disk::create_dir(path.parent().unwrap_or(Path::new("/")))?;
    disk::remove_file(path)?;
    let mut file = disk::create_new(path)?;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        from.by_ref().take(1 << 20).read_to_end(&mut bytes)?;
        match bytes.is_empty() {
            true => return Ok(()),
            false => disk::write(&mut file, &bytes)?,
        }
    }
}
