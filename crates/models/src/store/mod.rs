//! Owns the store: an OCI image layout on disk that holds models and other artifacts.
//!
//! ```text
//! ROOT/oci-layout, index.json, blobs/sha256/HEX      the standard layout: other tools read it
//! ROOT/lock          held shared to read, exclusively to change
//! ROOT/leases/*      who is bringing in blobs that belong to no model yet
//! ROOT/partial/HEX   what a broken download has so far; it is continued
//! ROOT/tmp/*         files that are being written; they begin with the name of their lease
//! ROOT/bundles/HEX/  folders of links in which engines find a model's files
//! ```
//!
//! A blob is complete and has its digest, or it is not there. The index is replaced as a whole.
//! Everything here blocks; asynchronous callers use `spawn_blocking`.

mod archive;
mod bundle;
mod disk;
#[cfg(test)]
mod fault;
mod inspect;
mod lock;
mod mark;
mod partial;
mod read;
mod stage;
mod sweep;
#[cfg(test)]
mod tests;
mod unpack;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Artifact, Digest, Error, Model, Reference, Result,
    manifest::{Descriptor, Index, MAX_MANIFEST, Manifest},
    media,
};

pub use archive::Loaded;
pub use inspect::{FileInfo, Inspection};
pub use partial::Partial;
pub use stage::{NewArtifact, NewLayer, Staging};
pub use sweep::{Pruned, Removal, Usage};

/// The largest index that is read, in bytes.
const MAX_INDEX: u64 = 64 << 20;
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The fewest digits of an id that are taken for one.
const MIN_ID: usize = 4;

/// A folder of models. Clones are cheap and the same store.
#[derive(Clone, Debug)]
pub struct Store {
    root: Arc<Path>,
}

impl Store {
    /// Opens the store in a folder and makes it if it is not there. What a crash left behind is
    /// tidied up unless somebody else is at work.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root: PathBuf = root.into();
        let root = std::path::absolute(&root).map_err(Error::io("cannot find", &root))?;
        for folder in ["blobs/sha256", "leases", "partial", "tmp", "bundles"] {
            let path = root.join(folder);
            disk::create_dir(&path).map_err(Error::io("cannot create", path))?;
        }
        let store = Self { root: root.into() };
        store.check_layout()?;
        if let Some(guard) = lock::try_exclusive(&store.root)? {
            store.tidy(&guard)?;
        }
        Ok(store)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn check_layout(&self) -> Result<()> {
        let path = self.root.join("oci-layout");
        match fs::read(&path) {
            Ok(bytes) => {
                let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
                match value["imageLayoutVersion"].as_str() {
                    Some("1.0.0") => Ok(()),
                    _ => Err(Error::malformed(path.display().to_string(), "its layout version is not 1.0.0")),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let _guard = lock::exclusive(&self.root)?;
                self.replace("oci-layout", LAYOUT.as_bytes())
            }
            Err(error) => Err(Error::io("cannot read", path)(error)),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let temporary = self.root.join("tmp").join(lock::unique_name());
        disk::replace(&path, &temporary, bytes).map_err(Error::io("cannot write", path))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// The file of a blob, if it is in the store.
    pub fn blob(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.blob_path(digest)).filter(|path| path.is_file())
    }

    /// The bytes of a small blob.
    fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let file = File::open(&path).map_err(Error::io("cannot open", &path))?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("cannot read", &path))?;
        match bytes.len() as u64 > limit {
            true => Err(Error::malformed(digest.to_string(), format!("it has more than {limit} bytes"))),
            false => Ok(bytes),
        }
    }

