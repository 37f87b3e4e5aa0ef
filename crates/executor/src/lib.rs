//! Executes what one guest sends, on `wgpu`, for as long as the guest behaves.
//!
//! Trust is a change of type. A *raw* command is what `pontoon-wire` decoded: handles and sizes are the
//! guest's word. *Resolving* looks every handle up in this session's [`table`]s and gives `wgpu`'s own
//! descriptors, whose references prove that the objects exist. Only those are *executed*. `wgpu` then
//! validates what WebGPU validates; its errors go back as events, with the command's number.
#![deny(unsafe_code)]

mod bundle;
mod create;
mod encode;
mod errors;
mod host;
mod import;
mod in_place;
mod map;
mod memory;
mod pipeline;
mod progress;
mod quota;
mod session;
mod table;
mod upload;

pub use host::{Backend, Host, OFFERED_FEATURES};
pub use import::SharedBytes;
pub use memory::device_memory;
pub use quota::{Limits, Usage};
pub use session::Session;

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The guest sent what no well-behaved client sends: its own fault, and final.
    #[error("the guest broke the protocol: {0}")]
    Violation(String),
    /// `wgpu` or a driver gave up on a command.
    #[error("the host's wgpu cannot go on: {0}")]
    Panic(String),
    /// The host's own system refused what the session needs.
    #[error("the host cannot go on: {0}")]
    Host(String),
    /// The guest reached a limit that ends sessions.
    #[error("{0}")]
    Limit(String),
    /// A submission ran for too long.
    #[error(
        "a submission ran for more than {limit} s (limits.submission_seconds) and was ended: split the work into shorter submissions or raise the limit"
    )]
    Watchdog {
        /// The limit in seconds.
        limit: u64,
    },
}

impl From<pontoon_wire::DecodeError> for End {
    fn from(error: pontoon_wire::DecodeError) -> Self {
        Self::Violation(error.to_string())
    }
}

/// Shared memory between the guest and this session, where the transport has it. Positions are the
/// guest's word; an implementation checks them and answers `Err` with what was wrong.
pub trait Arena {
    /// Copies `out.len()` uploaded bytes from position `at`.
    ///
    /// # Errors
    /// What was wrong with the position.
    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), String>;
    /// Says that uploads up to position `end` were read.
    fn release(&self, end: u64);
    /// Puts `bytes` where the guest can read them; where, or nothing if there is no room.
    fn place(&mut self, bytes: &[u8]) -> Option<u64>;
    /// Takes back what [`Arena::place`] put at `at`.
    fn free(&mut self, at: u64);
    /// The bytes that uploads arrive in, for the GPU to read in place; nothing where it must not.
    fn uploads(&self) -> Option<SharedBytes>;
    /// How far from the first of those bytes the `len` bytes at position `at` begin.
    ///
    /// # Errors
    /// What was wrong with the position.
    fn offset(&self, at: u64, len: u32) -> Result<u64, String>;
    /// Zeroed pages for at least `len` bytes that the guest can read, and where; nothing if there is no room.
    fn reserve(&mut self, len: u64) -> Option<(u64, SharedBytes)>;
    /// Takes back what [`Arena::reserve`] gave out at `at`.
    fn unreserve(&mut self, at: u64);
}

/// The arena of a session that has none.
#[derive(Debug, Default)]
pub struct NoArena;

impl Arena for NoArena {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), String> {
        Err("this session has no shared arena".into())
    }
    fn release(&self, _: u64) {}
    fn place(&mut self, _: &[u8]) -> Option<u64> {
        None
    }
    fn free(&mut self, _: u64) {}
    fn uploads(&self) -> Option<SharedBytes> {
        None
    }
    fn offset(&self, _: u64, _: u32) -> Result<u64, String> {
        Err("this session has no shared arena".into())
    }
    fn reserve(&mut self, _: u64) -> Option<(u64, SharedBytes)> {
        None
    }
    fn unreserve(&mut self, _: u64) {}
}
