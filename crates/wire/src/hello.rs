//! The first words of a session, in both directions.
//!
//! A guest sends one [`Hello`]; the supervisor decides, and either the worker that serves the session
//! answers with a [`Welcome`] or the supervisor with a [`Refusal`]. Only here does the supervisor read
//! what a guest wrote, and a `Hello` is at most [`crate::limits::MAX_HELLO_BODY`] bytes.

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_ADAPTERS, MAX_KEPT_CHUNKS, MAX_MESSAGE_BYTES, MAX_PROGRAM_BYTES, MAX_TOKEN_BYTES};
use crate::{List, PROTOCOL_VERSION, Text, WGPU_MAJOR};

/// What a guest says first. The two version fields come first and never change their place, so that
/// every later version can say which versions met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The guest's [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The guest's [`WGPU_MAJOR`].
    pub wgpu: u32,
    /// Whether the guest can use a shared arena and ring, where the transport has them.
    pub shared_memory: bool,
    /// Bearer token; empty where the transport says who calls.
    pub token: Text<MAX_TOKEN_BYTES>,
    /// Name of the guest program, for people who read `pontoon ps`.
    pub program: Text<MAX_PROGRAM_BYTES>,
}

impl Hello {
    /// Why this guest and this host cannot talk, if they cannot.
    pub fn mismatch(&self) -> Option<String> {
        if self.protocol != PROTOCOL_VERSION {
            return Some(format!(
                "the guest speaks protocol {}, this host {PROTOCOL_VERSION}: use the same Pontoon release on both sides",
                self.protocol
            ));
        }
        (self.wgpu != WGPU_MAJOR).then(|| {
            format!(
                "the guest was built for wgpu {}, this host serves wgpu {WGPU_MAJOR}: build the guest with pontoon-client for wgpu {WGPU_MAJOR}",
                self.wgpu
            )
        })
    }
}

/// Why the supervisor opens no session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of refusal it is.
    pub kind: RefusalKind,
    /// One sentence for the person who started the guest program.
    pub message: Text<MAX_MESSAGE_BYTES>,
}

/// Kinds of refusal, so that a program can tell what may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// The two sides speak different versions.
    Version,
    /// The token is missing or wrong.
    Unauthorized,
    /// A limit on sessions is reached; later it may not be.
    Busy,
    /// The host cannot serve anybody now.
    Unavailable,
    /// The guest's first words were not a `Hello`.
    Malformed,
}

/// One adapter of the host, with all that a program may ask of it without a round trip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// Name, driver and type of the real GPU.
    pub info: wgpu_types::AdapterInfo,
    /// The features on offer: what would let a guest past validation is not among them.
    pub features: wgpu_types::Features,
    /// The limits on offer.
    pub limits: wgpu_types::Limits,
    /// What the adapter lacks of full WebGPU.
    pub downlevel: wgpu_types::DownlevelCapabilities,
}

/// The worker's first words: the session is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The session's number in the host's logs and in `pontoon ps`.
    pub session: u64,
    /// The host's adapters, best first.
    pub adapters: List<Adapter, MAX_ADAPTERS>,
    /// Most payload bytes in flight towards the host at once.
    pub bytes_in_flight: u64,
    /// What the host keeps of uploads; nothing where there is shared memory, or the host does not do it.
    pub kept: Option<KeptUploads>,
}

/// The BLAKE3 digest of some bytes.
pub type Digest = [u8; 32];

/// What a host keeps of the uploads of a session's tenant: the guest may name these bytes instead of sending
/// them ([`crate::frame::Payload::Named`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptUploads {
    /// What it has from earlier sessions of the tenant.
    pub chunks: List<Digest, MAX_KEPT_CHUNKS>,
    /// Bytes that it keeps of what this session sends.
    pub bytes: u64,
}

/// The parts of the shared memory, in bytes from its start. Each starts on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedLayout {
    /// Size of the ring from guest to host; a power of two.
    pub to_host: u32,
    /// Size of the ring from host to guest; a power of two.
    pub to_guest: u32,
    /// Size of the part that the guest fills with uploads.
    pub upload: u64,
    /// Size of the part that the host fills with mapped ranges.
    pub download: u64,
    /// Where it is, for a virtual machine that shares memory with its host; nothing where descriptors come.
    pub place: Option<SharedPlace>,
}

/// A session's part of the memory that a virtual machine shares with its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedPlace {
    /// Bytes from the memory's beginning; a multiple of 4,096.
    pub offset: u64,
    /// What is written in the part's first page: the guest knows the memory by it.
    pub mark: [u8; 16],
}
