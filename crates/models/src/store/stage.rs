//! Owns bringing artifacts into the store: blobs first, under a lease, then the name that makes
//! them visible, in one step.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use super::{Store, disk, lock, lock::Lease, mark, name_of};
use crate::{
    Artifact, Digest, Error, Hasher, Model, Reference, Result,
    manifest::{Descriptor, Index, MAX_BLOB, Manifest},
    media,
};

const PIECE: usize = 1 << 20;

/// Blobs on their way into the store. Nobody sees or sweeps them until they are committed or this
/// is dropped.
pub struct Staging {
    pub(super) store: Store,
    pub(super) lease: Lease,
}

/// An artifact of any kind to put into the store.
#[derive(Clone, Debug, Default)]
pub struct NewArtifact {
    pub artifact_type: String,
    /// JSON by the kind's own rules; empty for none.
    pub config: Vec<u8>,
    pub layers: Vec<NewLayer>,
    pub annotations: BTreeMap<String, String>,
}

/// A file that becomes a layer.
#[derive(Clone, Debug)]
pub struct NewLayer {
    pub media_type: String,
    pub path: PathBuf,
    pub annotations: BTreeMap<String, String>,
}

impl Store {
    /// Begins to bring in blobs.
    pub fn stage(&self) -> Result<Staging> {
        let guard = lock::exclusive(&self.root)?;
        Ok(Staging { store: self.clone(), lease: Lease::new(&self.root, &guard)? })
    }

    /// Puts an artifact into the store under a name.
    pub fn add_artifact(&self, new: &NewArtifact, name: &Reference) -> Result<Artifact> {
        let staging = self.stage()?;
        let (config_type, config) = match new.config.is_empty() {
            true => (media::EMPTY_CONFIG.to_owned(), b"{}".to_vec()),
            false => (new.artifact_type.clone(), new.config.clone()),
        };
        let config = staging.put_bytes(&config_type, &config)?;
        let mut layers = Vec::with_capacity(new.layers.len());
        for layer in &new.layers {
            let mut descriptor = staging.put_file(&layer.media_type, &layer.path, &mut |_| {})?;
            descriptor.annotations = layer.annotations.clone();
            layers.push(descriptor);
        }
        let mut manifest = Manifest::new(config, layers);
        manifest.artifact_type = Some(new.artifact_type.clone());
        manifest.annotations = new.annotations.clone();
        let digest = staging.commit(&manifest.to_bytes(), std::slice::from_ref(name))?;
        self.artifact(&digest.to_string())
    }
}

impl Staging {
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps a blob that may be in the store already from being swept, and says whether it is there, and whole.
    pub fn keep(&self, blob: &Descriptor) -> Result<bool> {
        self.protect(&blob.digest)?;
        let there = fs::metadata(self.store.blob_path(&blob.digest));
        if !there.is_ok_and(|there| there.len() == blob.size) {
            return Ok(false);
        }
        match self.store.check_blob(&blob.digest) {
            Err(Error::Digest { .. }) => Ok(false),
            checked => checked.map(|()| true),
        }
    }

    pub(super) fn protect(&self, digest: &Digest) -> Result<()> {
        let guard = lock::exclusive(&self.store.root)?;
        self.lease.protect(digest, &guard)
    }

