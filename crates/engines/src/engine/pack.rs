//! Owns engine packs: an installed engine as an OCI artifact, to be pushed, pulled and installed elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pontoon_models::store::{NewArtifact, NewLayer};
use pontoon_models::{Artifact, Reference, Store};
use serde::{Deserialize, Serialize};

use super::catalog::{NOTE, Note};
use super::install::put;
use super::{Catalog, Installed};
use crate::{Error, files};

/// The artifact type of a pack.
pub const PACK: &str = "application/vnd.pontoon.engine.v1";
const FILE: &str = "application/vnd.pontoon.engine.file.v1";
const TITLE: &str = "org.opencontainers.image.title";
const MAX_FILES: usize = 256;

/// What a pack says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    name: String,
    version: String,
    /// `x86_64-linux`, `aarch64-macos`.
    target: String,
    program: String,
    source: String,
}

fn target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

impl Catalog {
    /// Packs an installed engine into the store, under `reference`.
    ///
    /// # Errors
    /// [`Error::NoEngine`] if it is not installed; what the store says.
    pub fn package(
        &self,
        store: &Store,
        name: &str,
        version: &str,
        reference: &Reference,
    ) -> Result<Artifact, Error> {
        let folder = self.place(name, version)?;
        let note: Note = files::read_json(&folder.join(NOTE))?.ok_or_else(|| Error::NoEngine {
            reason: format!("{name} {version} is not installed; install it before you pack it"),
        })?;
        let entries = fs::read_dir(&folder).map_err(Error::file(&folder, "listed"))?.flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name != NOTE);
        names.sort();
        let layers = names.into_iter().map(|name| NewLayer {
            media_type: FILE.to_owned(),
            path: folder.join(&name),
            annotations: BTreeMap::from([(TITLE.to_owned(), name)]),
        });
        let (source, program) = (note.source, note.program);
        let config = Config { name: name.into(), version: version.into(), target: target(), program, source };
        let new = NewArtifact {
            artifact_type: PACK.to_owned(),
            config: serde_json::to_vec(&config).unwrap_or_default(),
            layers: layers.collect(),
            annotations: BTreeMap::new(),
        };
        Ok(store.add_artifact(&new, reference)?)
    }

    /// Installs a pack that is in the store.
    ///
    /// # Errors
    /// [`Error::Install`] if it is no pack, or one for another kind of machine.
    pub fn unpack(&self, store: &Store, reference: &str) -> Result<Installed, Error> {
        let refused = |reason: String| Error::Install { name: reference.to_owned(), reason };
        let artifact = store.artifact(reference)?;
        if artifact.kind != PACK {
            return Err(refused(format!("it is a {}, not an engine pack", artifact.kind)));
        }
        let config: Config = serde_json::from_slice(&artifact.config).map_err(|e| refused(e.to_string()))?;
        if config.target != target() {
            return Err(refused(format!("it is for {} and this machine is {}", config.target, target())));
        }
        let place = self.place(&config.name, &config.version)?;
        if let Some(found) = self.installed(&config.name, &config.version) {
            return Ok(found);
        }
        let ready = self.folder.join(format!(".pack-{}", std::process::id()));
        let _ = fs::remove_dir_all(&ready);
        let unpacked = copy(&artifact, &config, &ready).and_then(|()| put(&ready, &place));
        let _ = fs::remove_dir_all(&ready);
        unpacked?;
        self.installed(&config.name, &config.version)
            .ok_or_else(|| refused(format!("it holds no program called {}", config.program)))
    }
}

fn copy(artifact: &Artifact, config: &Config, to: &Path) -> Result<(), Error> {
    let refused = |reason: String| Error::Install { name: config.name.clone(), reason };
    fs::create_dir_all(to).map_err(Error::file(to, "created"))?;
    if artifact.files.len() > MAX_FILES {
        return Err(refused(format!("it holds {} files and may hold {MAX_FILES}", artifact.files.len())));
    }
    for (descriptor, blob) in &artifact.files {
        let name = descriptor.annotations.get(TITLE).map(String::as_str).unwrap_or_default();
        let plain = !name.is_empty() && name != NOTE && !name.starts_with('.') && !name.contains(['/', '\0']);
        if descriptor.media_type != FILE || !plain {
            return Err(refused(format!("it holds `{name}`, which cannot be a file of an engine")));
        }
        let target = to.join(name);
        fs::copy(blob, &target).map_err(Error::file(&target, "written"))?;
        executable(&target)?;
    }
    let program = config.program.clone();
    if program.contains('/') || !to.join(&program).is_file() {
        return Err(refused(format!("it holds no program called {program}")));
    }
    let note = Note { origin: "pulled".to_owned(), source: artifact.digest.to_string(), program };
    files::write_json(&to.join(NOTE), &note)
}

fn executable(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::file(path, "made executable"))
}

#[cfg(test)]
mod tests {
    use super::super::EngineConfig;
    use super::*;

    #[test]
    fn a_pack_installs_elsewhere_what_was_packed_here() {
        let folder = files::test_folder("pack");
        let store = Store::open(folder.join("store")).unwrap();
        let here = Catalog::open(folder.join("here"), EngineConfig::default());
        let place = here.place("llama.cpp", "1.0").unwrap();
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("llama-server"), "the program").unwrap();
        fs::write(place.join("libggml.so"), "a library").unwrap();
        let note = Note { origin: "built".into(), source: "sha256:1".into(), program: "llama-server".into() };
        files::write_json(&place.join(NOTE), &note).unwrap();
        let reference = Reference::parse("localhost:5000/engines/llama.cpp:1.0").unwrap();
        here.package(&store, "llama.cpp", "1.0", &reference).unwrap();

        let there = Catalog::open(folder.join("there"), EngineConfig::default());
        let installed = there.unpack(&store, &reference.to_string()).unwrap();
        assert_eq!((installed.version.as_str(), installed.origin.as_str()), ("1.0", "pulled"));
        assert_eq!(fs::read(&installed.path).unwrap(), b"the program");
        assert!(installed.path.with_file_name("libggml.so").exists());
        assert!(there.package(&store, "llama.cpp", "2.0", &reference).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
