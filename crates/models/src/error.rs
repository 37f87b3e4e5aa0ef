//! Owns what can go wrong with models, sorted by whose fault it is.

use std::{io, path::PathBuf, time::Duration};

use crate::{Digest, gguf::CheckError};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something about a model did not work. Each message is one sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that cannot be a model's.
    #[error("`{value}` is not a model reference: {reason}")]
    Reference { value: String, reason: String },
    /// The store has no such model or artifact.
    #[error("there is no model `{0}` here; `pontoon model ls` lists them, `pontoon model pull` fetches one")]
    NotFound(String),
    /// A short id that several models share.
    #[error("`{id}` begins the id of {count} models; give more digits")]
    Ambiguous { id: String, count: usize },
    /// Removal of an id that has several names.
    #[error("{id} has {count} names ({names}); remove them one by one, or all with --force")]
    SeveralNames { id: String, count: usize, names: String },
    /// An artifact of another kind than was asked for.
    #[error("{name} is not a {wanted} but {found}")]
    WrongKind { name: String, wanted: &'static str, found: String },
    /// A policy of the operator forbids it.
    #[error("the policy of this host forbids it: {0}")]
    Policy(String),
    /// A model file that no engine may see.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A file or manifest that is not what it says.
    #[error("{what} is not usable: {reason}")]
    Malformed { what: String, reason: String },
    /// Bytes that do not have the digest they were asked by.
    #[error("{what} is damaged: its digest is {found}, not {wanted}; it was not kept")]
    Digest { what: String, wanted: Digest, found: Digest },
    /// No room for what had to be written. What was there before is whole.
    #[error(
        "no space left on the disk of {path}{detail}; free some (`pontoon model prune`) and repeat the command, it continues where it stopped"
    )]
    DiskFull { path: PathBuf, detail: String },
    /// The system refused a file operation.
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// The registry wants other credentials.
    #[error(
        "{registry} refused access to {repository} ({detail}); log in with `docker login {registry}` or set a token"
    )]
    Unauthorized { registry: String, repository: String, detail: String },
    /// The registry does not have it.
    #[error("{registry} has no {what}")]
    RemoteNotFound { registry: String, what: String },
    /// The registry wants us to come later.
    #[error("{registry} asks for patience (too many requests); try again in {} s", .retry_after.as_secs().max(1))]
    RateLimited { registry: String, retry_after: Duration },
    /// The registry answered something that we cannot use.
    #[error("{registry} answered {status}: {detail}")]
    Remote { registry: String, status: u16, detail: String },
    /// The registry cannot be reached, or the connection broke more often than we retry.
    #[error("no answer from {registry}: {detail}")]
    Network { registry: String, detail: String },
}

impl Error {
    /// An I/O error with its path; a full disk becomes [`Error::DiskFull`].
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path, detail: String::new() }
            }
            _ => Self::Io { what, path, source },
        }
    }

    pub(crate) fn malformed(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed { what: what.into(), reason: reason.into() }
    }

    /// The HTTP status that says the same.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Reference { .. } | Self::WrongKind { .. } | Self::Ambiguous { .. } => 400,
            Self::NotFound(_) | Self::RemoteNotFound { .. } => 404,
            Self::Unauthorized { .. } => 401,
            Self::Policy(_) => 403,
            Self::SeveralNames { .. } => 409,
            Self::Check(_) | Self::Malformed { .. } => 422,
            Self::RateLimited { .. } => 429,
            Self::DiskFull { .. } => 507,
            Self::Io { .. } => 500,
            Self::Digest { .. } | Self::Remote { .. } | Self::Network { .. } => 502,
        }
    }
}
