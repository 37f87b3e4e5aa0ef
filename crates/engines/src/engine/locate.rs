//! Owns the order in which engines are looked for.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use super::{Catalog, Engine, Kind, probe, python};
use crate::Error;

/// Names a `llama-server`, before `PATH`.
const VARIABLE: &str = "PONTOON_LLAMA_SERVER";

/// What probing told, as long as the file is the same.
#[derive(Debug, Default)]
pub(super) struct Cache {
    probed: Mutex<Vec<(PathBuf, Stamp, Engine)>>,
}

type Stamp = (u64, Option<SystemTime>);

/// The first executable file called `name` in `PATH`.
pub(super) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates =
        std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|f| f.join(name));
    candidates.find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    let ordinary = std::fs::metadata(path).is_ok_and(|found| found.is_file());
    ordinary && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

impl Catalog {
    /// The engine called `name`, of this version if one is named: the one in the configuration or
    /// [`VARIABLE`](self), then the pinned one, then `PATH`, then the newest installed.
    ///
    /// # Errors
    /// [`Error::NoEngine`] saying where was looked and what to do.
    pub fn locate(&self, name: &str, version: Option<&str>) -> Result<Engine, Error> {
        match Kind::named(name) {
            Kind::LlamaServer => self.llama(version),
            kind @ (Kind::Vllm | Kind::MlxLm) => {
                let configured = match kind {
                    Kind::MlxLm => self.config.mlx_python.as_deref(),
                    _ => self.config.vllm_python.as_deref(),
                };
                let engine = python::find(kind, configured, &self.folder)?;
                wanted(engine, version)
            }
            Kind::Custom => wanted(self.custom(name)?, version),
        }
    }

    fn llama(&self, version: Option<&str>) -> Result<Engine, Error> {
        const NAME: &str = "llama.cpp";
        if let Some(version) = version {
            let found = self.installed(NAME, version).ok_or_else(|| Error::NoEngine {
                reason: format!(
                    "{NAME} {version} is not installed; `pontoon engine install {NAME}@{version}` does it"
                ),
            })?;
            return self.probed(&found.path, &found.version, "the version asked for");
        }
        if let Some(path) = &self.config.llama_server {
            return self.probed(path, "", "named in the configuration");
        }
        if let Some(path) = std::env::var_os(VARIABLE) {
            return self.probed(Path::new(&path), "", &format!("named in {VARIABLE}"));
        }
        if let Some(found) = self.pinned(NAME).and_then(|version| self.installed(NAME, &version)) {
            return self.probed(&found.path, &found.version, "pinned");
        }
        if let Some(path) = in_path("llama-server") {
            return self.probed(&path, "", "in PATH");
        }
        match self.newest(NAME) {
            Some(found) => self.probed(&found.path, &found.version, "installed"),
            None => Err(Error::NoEngine {
                reason: format!(
                    "there is no llama-server: none in pontoon.toml, {VARIABLE} or PATH and none installed; \
                     `pontoon engine install {NAME}` builds one"
                ),
            }),
        }
    }

    /// Asks the program what it can do, once for each file.
    fn probed(&self, path: &Path, version: &str, found: &str) -> Result<Engine, Error> {
        let path = std::fs::canonicalize(path).map_err(Error::file(path, "found"))?;
        let meta = std::fs::metadata(&path).map_err(Error::file(&path, "read"))?;
        let stamp = (meta.len(), meta.modified().ok());
        let mut cache = self.cache.probed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((.., engine)) = cache.iter().find(|(p, s, _)| *p == path && *s == stamp) {
            return Ok(Engine { found: found.to_owned(), ..engine.clone() });
        }
        let flags = probe::flags(&probe::ask(&path, &["--help"])?);
        if !flags.contains("--model") || !flags.contains("--host") {
            let reason =
                format!("{} is no llama-server: its help names no --model and --host", path.display());
            return Err(Error::NoEngine { reason });
        }
        let version = match version {
            "" => probe::version(&probe::ask(&path, &["--version"])?),
            version => version.to_owned(),
        };
        let folder = path.parent().map(Path::to_owned);
        let engine = Engine {
            name: "llama.cpp".to_owned(),
            version,
            kind: Kind::LlamaServer,
            // Its shared libraries lie beside it, or in a `lib` beside its folder.
            read: libraries(folder.as_deref(), &path),
            program: path.clone(),
            prefix: Vec::new(),
            environment: Vec::new(),
            flags,
            health: "/health".to_owned(),
            found: found.to_owned(),
        };
        cache.retain(|(p, ..)| *p != path);
        cache.push((path, stamp, engine.clone()));
        Ok(engine)
    }

    fn custom(&self, name: &str) -> Result<Engine, Error> {
        let custom = self.config.custom.get(name).ok_or_else(|| Error::NoEngine {
            reason: format!(
                "`{name}` is no engine; there are llama.cpp, vllm, mlx-lm and those in [engines.custom] of pontoon.toml"
            ),
        })?;
        let (program, arguments) = custom.command.split_first().ok_or_else(|| Error::NoEngine {
            reason: format!("the command of the engine `{name}` in pontoon.toml is empty"),
        })?;
        if !Path::new(program).is_absolute() {
            let reason = format!("the program `{program}` of the engine `{name}` must be an absolute path");
            return Err(Error::NoEngine { reason });
        }
        Ok(Engine {
            name: name.to_owned(),
            version: "custom".to_owned(),
            kind: Kind::Custom,
            program: program.into(),
            prefix: arguments.to_vec(),
            read: custom.read.clone(),
            environment: custom.environment.iter().map(|(k, v)| (k.into(), v.into())).collect(),
            flags: Default::default(),
            health: custom.health.clone(),
            found: "named in the configuration".to_owned(),
        })
    }
}

/// The shared libraries next to a program, never a folder that holds other things too.
fn libraries(folder: Option<&Path>, program: &Path) -> Vec<PathBuf> {
    let mut read = vec![program.to_owned()];
    let Some(folder) = folder else { return read };
    for place in [folder.to_owned(), folder.join("../lib")] {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        let library =
            |name: &str| name.starts_with("lib") && (name.contains(".so") || name.ends_with(".dylib"));
        read.extend(entries.filter(|e| e.file_name().to_str().is_some_and(library)).map(|e| e.path()));
    }
    read
}

fn wanted(engine: Engine, version: Option<&str>) -> Result<Engine, Error> {
    match version {
        Some(version) if version != engine.version => Err(Error::NoEngine {
            reason: format!("{} is here in version {}, not {version}", engine.name, engine.version),
        }),
        _ => Ok(engine),
    }
}