    /// Puts bytes into the store.
    pub fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        self.put_reader(media_type, &mut &bytes[..], &mut |_| {})
    }

    /// Copies a file into the store. `progress` hears the bytes that were copied so far.
    pub fn put_file(
        &self,
        media_type: &str,
        path: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Descriptor> {
        let mut file = File::open(path).map_err(Error::io("cannot open", path))?;
        if !file.metadata().is_ok_and(|it| it.is_file()) {
            return Err(Error::malformed(path.display().to_string(), "it is not a file"));
        }
        self.put_reader(media_type, &mut file, progress)
    }

    /// Copies everything that a reader yields into the store.
    pub fn put_reader(
        &self,
        media_type: &str,
        from: &mut dyn Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Descriptor> {
        let temporary = self.temporary();
        let copied = self.copy(from, &temporary, progress);
        let kept = copied.and_then(|(digest, size)| {
            self.protect(&digest)?;
            self.store.keep_blob(&temporary, &digest)?;
            Ok(Descriptor::new(media_type, digest, size))
        });
        if kept.is_err() {
            let _ = disk::remove_file(&temporary);
        }
        kept
    }

    /// A path for a file that is being written. It goes when its lease has gone.
    pub(super) fn temporary(&self) -> PathBuf {
        self.store.root.join("tmp").join(format!("{}.{}", self.lease.name(), lock::unique_name()))
    }

    fn copy(&self, from: &mut dyn Read, to: &Path, progress: &mut dyn FnMut(u64)) -> Result<(Digest, u64)> {
        let mut file = disk::create_new(to).map_err(Error::io("cannot create", to))?;
        let (mut hasher, mut size, mut piece) = (Hasher::default(), 0u64, vec![0; PIECE]);
        loop {
            let count = from.read(&mut piece).map_err(Error::io("cannot read what becomes", to))?;
            if count == 0 {
                break;
            }
            size += count as u64;
            if size > MAX_BLOB {
                return Err(Error::malformed("the file", format!("it has more than {MAX_BLOB} bytes")));
            }
            hasher.update(&piece[..count]);
            disk::write(&mut file, &piece[..count]).map_err(Error::io("cannot write", to))?;
            progress(size);
        }
        disk::sync(&file).map_err(Error::io("cannot write", to))?;
        Ok((hasher.finish(), size))
    }

    /// What the artifact will look like, before anybody else sees it. Its config must be here.
    pub fn preview(&self, manifest: &[u8]) -> Result<Model> {
        self.store.assemble(&Digest::of(manifest), Manifest::parse(manifest)?, Vec::new())
    }

    /// Makes the artifact visible: its manifest and names enter the index. All its blobs must be
    /// there. A name that belonged to another artifact moves; the other one stays, without it.
    pub fn commit(&self, manifest: &[u8], names: &[Reference]) -> Result<Digest> {
        let parsed = Manifest::parse(manifest)?;
        for blob in parsed.blobs() {
            if !self.keep(blob)? {
                return Err(Error::malformed(
                    "the artifact",
                    format!("its blob {} is missing or damaged", blob.digest),
                ));
            }
        }
        let mut entry = self.put_bytes(&parsed.media_type, manifest)?;
        entry.artifact_type = parsed.artifact_type.clone();
        let blobs = self.store.root.join("blobs/sha256");
        disk::sync_dir(&blobs).map_err(Error::io("cannot write", blobs))?;
        let _guard = lock::exclusive(&self.store.root)?;
        let mut index = self.store.read_index()?;
        add_names(&mut index, &entry, names);
        self.store.write_index(&index)?;
        Ok(entry.digest)
    }
}

impl Store {
    /// Moves a whole, flushed file to its place among the blobs.
    pub(super) fn keep_blob(&self, from: &Path, digest: &Digest) -> Result<()> {
        let to = self.blob_path(digest);
        let file = fs::metadata(from).map_err(Error::io("cannot read", from))?;
        mark::set(from, digest, &file);
        // What is there already and is not whole makes room.
        let placed = match to.exists() && !mark::holds(&to, digest) {
            true => disk::rename(from, &to),
            false => disk::place(from, &to),
        };
        placed.map_err(Error::io("cannot move a blob to", to))
    }
}

/// Gives an artifact names in the index, which loses them elsewhere.
pub(super) fn add_names(index: &mut Index, entry: &Descriptor, names: &[Reference]) {
    let kept: Vec<Reference> =
        names.iter().map(|name| name.with_tag(name.tag().unwrap_or_default())).collect();
    let mut losers = Vec::new();
    index.manifests.retain(|other| match name_of(other) {
        Some(name) if kept.contains(&name) => {
            losers.push(other.clone());
            false
        }
        // An entry without a name is needed only as long as there is none with one.
        None if other.digest == entry.digest => false,
        _ => true,
    });
    let plain = Descriptor { annotations: BTreeMap::new(), ..entry.clone() };
    for name in names.iter().filter(|name| name.tag().is_some()) {
        let name = name.with_tag(name.tag().unwrap_or_default());
        index.manifests.push(plain.clone().with(media::REF_NAME, name.to_string()));
    }
    if !index.manifests.iter().any(|other| other.digest == entry.digest) {
        index.manifests.push(plain);
    }
    for mut loser in losers {
        if !index.manifests.iter().any(|other| other.digest == loser.digest) {
            loser.annotations.remove(media::REF_NAME);
            index.manifests.push(loser);
        }
    }
}

impl Staging {
    /// Whether the disk can hold the blobs that are not here yet.
    pub(crate) fn room_for(&self, blobs: &[Descriptor]) -> Result<()> {
        let root = &self.store.root;
        let there = |blob: &Descriptor| {
            let whole = fs::metadata(self.store.blob_path(&blob.digest));
            whole
                .or_else(|_| fs::metadata(root.join("partial").join(blob.digest.hex())))
                .map_or(0, |meta| meta.len())
        };
        let needed: u64 = blobs.iter().map(|blob| blob.size.saturating_sub(there(blob))).sum();
        let Ok(disk) = rustix::fs::statvfs(root.as_ref()) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match needed > free {
            true => Err(Error::DiskFull {
                path: root.to_path_buf(),
                detail: format!(": {needed} bytes are to come, {free} are free"),
            }),
            false => Ok(()),
        }
    }
}
