//! Content-addressed uploads: data that a tenant has sent to this host before is named instead of sent.
//!
//! An upload travels in pieces. Off the host, where there is no shared memory, each piece of at least
//! [`MIN_CHUNK`] bytes is a *chunk*, known by the BLAKE3 digest of its bytes. A session begins with the
//! chunks that the host announces in its welcome; guest and host then keep the same [`Ledger`], which says of
//! each chunk whether it is known by now. So a guest knows without asking what it may name, and naming costs
//! no round trip.
//!
//! On the host each tenant has a [`Shelf`]: sealed memory that a session's worker reads and cannot change. What
//! the session adds goes to memory of its own ([`Additions`]), of fixed size; when the session is over, the
//! supervisor computes each digest anew and makes the tenant's next shelf. A worker holds the chunks of one
//! tenant and nobody else's, so a digest of another tenant's data is as unknown as any other.
#![forbid(unsafe_code)]

mod ledger;

mod additions;
mod kept;
mod shelf;

pub use ledger::{Ledger, Note};
pub use pontoon_wire::hello::Digest;

pub use additions::{Added, Additions};
pub use kept::Kept;
pub use shelf::{Chunk, Shelf, Source};

/// Fewest bytes of a payload that is a chunk: less is sent sooner than named.
pub const MIN_CHUNK: usize = 256;

/// Chunks of fewer bytes are small: they get half of the places, so that a program whose every step sends a little
/// leaves room for what is worth keeping.
pub const SMALL_CHUNK: usize = 4096;

/// The name of some bytes: their BLAKE3 digest.
pub fn digest(bytes: &[u8]) -> Digest {
    *blake3::hash(bytes).as_bytes()
}

/// What is wrong with memory that holds chunks.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The memory does not hold what it should: who wrote it is broken or was taken over.
    #[error("memory with uploads is damaged: {0}")]
    Damaged(&'static str),
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}
