//! Owns names and leaving: tagging, removal, sweeping what nobody needs, and what it all weighs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Entry, Store, disk, entries, find, lock, lock::Guard, name_of, names_of, stage::add_names};
use crate::{Digest, Error, Reference, Result, manifest::Descriptor};

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// Names that are gone, in their familiar form.
    pub untagged: Vec<String>,
    /// Artifacts that are gone.
    pub deleted: Vec<Digest>,
    /// Bytes that were freed.
    pub freed: u64,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Artifacts without a name, if those were to go.
    pub deleted: Vec<Digest>,
    /// Bytes of blobs, unfinished downloads and temporary files that were freed.
    pub freed: u64,
}

/// What the store weighs, in bytes, and how many there are of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub models: usize,
    /// Each blob once, though several models may share it.
    pub models_bytes: u64,
    pub artifacts: usize,
    pub artifacts_bytes: u64,
    pub blobs_bytes: u64,
    pub partial: usize,
    pub partial_bytes: u64,
    pub bundles: usize,
    /// What `prune` would free now, if also artifacts without a name went.
    pub reclaimable_bytes: u64,
}

impl Store {
    /// Gives an artifact another name. If the name belonged to another artifact, it moves.
    pub fn tag(&self, name: &str, new: &Reference) -> Result<()> {
        if new.tag().is_none() {
            return Err(Error::Reference {
                value: new.to_string(),
                reason: "a new name needs a tag, not a digest".into(),
            });
        }
        let _guard = lock::exclusive(&self.root)?;
        let mut index = self.read_index()?;
        let digest = find(&entries(&index), name)?;
        let entry = index.manifests.iter().find(|entry| entry.digest == digest).cloned();
        let entry = entry.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        add_names(&mut index, &entry, std::slice::from_ref(new));
        self.write_index(&index)
    }

    /// Takes a name away and, with the last one, the artifact. By id, an artifact with several names
    /// goes only with `force`.
    pub fn remove(&self, name: &str, force: bool) -> Result<Removal> {
        let guard = lock::exclusive(&self.root)?;
        let mut index = self.read_index()?;
        let all = entries(&index);
        let digest = find(&all, name)?;
        let names = names_of(&all, &digest);
        let by_name = Reference::parse(name).ok().filter(|reference| names.contains(reference));
        if by_name.is_none() && names.len() > 1 && !force {
            let list = names.iter().map(Reference::familiar).collect::<Vec<_>>().join(", ");
            return Err(Error::SeveralNames { id: name.to_owned(), count: names.len(), names: list });
        }
        let untagged = match by_name {
            Some(name) => vec![name],
            None => names.clone(),
        };
        index.manifests.retain(|entry| {
            entry.digest != digest || name_of(entry).is_some_and(|name| !untagged.contains(&name))
        });
        self.write_index(&index)?;
        let gone = !index.manifests.iter().any(|entry| entry.digest == digest);
        let freed = if gone { self.sweep(&guard)? } else { 0 };
        let untagged = untagged.iter().map(Reference::familiar).collect();
        Ok(Removal { untagged, deleted: if gone { vec![digest] } else { Vec::new() }, freed })
    }

    /// Removes everything that has a name or had one.
    pub fn purge(&self) -> Result<Removal> {
        let guard = lock::exclusive(&self.root)?;
        let index = self.read_index()?;
        let all = entries(&index);
        self.write_index(&Default::default())?;
        let freed = self.sweep(&guard)?;
        let untagged = all.values().flat_map(|entry| &entry.names).map(Reference::familiar).collect();
        Ok(Removal { untagged, deleted: all.into_keys().collect(), freed })
    }

    /// Frees what nobody needs: blobs of no artifact, downloads that nobody continues, temporary
    /// files; with `untagged` also artifacts that have no name.
    pub fn prune(&self, untagged: bool) -> Result<Pruned> {
        let guard = lock::exclusive(&self.root)?;
        let mut index = self.read_index()?;
        let all = entries(&index);
        let nameless = |digest: &Digest| all.get(digest).is_some_and(|entry| entry.names.is_empty());
        let deleted: Vec<Digest> =
            all.keys().copied().filter(|digest| untagged && nameless(digest)).collect();
        if !deleted.is_empty() {
            index.manifests.retain(|entry| !deleted.contains(&entry.digest));
            self.write_index(&index)?;
        }
        let mut freed = self.sweep(&guard)?;
        for (path, bytes) in self.idle_partials()? {
            disk::remove_file(&path).map_err(Error::io("cannot remove", path))?;
            freed += bytes;
        }
        Ok(Pruned { deleted, freed })
    }

