//! Owns moving artifacts as one file: export to a tar and load from one.
//!
//! What is written is an OCI layout, which other tools read, with a `manifest.json` that is the
//! model's manifest: that is what Docker's model runner looks for. Read are OCI layouts, Docker's
//! model archives, and the archives of `docker save` and `podman save` if they hold artifacts.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::{Component, Path},
};

use serde::Serialize;

use super::{Staging, Store, name_of};
use crate::{
    Digest, Error, Reference, Result,
    digest::Hasher,
    manifest::{Descriptor, Index, MAX_MANIFEST, Manifest},
    media,
};

/// The most entries of an archive.
const MAX_ENTRIES: usize = 100_000;

/// What came out of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loaded {
    pub digest: Digest,
    pub names: Vec<String>,
}

impl Store {
    /// Writes an artifact with all its blobs to a tar.
    pub fn export(&self, name: &str, to: impl Write) -> Result<()> {
        let artifact = self.artifact(name)?;
        // The lease keeps the blobs though somebody else removes the model meanwhile.
        let staging = self.stage()?;
        let mut entry =
            Descriptor::of(&artifact.manifest.media_type, &self.read_blob(&artifact.digest, MAX_MANIFEST)?);
        let mut blobs: BTreeMap<Digest, Descriptor> =
            artifact.manifest.blobs().map(|blob| (blob.digest, blob.clone())).collect();
        blobs.insert(entry.digest, entry.clone());
        for blob in blobs.values() {
            if !staging.keep(blob)? {
                let there = std::fs::metadata(self.blob_path(&blob.digest)).map(|there| there.len());
                return Err(damaged(name, blob, there.ok()));
            }
        }
        let mut tar = tar::Builder::new(to);
        let mut index = Index::default();
        entry.artifact_type = artifact.manifest.artifact_type.clone();
        for name in &artifact.names {
            index.manifests.push(entry.clone().with(media::REF_NAME, name.to_string()));
        }
        if artifact.names.is_empty() {
            index.manifests.push(entry.clone());
        }
        self.write_archive(name, &mut tar, &index, &entry, blobs.values())
    }

    fn write_archive<'a, W: Write>(
        &self,
        name: &str,
        tar: &mut tar::Builder<W>,
        index: &Index,
        entry: &Descriptor,
        blobs: impl Iterator<Item = &'a Descriptor>,
    ) -> Result<()> {
        // Not [`Error::DiskFull`]: that disk need not be the store's.
        let fail = |source| Error::Io { what: "cannot write", path: "the archive".into(), source };
        append(tar, "oci-layout", super::LAYOUT.as_bytes()).map_err(fail)?;
        let index = serde_json::to_vec(index).map_err(|error| fail(error.into()))?;
        append(tar, "index.json", &index).map_err(fail)?;
        for blob in blobs {
            let path = self.blob_path(&blob.digest);
            let file = std::fs::File::open(&path).map_err(Error::io("cannot open", &path))?;
            let mut file = file.take(blob.size);
            let mut heard = Heard { from: &mut file, failed: None };
            let mut hashed = Hashed { from: &mut heard, hasher: Hasher::default() };
            let place = format!("blobs/sha256/{}", blob.digest.hex());
            let appended = tar.append_data(&mut header(blob.size), place, &mut hashed);
            let (hashed, failed) = (hashed.hasher.finish(), heard.failed);
            if let Some(reason) = failed {
                return Err(Error::malformed(path.display().to_string(), reason));
            }
            appended.map_err(fail)?;
            if hashed != blob.digest {
                return Err(damaged(name, blob, Some(blob.size)));
            }
        }
        // Last: Docker's reader wants all blobs before it.
        append(tar, "manifest.json", &self.read_blob(&entry.digest, MAX_MANIFEST)?).map_err(fail)?;
        tar.finish().and_then(|()| tar.get_mut().flush()).map_err(fail)
    }

    /// Reads the artifacts of a tar into the store, under the names that it gives them.
    pub fn load(&self, from: impl Read) -> Result<Vec<Loaded>> {
        let staging = self.stage()?;
        let mut found = Found::default();
        let wrong = |error: io::Error| Error::malformed("the archive", error.to_string());
        let mut tar = tar::Archive::new(from);
        for (number, entry) in tar.entries().map_err(wrong)?.enumerate() {
            let mut entry = entry.map_err(wrong)?;
            if number >= MAX_ENTRIES {
                return Err(Error::malformed(
                    "the archive",
                    format!("it has more than {MAX_ENTRIES} entries"),
                ));
            }
            if entry.header().entry_type().is_file() {
                let path = entry.path().map_err(wrong)?.into_owned();
                found.take(&staging, &path, &mut entry)?;
            }
        }
        found.commit(&staging)
    }
}

