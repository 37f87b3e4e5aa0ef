//! Owns the sentences that this crate reports failures with.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong outside of serving a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{reason}")]
    Setting { reason: String },

    #[error("the flag `{flag}` is refused: {why}; `pontoon model configure --help` lists the settings")]
    Flag { flag: String, why: String },

    #[error("{0}")]
    Model(#[from] pontoon_models::Error),

    #[error("no model `{name}` is loaded; `pontoon model ps` lists those that are")]
    NotLoaded { name: String },

    #[error("there is no engine for this model: {reason}")]
    NoEngine { reason: String },

    #[error("the engine `{name}` cannot be installed: {reason}")]
    Install { name: String, reason: String },

    #[error("`{tool}` is needed to build an engine and is not in PATH; install the package `{package}`")]
    MissingTool { tool: &'static str, package: &'static str },

    #[error("{path} cannot be {action}: {source}")]
    File { path: PathBuf, action: &'static str, source: io::Error },

    #[error("{path} does not hold what Pontoon wrote there: {reason}; repair or remove it")]
    Damaged { path: PathBuf, reason: String },

    #[error("the engine did not become ready: {reason}")]
    Start { reason: String },

    #[error("the engine's answer to {what} was {found}")]
    Engine { what: &'static str, found: String },

    #[error("the runner has stopped")]
    Stopped,
}

impl Error {
    pub(crate) fn file(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { path, action, source }
    }
}