    fn read_index(&self) -> Result<Index> {
        let path = self.root.join("index.json");
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Index::default()),
            other => other.map_err(Error::io("cannot open", &path))?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_INDEX).read_to_end(&mut bytes).map_err(Error::io("cannot read", &path))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::malformed(path.display().to_string(), error.to_string()))
    }

    fn write_index(&self, index: &Index) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(index).expect("an index has no keys that JSON cannot have");
        self.replace("index.json", &bytes)
    }

    fn read_manifest(&self, digest: &Digest) -> Result<Manifest> {
        Manifest::parse(&self.read_blob(digest, MAX_MANIFEST)?)
    }

    /// Finds the model of a name, in any form that [`Reference::parse`] reads, or of an id: a
    /// digest, or the first digits of one.
    pub fn resolve(&self, name: &str) -> Result<Model> {
        let _guard = lock::shared(&self.root)?;
        let entries = entries(&self.read_index()?);
        let digest = find(&entries, name)?;
        self.read_model(&digest, names_of(&entries, &digest))
    }

    /// The model with this id.
    pub fn model(&self, digest: &Digest) -> Result<Model> {
        self.resolve(&digest.to_string())
    }

    /// All models, by name. What is damaged is left out, with a warning in the log.
    pub fn list(&self) -> Result<Vec<Model>> {
        let _guard = lock::shared(&self.root)?;
        let entries = entries(&self.read_index()?);
        let mut models: Vec<Model> = entries
            .iter()
            .filter_map(|(digest, entry)| match self.read_manifest(digest) {
                Ok(manifest) if !manifest.is_model() => None,
                Ok(_) => {
                    self.read_model(digest, entry.names.clone()).map_err(|error| warn(digest, &error)).ok()
                }
                Err(error) => {
                    warn(digest, &error);
                    None
                }
            })
            .collect();
        models.sort_by(|a, b| (&a.names, a.digest).cmp(&(&b.names, b.digest)));
        Ok(models)
    }

    /// A name of each model, or its id where it has none, also of those that cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let _guard = lock::shared(&self.root)?;
        let entries = entries(&self.read_index()?);
        let models = entries
            .iter()
            .filter(|(digest, _)| self.read_manifest(digest).map_or(true, |manifest| manifest.is_model()));
        let name = |(digest, entry): (&Digest, &Entry)| {
            entry.names.first().map_or_else(|| digest.to_string(), Reference::familiar)
        };
        Ok(models.map(name).collect())
    }

    /// Any artifact by name or id, whatever its kind.
    pub fn artifact(&self, name: &str) -> Result<Artifact> {
        let _guard = lock::shared(&self.root)?;
        let entries = entries(&self.read_index()?);
        let digest = find(&entries, name)?;
        self.read_artifact(&digest, names_of(&entries, &digest))
    }

    /// All artifacts of a kind, or all that are no models.
    pub fn artifacts(&self, kind: Option<&str>) -> Result<Vec<Artifact>> {
        let _guard = lock::shared(&self.root)?;
        let mut found = Vec::new();
        for (digest, entry) in entries(&self.read_index()?) {
            match self.read_artifact(&digest, entry.names) {
                Ok(artifact) if kind.map_or(!artifact.manifest.is_model(), |kind| artifact.kind == kind) => {
                    found.push(artifact);
                }
                Ok(_) => {}
                Err(error) => warn(&digest, &error),
            }
        }
        found.sort_by(|a, b| (&a.names, a.digest).cmp(&(&b.names, b.digest)));
        Ok(found)
    }
}

fn warn(digest: &Digest, error: &Error) {
    log::warn!("{digest} in the store: {error}");
}

/// What the index says of one manifest.
#[derive(Clone, Debug, Default)]
struct Entry {
    names: Vec<Reference>,
}

/// The index by manifest. An entry without a name is a manifest that lost its last one.
fn entries(index: &Index) -> BTreeMap<Digest, Entry> {
    let mut map: BTreeMap<Digest, Entry> = BTreeMap::new();
    for descriptor in &index.manifests {
        let entry = map.entry(descriptor.digest).or_default();
        entry.names.extend(name_of(descriptor));
    }
    for entry in map.values_mut() {
        entry.names.sort();
        entry.names.dedup();
    }
    map
}

/// The name that a descriptor of an index carries, if it is one.
fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    Reference::parse(descriptor.annotations.get(media::REF_NAME)?).ok()
}

fn names_of(entries: &BTreeMap<Digest, Entry>, digest: &Digest) -> Vec<Reference> {
    entries.get(digest).map(|entry| entry.names.clone()).unwrap_or_default()
}

/// The manifest of a name or id. Names go first: a name may consist of hexadecimal digits.
fn find(entries: &BTreeMap<Digest, Entry>, name: &str) -> Result<Digest> {
    let reference = Reference::parse(name);
    if let Ok(reference) = &reference
        && let Some(digest) = find_reference(entries, reference)
    {
        return Ok(digest);
    }
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if hex.len() < MIN_ID || !hex.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(reference.err().unwrap_or_else(|| Error::NotFound(name.to_owned())));
    }
    let hex = hex.to_ascii_lowercase();
    let matching: Vec<&Digest> = entries.keys().filter(|digest| digest.hex().starts_with(&hex)).collect();
    match matching.as_slice() {
        [] => Err(Error::NotFound(name.to_owned())),
        [digest] => Ok(**digest),
        several => Err(Error::Ambiguous { id: name.to_owned(), count: several.len() }),
    }
}

/// A digest in the reference must be the manifest's, whatever the tag says.
fn find_reference(entries: &BTreeMap<Digest, Entry>, reference: &Reference) -> Option<Digest> {
    if let Some(digest) = reference.digest() {
        return entries.contains_key(digest).then_some(*digest);
    }
    entries.iter().find(|(_, entry)| entry.names.contains(reference)).map(|(digest, _)| *digest)
}
