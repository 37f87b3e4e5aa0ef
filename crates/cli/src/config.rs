//! The configuration file that a verb reads, and the folders that it names.

use std::path::{Path, PathBuf};

use pontoon_daemon::{Config, paths};
use pontoon_models::Store;

/// Where the configuration is.
#[derive(clap::Args, Clone, Default)]
pub struct ConfigFile {
    /// Configuration file [default: PONTOON_CONFIG, else /etc/pontoon/pontoon.toml, if there is one]
    #[arg(long = "config", value_name = "FILE", global = true)]
    path: Option<PathBuf>,
}

/// The host's own.
const HOSTS_FILE: &str = "/etc/pontoon/pontoon.toml";

impl ConfigFile {
    /// The file, if there is one.
    fn path(&self) -> Option<PathBuf> {
        let usual = PathBuf::from(HOSTS_FILE);
        let named = std::env::var_os("PONTOON_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        self.path.clone().or(named).or_else(|| usual.exists().then_some(usual))
    }

    /// The configuration; defaults where there is no file.
    pub fn read(&self) -> Result<Config, String> {
        self.path()
            .map_or_else(|| Ok(Config::default()), |path| Config::read(&path))
            .map_err(|error| error.to_string())
    }
}

/// The guests' socket that the usual configuration names. The host's file is none to those who may not read it, for
/// the secrets in it.
pub fn socket() -> Result<PathBuf, String> {
    let file = ConfigFile::default();
    let kept_from_us = |path: &PathBuf| {
        let opened = std::fs::File::open(path);
        opened.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    match file.path() {
        Some(path) if path == Path::new(HOSTS_FILE) && kept_from_us(&path) => Ok(paths::default_socket()),
        _ => Ok(file.read()?.socket()),
    }
}

/// The store of models that the configuration names.
pub fn store(config: &Config) -> Result<Store, String> {
    let folder = config.models.folder.clone().unwrap_or_else(paths::models_folder);
    Store::open(&folder).map_err(|error| format!("the store in {}: {error}", folder.display()))
}

/// Runs a future to its end on this thread.
pub fn block_on<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("no event loop: {error}"))?.block_on(future)
}
