//! Assembly: the supervisor, its workers, and what they say to each other.
//!
//! The supervisor ([`serve`]) holds every decision: who the caller is, what it may use, how much. It
//! loads no GPU driver and decodes no command. A worker ([`worker::run`]) is a process of its own,
//! confined, that serves exactly one session and then ends.

pub mod admin;
mod caller;
pub mod cdi;
pub mod config;
mod control;
pub mod forward;
mod greetings;
mod handshake;
pub mod identity;
mod listen;
pub mod logging;
mod machine;
mod metrics;
mod models;
pub mod paths;
mod peer;
mod pool;
mod ports;
pub mod serve;
mod session;
mod share;
mod stats;
mod taken;
pub mod tokens;
mod uploads;
mod watchdog;
pub mod worker;

pub use config::Config;

/// Why the daemon cannot start or go on: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is not usable.
    #[error("{path}: {message}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A listener cannot be opened.
    #[error("cannot listen on {what}: {source}")]
    Listen {
        /// The address.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another daemon is there already.
    #[error("another Pontoon daemon answers on {0}: stop it first, or choose another socket with --socket")]
    Running(String),
    /// TCP without a token would be open to everybody who can reach it.
    #[error(
        "TCP in clear text needs at least one token: add `[[listen.tokens]]` with `tenant` and `token` to the configuration, or give --token-file"
    )]
    NoToken,
    /// No daemon answers.
    #[error("no Pontoon daemon answers on {path}: {source}; start one with `pontoon serve`")]
    NotRunning {
        /// The admin socket.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The model runner cannot start.
    #[error("the model runner cannot start: {0}")]
    Models(String),
    /// Anything else the system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Says what was being done when the system refused.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
