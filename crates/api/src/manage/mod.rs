//! Models, engines and what they do: what is asked of the store, the registries and the runner.

pub mod cards;
pub mod engines;
pub mod models;
pub mod ollama;
pub mod pontoon;
pub mod tar;
pub mod transfer;

use pontoon_models::{Error, Model, Reference, Store};

use crate::dialect::{DialectError, ErrorKind};
use crate::server::Shared;

/// Runs what blocks on the disk where it holds up nobody.
///
/// # Errors
/// The model's, in the caller's words.
pub async fn blocking<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
) -> Result<T, DialectError> {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(result) => result.map_err(|error| told(&error)),
        Err(error) => Err(DialectError::new(ErrorKind::Internal, error.to_string())),
    }
}

/// A model of the store by any of its names.
///
/// # Errors
/// [`ErrorKind::ModelNotFound`], mostly.
pub async fn resolve(shared: &Shared, name: &str) -> Result<Model, DialectError> {
    let name = name.to_owned();
    blocking(&shared.store, move |store| store.resolve(&name)).await
}

/// A name for a model, as somebody wrote it.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`].
pub fn reference(text: &str) -> Result<Reference, DialectError> {
    Reference::parse(text).map_err(|error| told(&error))
}

/// What went wrong with a model, with the kind that gives the right status.
pub fn told(error: &Error) -> DialectError {
    let kind = match error {
        Error::NotFound(_) | Error::RemoteNotFound { .. } => ErrorKind::ModelNotFound,
        Error::Reference { .. } | Error::Ambiguous { .. } | Error::WrongKind { .. } => {
            ErrorKind::InvalidRequest
        }
        Error::SeveralNames { .. } => ErrorKind::Conflict,
        Error::Policy(_) => ErrorKind::Forbidden,
        Error::Unauthorized { .. } => ErrorKind::Unauthorized,
        Error::Check(_) | Error::Malformed { .. } => ErrorKind::InvalidRequest,
        Error::RateLimited { retry_after, .. } => {
            return DialectError::new(ErrorKind::QueueFull, error.to_string()).with_retry_after(*retry_after);
        }
        Error::Remote { .. } | Error::Network { .. } | Error::Digest { .. } => ErrorKind::EngineFailed,
        Error::DiskFull { .. } | Error::Io { .. } => ErrorKind::Internal,
    };
    DialectError::new(kind, error.to_string())
}

/// What went wrong in the runner.
pub fn runner(error: impl std::fmt::Display) -> DialectError {
    DialectError::new(ErrorKind::Internal, error.to_string())
}

/// A body of JSON.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] with what is wrong and where.
pub fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, DialectError> {
    serde_json::from_slice(body).map_err(|error| {
        DialectError::new(ErrorKind::InvalidRequest, format!("the request's body cannot be read: {error}"))
    })
}

/// A value of a query, with `%XX` and `+` undone.
pub fn query(query: &str, key: &str) -> Option<String> {
    let undo = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            let digit = |byte: Option<u8>| char::from(byte.unwrap_or(b'?')).to_digit(16).unwrap_or(0);
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => (digit(rest.next()) * 16 + digit(rest.next())) as u8,
                other => other,
            });
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (undo(name) == key).then(|| undo(value))
    })
}

/// Whether a query says yes.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for what is neither yes nor no.
pub fn flag(text: &str, key: &str) -> Result<bool, DialectError> {
    match query(text, key).as_deref() {
        Some("" | "1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
        None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(DialectError::invalid(key, format!("?{key}={other} is neither true nor false")))
        }
    }
}
