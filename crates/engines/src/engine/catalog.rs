//! Owns the folder of installed engines: `NAME/VERSION/`, each with a note of where it came from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::EngineConfig;
use super::locate::{Cache, in_path};
use crate::{Error, files};

/// What is known about engines on this host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(super) folder: PathBuf,
    pub(super) config: EngineConfig,
    pub(super) cache: Arc<Cache>,
}

/// An engine in the folder, or elsewhere on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub name: String,
    pub version: String,
    /// The program.
    pub path: PathBuf,
    /// `built`, `pulled`, `path`, `configuration`.
    pub origin: String,
    pub pinned: bool,
    /// On disk; zero if it is not in our folder.
    pub bytes: u64,
}

/// Lies beside each installed engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Note {
    pub origin: String,
    /// Of what it was made: the source's digest, or the pack's.
    pub source: String,
    /// Name of the program in the folder.
    pub program: String,
}

pub(super) const NOTE: &str = "engine.json";

impl Catalog {
    /// Engines in `folder` (made when something is installed) and elsewhere.
    pub fn open(folder: impl Into<PathBuf>, config: EngineConfig) -> Catalog {
        Catalog { folder: folder.into(), config, cache: Arc::default() }
    }

    /// How the operator configured engines.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// All engines: installed ones, and those that are found elsewhere.
    pub fn list(&self) -> Vec<Installed> {
        let mut found = Vec::new();
        for name in names(&self.folder) {
            let versions = names(&self.folder.join(&name));
            found.extend(versions.iter().filter_map(|version| self.installed(&name, version)));
        }
        let elsewhere = [
            ("llama.cpp", self.config.llama_server.clone(), "configuration"),
            ("llama.cpp", std::env::var_os("PONTOON_LLAMA_SERVER").map(PathBuf::from), "environment"),
            ("llama.cpp", in_path("llama-server"), "path"),
            ("mlx-lm", self.config.mlx_python.clone(), "configuration"),
            ("mlx-lm", in_path("mlx_lm.server"), "path"),
            ("vllm", self.config.vllm_python.clone(), "configuration"),
            ("vllm", in_path("vllm"), "path"),
        ];
        for (name, path, origin) in elsewhere {
            let Some(path) = path else { continue };
            let version = self.locate(name, None).ok().filter(|engine| same(&engine.program, &path));
            let version = version.map_or_else(|| "?".to_owned(), |engine| engine.version);
            found.push(Installed {
                name: name.into(),
                version,
                path,
                origin: origin.into(),
                pinned: false,
                bytes: 0,
            });
        }
        for (name, custom) in &self.config.custom {
            let path = custom.command.first().map(PathBuf::from).unwrap_or_default();
            let (version, origin) = ("custom".to_owned(), "configuration".to_owned());
            found.push(Installed { name: name.clone(), version, path, origin, pinned: false, bytes: 0 });
        }
        found
    }

    /// One installed version.
    pub fn installed(&self, name: &str, version: &str) -> Option<Installed> {
        let folder = self.place(name, version).ok()?;
        let note: Note = files::read_json(&folder.join(NOTE)).ok()??;
        let path = folder.join(&note.program);
        let pinned = self.pinned(name).as_deref() == Some(version);
        let bytes = size(&folder);
        let (name, version) = (name.to_owned(), version.to_owned());
        path.is_file().then_some(Installed { name, version, path, origin: note.origin, pinned, bytes })
    }

    /// The newest installed version.
    pub(super) fn newest(&self, name: &str) -> Option<Installed> {
        let mut versions = names(&self.folder.join(name));
        versions.sort_by_key(|version| numbers(version));
        versions.iter().rev().find_map(|version| self.installed(name, version))
    }

    /// Removes an installed version.
    ///
    /// # Errors
    /// [`Error::NoEngine`] if it is not installed or pinned.
    pub fn remove(&self, name: &str, version: &str) -> Result<u64, Error> {
        let found = self.installed(name, version).ok_or_else(|| Error::NoEngine {
            reason: format!("{name} {version} is not installed; `pontoon engine ls` shows what is"),
        })?;
        if found.pinned {
            let reason = format!("{name} {version} is pinned; pin another version before you remove it");
            return Err(Error::NoEngine { reason });
        }
        let folder = self.place(name, version)?;
        fs::remove_dir_all(&folder).map_err(Error::file(&folder, "removed"))?;
        Ok(found.bytes)
    }

    /// The folder of a version; both words become parts of a path and are checked.
    pub(super) fn place(&self, name: &str, version: &str) -> Result<PathBuf, Error> {
        let plain = |word: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
            !word.is_empty() && word.len() <= 64 && !word.starts_with('.') && word.chars().all(allowed)
        };
        match plain(name) && plain(version) {
            true => Ok(self.folder.join(name).join(version)),
            false => Err(Error::NoEngine {
                reason: format!(
                    "`{name}` `{version}` cannot be an engine's name and version: letters, digits and . - _ +"
                ),
            }),
        }
    }
}

fn same(one: &Path, other: &Path) -> bool {
    // A script in PATH stands for its interpreter.
    let real = |path: &Path| fs::canonicalize(path).ok();
    real(one) == real(other) || other.file_name().is_some_and(|name| name != "llama-server")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// For ordering: `0.3.10` is after `0.3.9`.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(|meta| meta.is_file())
        .map(|meta| meta.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(catalog: &Catalog, version: &str) {
        let folder = catalog.place("llama.cpp", version).unwrap();
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("llama-server"), "program").unwrap();
        let note = Note { origin: "built".into(), source: "sha256:0".into(), program: "llama-server".into() };
        files::write_json(&folder.join(NOTE), &note).unwrap();
    }

    #[test]
    fn versions_lie_side_by_side_and_there_is_a_way_back() {
        let folder = files::test_folder("catalog");
        let catalog = Catalog::open(&folder, EngineConfig::default());
        install(&catalog, "0.3.9");
        install(&catalog, "0.3.10");
        assert_eq!(catalog.newest("llama.cpp").unwrap().version, "0.3.10");
        catalog.pin("llama.cpp", Some("0.3.9")).unwrap();
        catalog.pin("llama.cpp", Some("0.3.10")).unwrap();
        assert!(catalog.remove("llama.cpp", "0.3.10").is_err(), "it is pinned");
        assert_eq!(catalog.rollback("llama.cpp").unwrap(), "0.3.9");
        catalog.remove("llama.cpp", "0.3.10").unwrap();
        assert!(catalog.rollback("llama.cpp").is_err(), "that version is gone");
        assert!(catalog.pin("llama.cpp", Some("0.3.8")).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn names_cannot_lead_out_of_the_folder() {
        let catalog = Catalog::open("/nowhere", EngineConfig::default());
        for (name, version) in [("..", "1"), ("a", "../../etc"), ("a/b", "1"), ("", "1"), ("a", ".hidden")] {
            assert!(catalog.place(name, version).is_err(), "{name} {version}");
        }
    }
}
