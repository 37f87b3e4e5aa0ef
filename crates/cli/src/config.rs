//! The configuration file that a verb reads, and the folders that it names.

use std::path::PathBuf;

use pontoon_daemon::{Config, paths};
use pontoon_models::Store;

/// Where the configuration is.
#[derive(clap::Args, Clone, Default)]
pub struct ConfigFile {
    /// Configuration file [default: PONTOON_CONFIG, else /etc/pontoon/pontoon.toml, if there is one]
    #[arg(long = "config", value_name = "FILE", global = true)]
    path: Option<PathBuf>,
}

impl ConfigFile {
    /// The configuration; defaults where there is no file.
    pub fn read(&self) -> Result<Config, String> {
        let usual = PathBuf::from("/etc/pontoon/pontoon.toml");
        let named = std::env::var_os("PONTOON_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = self.path.clone().or(named).or_else(|| usual.exists().then_some(usual));
        path.map_or_else(|| Ok(Config::default()), |path| Config::read(&path))
            .map_err(|error| error.to_string())
    }
}

/// The guests' socket that the usual configuration names. A file that others may not read, for the secrets in it, is
/// none to them.
pub fn socket() -> Result<PathBuf, String> {
    match ConfigFile::default().read() {
        Ok(config) => Ok(config.socket()),
        Err(error) if std::env::var_os("PONTOON_CONFIG").is_some_and(|path| !path.is_empty()) => Err(error),
        Err(_) => Ok(paths::default_socket()),
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
