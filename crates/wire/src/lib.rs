//! The bridge protocol: what a guest may say to a host and the reverse, as plain data.
//!
//! This crate owns one table of commands ([`Command`], [`Op`]), one of events ([`Event`]), their
//! framing ([`frame`]), the handles that name objects ([`Id`]) and every limit ([`limits`]). It does
//! no I/O, reads no clock and has no `unsafe`. Nothing decoded here is believed yet: a decoded value
//! is *raw*; the executor resolves it. `docs/protocol.md` describes the same in prose.
#![forbid(unsafe_code)]

pub mod bounded;
pub mod command;
pub mod event;
pub mod frame;
pub mod handle;
pub mod hello;
pub mod limits;
pub mod ops;
mod reader;

pub use bounded::{Blob, Label, List, Text};
pub use command::Command;
pub use event::Event;
pub use handle::{Id, Kind};
pub use ops::Op;
pub use reader::Reader;

/// Version of the framing, commands and events. Both sides must speak the same one.
pub const PROTOCOL_VERSION: u32 = 1;

/// Major version of `wgpu` whose types travel in descriptors. Both sides must use the same one.
pub const WGPU_MAJOR: u32 = 30;

/// A message that cannot be what a well-behaved peer sends. It ends the session: a malformed stream
/// is not negotiated with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before its last field.
    #[error("message ends {missing} bytes early")]
    Truncated {
        /// Bytes that the field needed and the message did not have.
        missing: usize,
    },
    /// A length is over the maximum that its type carries.
    #[error("{what} is {got}, the maximum is {max}")]
    TooLong {
        /// What has the length.
        what: &'static str,
        /// The length that was claimed.
        got: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A code that the table does not have.
    #[error("unknown {what} code {code}")]
    UnknownCode {
        /// The table that was consulted.
        what: &'static str,
        /// The code that it lacks.
        code: u32,
    },
    /// A field holds a value that its type excludes.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// Bytes are left over behind the last field.
    #[error("{0} bytes left over after the message")]
    Trailing(usize),
    /// A descriptor did not decode.
    #[error("descriptor does not decode: {0}")]
    Descriptor(String),
}

/// Decodes one descriptor, which must fill `bytes` exactly.
///
/// # Errors
/// [`DecodeError::Descriptor`] where the bytes are not a `T`, [`DecodeError::Trailing`] where more follow.
pub fn decode<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|error| DecodeError::Descriptor(error.to_string()))?;
    match rest.len() {
        0 => Ok(value),
        left => Err(DecodeError::Trailing(left)),
    }
}

/// Appends one descriptor to `out`.
///
/// # Panics
/// Never for the types of this crate: postcard fails only on sequences of unknown length.
pub fn encode<T: serde::Serialize>(value: &T, out: &mut Vec<u8>) {
    let written = std::mem::take(out);
    *out = postcard::to_extend(value, written).expect("wire types have known lengths");
}
