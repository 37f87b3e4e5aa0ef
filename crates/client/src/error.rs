//! Why a guest has no session. (Errors within a session are `wgpu`'s.)

use pontoon_transport::{Endpoint, EndpointError};

/// Why there is no connection to a host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `PONTOON_HOST` is no address: the guest's configuration is wrong.
    #[error("PONTOON_HOST: {0}")]
    Address(#[from] EndpointError),
    /// `PONTOON_COMPRESSION` is a way that is not known.
    #[error("PONTOON_COMPRESSION is '{0}'; it must be lz4 or none")]
    Compression(String),
    /// `PONTOON_HOST` is not set, and no host answers in the usual places.
    #[error(
        "no Pontoon host answers; PONTOON_HOST is not set, and these were tried: {tried}; start one with `pontoon serve`, give the container the device pontoon.dev/gpu=all, or set PONTOON_HOST to where it listens"
    )]
    Nowhere {
        /// Each place and what was wrong there.
        tried: String,
    },
    /// Nobody answers there: the host does not run, or it is not reachable from here.
    #[error(
        "no Pontoon host answers at {endpoint}: {source}; start one with `pontoon serve`, or set PONTOON_HOST to where it listens"
    )]
    Unreachable {
        /// What was tried.
        endpoint: Endpoint,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody answers there, and there is no secure way: another host, or a program without TLS.
    #[error("no secure connection to {endpoint}: {message}")]
    Insecure {
        /// What was tried.
        endpoint: Endpoint,
        /// What is wrong.
        message: String,
    },
    /// The host said no, and why.
    #[error("the Pontoon host at {endpoint} refused: {message}")]
    Refused {
        /// Who refused.
        endpoint: Endpoint,
        /// What kind of refusal it is.
        kind: pontoon_wire::hello::RefusalKind,
        /// Its sentence.
        message: String,
    },
    /// The host closed the connection or said what no host says.
    #[error("the Pontoon host at {endpoint} broke off: {message}")]
    Broken {
        /// Who it was.
        endpoint: Endpoint,
        /// What happened.
        message: String,
    },
}
