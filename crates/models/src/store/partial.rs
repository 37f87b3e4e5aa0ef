//! Owns blobs that are being downloaded: what came so far stays on the disk under the blob's own
//! name, so that any later download continues it, also after a kill or a power cut.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use super::{Staging, disk, lock};
use crate::{Digest, Error, Hasher, Result, manifest::Descriptor};

/// An unfinished blob, locked: no other process downloads the same meanwhile.
pub struct Partial {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    length: u64,
    blob: Descriptor,
}

impl Staging {
    /// Opens what is there of a blob, or nothing if another process is just downloading it.
    ///
    /// What is there is read again: a digest can only be computed from the start.
    pub fn partial(&self, blob: &Descriptor) -> Result<Option<Partial>> {
        self.protect(&blob.digest)?;
        let path = self.store.root.join("partial").join(blob.digest.hex());
        let open = || File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = open().map_err(Error::io("cannot open", &path))?;
        if !lock::is_free(&file).map_err(Error::io("cannot lock", &path))? {
            return Ok(None);
        }
        // The one who held the lock may have finished and moved the file away from under us.
        if !is_still(&file, &path) {
            return Ok(None);
        }
        let mut partial = Partial { path, file, hasher: Hasher::default(), length: 0, blob: blob.clone() };
        partial.read_again()?;
        Ok(Some(partial))
    }

    /// Checks a whole download and moves it to the blobs. A wrong digest costs the download.
    pub fn finish(&self, partial: Partial) -> Result<()> {
        let Partial { path, file, hasher, length, blob } = partial;
        let what = || format!("the download of {}", blob.digest);
        if length != blob.size {
            return Err(Error::malformed(what(), format!("it has {length} bytes instead of {}", blob.size)));
        }
        let found = hasher.finish();
        if found != blob.digest {
            disk::remove_file(&path).map_err(Error::io("cannot remove", &path))?;
            return Err(Error::Digest { what: what(), wanted: blob.digest, found });
        }
        disk::sync(&file).map_err(Error::io("cannot write", &path))?;
        self.store.keep_blob(&path, &blob.digest)
    }
}

#[cfg(unix)]
fn is_still(file: &File, path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

impl Partial {
    /// Bytes that are there: where the next ones belong.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest that the whole will have.
    pub fn digest(&self) -> &Digest {
        &self.blob.digest
    }

    /// Bytes of the whole.
    pub fn size(&self) -> u64 {
        self.blob.size
    }

    fn read_again(&mut self) -> Result<()> {
        let there = self.file.metadata().map_err(Error::io("cannot read", &self.path))?.len();
        if there > self.blob.size {
            return self.restart();
        }
        let mut piece = vec![0; 1 << 20];
        while self.length < there {
            let count = self.file.read(&mut piece).map_err(Error::io("cannot read", &self.path))?;
            if count == 0 {
                break;
            }
            self.hasher.update(&piece[..count]);
            self.length += count as u64;
        }
        Ok(())
    }

    /// Forgets what is there.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(Error::io("cannot write", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io("cannot write", &self.path))?;
        self.hasher = Hasher::default();
        self.length = 0;
        Ok(())
    }

    /// Appends the next bytes. More than the blob's size is an error, before they are written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > self.blob.size - self.length {
            let what = format!("the download of {}", self.blob.digest);
            return Err(Error::malformed(
                what,
                format!("it has more than the {} bytes announced", self.blob.size),
            ));
        }
        if let Err(error) = disk::write(&mut self.file, bytes) {
            // A part may have been written: only what was counted may stay, or resuming would fail.
            let _ = self.file.set_len(self.length);
            return Err(Error::io("cannot write", &self.path)(error));
        }
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}
