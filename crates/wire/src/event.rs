//! Events: what the host tells the guest. None is a reply unless the guest asked for a value.

use serde::{Deserialize, Serialize};

use crate::handle::Device;
use crate::limits::{MAX_COMPILATION_MESSAGES, MAX_MESSAGE_BYTES};
use crate::{Id, List, Text};

/// A message of a bounded length.
pub type Message = Text<MAX_MESSAGE_BYTES>;

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A command was rejected. Sent once, before any reply to a later command.
    Error {
        /// The device whose error scopes it belongs to.
        device: Id<Device>,
        /// Sequence number of the command.
        sequence: u64,
        /// What kind of error it is.
        kind: ErrorKind,
        /// `wgpu`'s text.
        message: Message,
    },
    /// A device is lost; the session may go on with others.
    DeviceLost {
        /// The device.
        device: Id<Device>,
        /// Whether the guest destroyed it itself.
        destroyed: bool,
        /// Why.
        message: Message,
    },
    /// Answers a command that asked for a value.
    Reply {
        /// The number that the command carried.
        call: u32,
        /// The value.
        reply: Reply,
    },
    /// A buffer is mapped, or could not be.
    Mapped {
        /// The number that the command carried.
        map: u64,
        /// Where the range's bytes are, or nothing where mapping failed.
        bytes: Option<MappedAt>,
    },
    /// The queue has finished a submission that the guest asked to be told of.
    Done {
        /// The device.
        device: Id<Device>,
        /// The guest's number of the submission; all earlier ones are finished too.
        index: u64,
        /// The number that the question carried.
        call: u32,
    },
    /// The session is over; nothing follows.
    End {
        /// Why, in one sentence.
        message: Message,
    },
}

/// Where the bytes of a mapped range are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MappedAt {
    /// They came before this event, in [`crate::frame::MappedBytes`].
    Sent,
    /// In the shared arena's download part, this far from its start, until the buffer is unmapped.
    Arena(u64),
}

/// Kinds of error, as `wgpu` tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The command was not valid.
    Validation,
    /// Memory ran out, or the session's share of it.
    OutOfMemory,
    /// The implementation failed a valid command.
    Internal,
}

/// A value that a guest asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// A device was created, or why not.
    Device(Result<Box<DeviceReply>, Message>),
    /// What a texture format can do.
    FormatFeatures(wgpu_types::TextureFormatFeatures),
    /// A shader module's messages.
    CompilationInfo(List<CompilationMessage, MAX_COMPILATION_MESSAGES>),
    /// All commands before the question are executed and their errors sent.
    Barrier,
}

/// A new device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceReply {
    /// Features in force.
    pub features: wgpu_types::Features,
    /// Limits in force.
    pub limits: wgpu_types::Limits,
    /// Nanoseconds per timestamp tick.
    pub timestamp_period: f32,
}

/// One message of a shader compiler; the fields are those of `wgpu::CompilationMessage`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompilationMessage {
    /// The text.
    pub message: Message,
    /// 0 error, 1 warning, 2 information.
    pub severity: u8,
    /// Line, column, byte offset and byte length, where known.
    pub location: Option<(u32, u32, u32, u32)>,
}
