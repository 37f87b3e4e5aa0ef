//! Every maximum of the protocol in one place. Limits that an operator may change are in the
//! configuration (`pontoon.toml`), not here.

/// Bytes in a frame's header.
pub const FRAME_HEADER: usize = 8;
/// Most bytes in a frame's body.
pub const MAX_FRAME_BODY: usize = 4 * 1024 * 1024 + 64 * 1024;
/// Most bytes of shader source (WGSL text or SPIR-V words) in one module.
pub const MAX_SHADER_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes in a label; clients cut longer ones.
pub const MAX_LABEL_BYTES: usize = 1024;
/// Most bytes in an entry point's or constant's name; clients cut longer ones (none that long exists).
pub const MAX_NAME_BYTES: usize = 4096;
/// Most bytes in an error's or device's message; hosts cut longer ones.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// Most bytes of a bearer token in [`crate::hello::Hello`].
pub const MAX_TOKEN_BYTES: usize = 512;
/// Most bytes of the guest program's name in [`crate::hello::Hello`].
pub const MAX_PROGRAM_BYTES: usize = 256;
/// Most bytes of a `Hello` frame's body: read before the caller is known.
pub const MAX_HELLO_BODY: usize = 4096;
/// Most entries of a bind group or its layout.
pub const MAX_BINDINGS: usize = 4096;
/// Most bind group layouts of a pipeline layout (`wgpu-core`'s own array holds 8).
pub const MAX_BIND_GROUPS: usize = 8;
/// Most colour targets or attachments (`wgpu-core`'s own array holds 8).
pub const MAX_COLOR_ATTACHMENTS: usize = 8;
/// Most vertex buffers of a pipeline (`wgpu-core`'s own array holds 16).
pub const MAX_VERTEX_BUFFERS: usize = 16;
/// Most attributes of one vertex buffer.
pub const MAX_VERTEX_ATTRIBUTES: usize = 256;
/// Most pipeline-overridable constants of one stage.
pub const MAX_CONSTANTS: usize = 1024;
/// Most view formats of a texture.
pub const MAX_VIEW_FORMATS: usize = 64;
/// Most dynamic offsets of one `set_bind_group`.
pub const MAX_DYNAMIC_OFFSETS: usize = 256;
/// Most resource transitions in one call.
pub const MAX_TRANSITIONS: usize = 65_536;
/// Most planes of an external texture.
pub const MAX_PLANES: usize = 3;
/// Most adapters a host offers.
pub const MAX_ADAPTERS: usize = 64;
/// Most messages in a shader module's compilation info.
pub const MAX_COMPILATION_MESSAGES: usize = 1024;
/// Most objects of one kind that one session may name; a table never grows past it.
pub const MAX_OBJECTS_PER_KIND: usize = 1 << 20;
/// Payload bytes that one frame carries at most when they travel inline.
pub const MAX_INLINE_PAYLOAD: usize = 256 * 1024;
/// Most chunks that a host announces of a tenant's uploads, and most that one session adds to them.
pub const MAX_KEPT_CHUNKS: usize = 8192;
/// Payload bytes that one frame names at most in the shared arena.
pub const MAX_ARENA_PAYLOAD: usize = 4 * 1024 * 1024;
