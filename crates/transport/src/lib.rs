//! Moving bytes between a guest and a host: unix sockets, shared memory with rings, vsock, TCP with and without TLS.
//!
//! Two rules for shared memory hold here, the only place that touches it (`shared/mapping.rs`):
//! control bytes are copied out before anybody judges them, and no Rust reference ever points into
//! memory that the other side can write.

mod endpoint;
mod fds;
pub mod link;
pub mod memory;
pub mod shared;
mod system;
mod ticket;
#[cfg(feature = "tls")]
pub mod tls;

pub use endpoint::{DEFAULT_PORT, Endpoint, EndpointError};
pub use fds::{receive_with_descriptors, send_all, send_with_descriptors};
pub use link::{Receiver, Sender, Socket, Wake};
pub use system::{GONE, NO_SIGNAL};
pub use ticket::{Fingerprint, Ticket};

/// Why bytes no longer move.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side has closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The connection is over, and whoever carried it knows why.
    #[error("{0}")]
    Ended(String),
    /// The positions in the shared ring contradict each other: the peer's doing.
    #[error("the shared ring is corrupt: {0}")]
    Corrupt(&'static str),
    /// A place outside the shared memory was named: the peer's doing.
    #[error("bytes {at}..{end} are outside the shared memory of {len} bytes")]
    OutOfBounds {
        /// First byte that was named.
        at: u64,
        /// End that was named.
        end: u64,
        /// Size of the part.
        len: u64,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps an operating system error.
    pub fn io(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| match errno {
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => Self::Closed,
            errno => Self::Io { what, source: errno.into() },
        }
    }
}