/// Reads on and remembers why that failed.
struct Heard<'a, R> {
    from: &'a mut R,
    failed: Option<String>,
}

impl<R: Read> Read for Heard<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.from.read(into).inspect_err(|error| self.failed = Some(error.to_string()))
    }
}

/// Reads on and remembers what came.
struct Hashed<'a, R> {
    from: &'a mut R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.hasher.update(&into[..count]);
        Ok(count)
    }
}

/// A blob of the store that is not what its name says.
pub(super) fn damaged(name: &str, blob: &Descriptor, there: Option<u64>) -> Error {
    let (digest, size) = (blob.digest, blob.size);
    let how = match there {
        None => "is missing".to_owned(),
        Some(there) if there != size => format!("has {there} bytes instead of {size}"),
        Some(_) => "has other content than its name says".to_owned(),
    };
    Error::malformed(name, format!("its blob {digest} {how}; remove the model and pull it again"))
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64), name, bytes)
}

/// What an archive holds beside its blobs.
#[derive(Default)]
struct Found {
    index: Option<Index>,
    /// Docker's way: the one manifest, or a list of images.
    manifest: Option<Vec<u8>>,
}

impl Found {
    fn take(&mut self, staging: &Staging, path: &Path, entry: &mut impl Read) -> Result<()> {
        let parts: Vec<&str> = path
            .components()
            .filter_map(|part| match part {
                Component::Normal(part) => part.to_str(),
                _ => None,
            })
            .collect();
        match parts.as_slice() {
            ["index.json"] => {
                let bytes = read_small(entry, "index.json")?;
                let index = serde_json::from_slice(&bytes);
                self.index =
                    Some(index.map_err(|error| Error::malformed("the archive's index", error.to_string()))?);
            }
            ["manifest.json"] => self.manifest = Some(read_small(entry, "manifest.json")?),
            ["blobs", "sha256", hex] => keep_blob(staging, hex, entry)?,
            _ => {}
        }
        Ok(())
    }

    fn commit(self, staging: &Staging) -> Result<Vec<Loaded>> {
        let manifests = self.manifests(staging)?;
        if manifests.is_empty() {
            return Err(Error::malformed(
                "the archive",
                "it holds no artifact: neither an OCI index nor a manifest",
            ));
        }
        let mut loaded: Vec<Loaded> = Vec::new();
        for (bytes, names) in manifests {
            let digest = staging.commit(&bytes, &names)?;
            let names = names.iter().map(Reference::familiar);
            match loaded.iter_mut().find(|other| other.digest == digest) {
                Some(other) => other.names.extend(names),
                None => loaded.push(Loaded { digest, names: names.collect() }),
            }
        }
        Ok(loaded)
    }

    fn manifests(&self, staging: &Staging) -> Result<Vec<(Vec<u8>, Vec<Reference>)>> {
        let mut manifests = Vec::new();
        for entry in self.index.iter().flat_map(|index| &index.manifests) {
            if entry.media_type == media::INDEX {
                continue;
            }
            let bytes = staging.store.read_blob(&entry.digest, MAX_MANIFEST)?;
            let containerd =
                entry.annotations.get(media::CONTAINERD_NAME).and_then(|name| Reference::parse(name).ok());
            manifests.push((bytes, containerd.or_else(|| name_of(entry)).into_iter().collect()));
        }
        if manifests.is_empty()
            && let Some(bytes) = self.manifest.as_deref().filter(|bytes| Manifest::parse(bytes).is_ok())
        {
            manifests.push((bytes.to_vec(), Vec::new()));
        }
        Ok(manifests)
    }
}

fn read_small(entry: &mut impl Read, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = entry.take(MAX_MANIFEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::malformed("the archive", error.to_string()))?;
    match bytes.len() as u64 > MAX_MANIFEST {
        true => Err(Error::malformed(
            format!("the archive's {what}"),
            format!("it has more than {MAX_MANIFEST} bytes"),
        )),
        false => Ok(bytes),
    }
}

/// A blob is kept if its content has the digest that its name says.
fn keep_blob(staging: &Staging, hex: &str, entry: &mut impl Read) -> Result<()> {
    let what = || format!("the archive's blob {hex}");
    let wanted = Digest::from_hex(hex).ok_or_else(|| Error::malformed(what(), "its name is no digest"))?;
    let mut from = Heard { from: entry, failed: None };
    let kept = staging.put_reader("", &mut from, &mut |_| {});
    // Whose fault it is: the archive's, or the disk's that it was to come to.
    if let Some(reason) = from.failed {
        return Err(Error::malformed(what(), reason));
    }
    match kept?.digest {
        found if found == wanted => Ok(()),
        found => Err(Error::malformed(what(), format!("it is damaged or cut off: its digest is {found}"))),
    }
}