    /// What the store weighs.
    pub fn df(&self) -> Result<Usage> {
        let _guard = lock::shared(&self.root)?;
        let all = entries(&self.read_index()?);
        let mut usage = Usage::default();
        let (mut of_models, mut of_others, mut named) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for (digest, entry) in &all {
            let Ok(manifest) = self.read_manifest(digest) else { continue };
            let model = manifest.is_model();
            *(if model { &mut usage.models } else { &mut usage.artifacts }) += 1;
            let sizes = if model { &mut of_models } else { &mut of_others };
            for blob in manifest.blobs() {
                sizes.insert(blob.digest, blob.size);
                if !entry.names.is_empty() {
                    named.insert(blob.digest);
                }
            }
            if !entry.names.is_empty() {
                named.insert(*digest);
            }
        }
        usage.models_bytes = of_models.values().sum();
        usage.artifacts_bytes = of_others.values().sum();
        for (path, size) in files_in(&self.root.join("blobs/sha256"))? {
            usage.blobs_bytes += size;
            let digest = digest_of(&path);
            usage.reclaimable_bytes +=
                if digest.is_some_and(|digest| named.contains(&digest)) { 0 } else { size };
        }
        let partials = files_in(&self.root.join("partial"))?;
        usage.partial = partials.len();
        usage.partial_bytes = partials.iter().map(|(_, size)| size).sum();
        usage.reclaimable_bytes += usage.partial_bytes;
        usage.bundles = folders_in(&self.root.join("bundles"))?.len();
        Ok(usage)
    }

    /// What a crash left behind and costs nothing to find: run when the store is opened.
    pub(super) fn tidy(&self, guard: &Guard) -> Result<()> {
        let living = lock::living_leases(&self.root, guard)?;
        self.sweep_temporary(&living.names).map(|_| ())
    }

    /// Removes the blobs and bundles that no artifact and no lease needs. Tells the bytes freed.
    fn sweep(&self, guard: &Guard) -> Result<u64> {
        let living = lock::living_leases(&self.root, guard)?;
        let all = entries(&self.read_index()?);
        let needed = self.needed(&all, living.digests)?;
        let mut freed = self.sweep_temporary(&living.names)?;
        for path in folders_in(&self.root.join("bundles"))? {
            if !digest_of(&path).is_some_and(|digest| all.contains_key(&digest)) {
                disk::remove_dir(&path).map_err(Error::io("cannot remove", path))?;
            }
        }
        for (path, size) in files_in(&self.root.join("blobs/sha256"))? {
            if !digest_of(&path).is_some_and(|digest| needed.contains(&digest)) {
                disk::remove_file(&path).map_err(Error::io("cannot remove", path))?;
                freed += size;
            }
        }
        Ok(freed)
    }

    /// The blobs of all artifacts, and those that somebody is working with.
    fn needed(&self, all: &BTreeMap<Digest, Entry>, leased: BTreeSet<Digest>) -> Result<BTreeSet<Digest>> {
        let mut needed = leased;
        for digest in all.keys() {
            // A manifest that cannot be read must not cost the blobs of others: stop rather than guess.
            let manifest = match self.read_manifest(digest) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
                other => other?,
            };
            needed.insert(*digest);
            needed.extend(manifest.blobs().map(|blob: &Descriptor| blob.digest));
        }
        Ok(needed)
    }

    /// Removes temporary files whose lease is gone. Tells the bytes freed.
    fn sweep_temporary(&self, living: &BTreeSet<String>) -> Result<u64> {
        let folder = self.root.join("tmp");
        let owned = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.split('.').next().is_some_and(|lease| living.contains(lease))
        };
        let mut freed = 0;
        for (path, size) in files_in(&folder)?.into_iter().filter(|(path, _)| !owned(path)) {
            disk::remove_file(&path).map_err(Error::io("cannot remove", path))?;
            freed += size;
        }
        for path in folders_in(&folder)?.into_iter().filter(|path| !owned(path)) {
            disk::remove_dir(&path).map_err(Error::io("cannot remove", path))?;
        }
        Ok(freed)
    }

    /// Unfinished downloads that no process is at.
    fn idle_partials(&self) -> Result<Vec<(PathBuf, u64)>> {
        let mut idle = files_in(&self.root.join("partial"))?;
        idle.retain(|(path, _)| File::open(path).and_then(|file| lock::is_free(&file)).unwrap_or(false));
        Ok(idle)
    }
}

fn digest_of(path: &Path) -> Option<Digest> {
    Digest::from_hex(path.file_name()?.to_str()?)
}

/// The files in a folder with their sizes in bytes.
fn files_in(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for path in read_dir(folder)? {
        // It may have gone meanwhile: temporary files and leases do.
        if let Ok(meta) = fs::symlink_metadata(&path)
            && !meta.is_dir()
        {
            found.push((path, meta.len()));
        }
    }
    Ok(found)
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(read_dir(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn read_dir(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::io("cannot read", folder))?;
    entries.map(|entry| entry.map(|it| it.path()).map_err(Error::io("cannot read", folder))).collect()
}
