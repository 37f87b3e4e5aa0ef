//! Framing: how commands and events follow each other on a byte stream, whatever carries it.
//!
//! A frame is an eight-byte header (`u32` length of the body, `u8` code, three zero bytes) and a
//! body. Every frame from the guest is one command and takes the next sequence number, from 1 on.

use crate::handle::{Buffer, CommandBuffer, CommandEncoder, Device};
use crate::hello::Digest;
use crate::limits::{FRAME_HEADER, MAX_ARENA_PAYLOAD, MAX_FRAME_BODY, MAX_INLINE_PAYLOAD};
use crate::{DecodeError, Id, Reader};

/// Codes of frames from guest to host.
pub mod code {
    /// A [`crate::hello::Hello`].
    pub const HELLO: u8 = 0;
    /// A [`crate::Command`] in postcard.
    pub const COMMAND: u8 = 1;
    /// A piece of a command encoder's recording: [`super::Encode`].
    pub const ENCODE: u8 = 2;
    /// A piece of a buffer write: [`super::WriteBuffer`].
    pub const WRITE_BUFFER: u8 = 3;
    /// A piece of a mapped buffer that the guest wrote: [`super::WriteBuffer`].
    pub const WRITE_MAPPED: u8 = 4;
    /// Payload for the command that follows: [`super::Payload`].
    pub const STAGE: u8 = 5;
    /// A submission: [`super::Submit`].
    pub const SUBMIT: u8 = 6;
    /// The guest forgets a name: [`super::Forget`].
    pub const FORGET: u8 = 7;
    /// A `write_buffer_with` that the guest knows to be out of range: to be rejected in its turn. The body
    /// is a [`super::WriteBuffer`] without payload.
    pub const REJECT_WRITE_WITH: u8 = 8;
    /// Host to guest: a [`crate::hello::Welcome`].
    pub const WELCOME: u8 = 128;
    /// Host to guest: a [`crate::hello::Refusal`].
    pub const REFUSAL: u8 = 129;
    /// Host to guest, before the welcome: a [`crate::hello::SharedLayout`], with the descriptors of the
    /// memory, of the bell that wakes the host and of the one that wakes the guest.
    pub const SHARED: u8 = 132;
    /// Host to guest: an [`crate::Event`] in postcard.
    pub const EVENT: u8 = 130;
    /// Host to guest: bytes of a mapped range, without a shared arena: [`super::MappedBytes`].
    pub const MAPPED_BYTES: u8 = 131;
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes in the body.
    pub body: usize,
    /// What the body is, from [`code`].
    pub code: u8,
}

impl Header {
    /// Reads and checks a header.
    ///
    /// # Errors
    /// [`DecodeError`] where the body is over `max` bytes or the reserved bytes are not zero.
    pub fn decode(bytes: [u8; FRAME_HEADER], max: usize) -> Result<Self, DecodeError> {
        let body = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if body > max {
            return Err(DecodeError::TooLong { what: "frame body", got: body as u64, max: max as u64 });
        }
        match bytes[5..] {
            [0, 0, 0] => Ok(Self { body, code: bytes[4] }),
            _ => Err(DecodeError::Invalid("frame header")),
        }
    }
}

/// Appends a frame whose body `fill` writes.
///
/// # Panics
/// Where the body is over [`MAX_FRAME_BODY`]: callers cut what they send before.
#[inline]
pub fn put(out: &mut Vec<u8>, code: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, code, 0, 0, 0]);
    fill(out);
    let body = out.len() - start - FRAME_HEADER;
    assert!(body <= MAX_FRAME_BODY, "frame body of {body} bytes");
    out[start..start + 4].copy_from_slice(&(body as u32).to_le_bytes());
}

/// Appends a frame with a postcard body.
pub fn put_encoded<T: serde::Serialize>(out: &mut Vec<u8>, code: u8, value: &T) {
    put(out, code, |out| crate::encode(value, out));
}

/// A whole frame: its code, its body, and how many bytes it takes.
pub type Whole<'a> = (u8, &'a [u8], usize);

/// The first whole frame in `bytes`: its code, its body, and how many bytes it takes. `None` where it
/// is not whole yet.
///
/// # Errors
/// [`DecodeError`] where no valid frame can begin like this.
pub fn split(bytes: &[u8], max_body: usize) -> Result<Option<Whole<'_>>, DecodeError> {
    let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER>() else {
        return Ok(None);
    };
    let header = Header::decode(*header, max_body)?;
    Ok(rest.get(..header.body).map(|body| (header.code, body, FRAME_HEADER + header.body)))
}

/// Where payload bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// In the frame itself.
    Inline(&'a [u8]),
    /// In the shared arena's upload part, at a position that grows without end (take it modulo the
    /// part's size; a payload never wraps around).
    Arena {
        /// Position of the first byte.
        at: u64,
        /// Number of bytes.
        len: u32,
    },
    /// In the frame, compressed.
    Packed {
        /// Number of bytes once unpacked.
        len: u32,
        /// An LZ4 block (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>).
        block: &'a [u8],
    },
    /// Bytes that the host keeps ([`crate::hello::KeptUploads`]), by their name.
    Named {
        /// Their digest.
        digest: Digest,
        /// Number of bytes.
        len: u32,
    },
}

impl<'a> Payload<'a> {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Arena { len, .. } | Self::Named { len, .. } | Self::Packed { len, .. } => *len as usize,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the payload as a frame's last field.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Inline(bytes) => {
                out.push(0);
                out.extend_from_slice(bytes);
            }
            Self::Arena { at, len } => {
                out.push(1);
                out.extend_from_slice(&at.to_le_bytes());
                out.extend_from_slice(&len.to_le_bytes());
            }
            Self::Packed { len, block } => {
                out.push(3);
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(block);
            }
            Self::Named { digest, len } => {
                out.push(2);
                out.extend_from_slice(digest);
                out.extend_from_slice(&len.to_le_bytes());
            }
        }
    }

    /// Reads a frame's last field.
    ///
    /// # Errors
    /// [`DecodeError`] where it is cut, over its maximum or of an unknown form.
    pub fn take(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (payload, max) = match reader.u8()? {
            0 => (Self::Inline(reader.rest()), MAX_INLINE_PAYLOAD),
            1 => (Self::Arena { at: reader.u64()?, len: reader.u32()? }, MAX_ARENA_PAYLOAD),
            2 => (Self::Named { digest: reader.array()?, len: reader.u32()? }, MAX_INLINE_PAYLOAD),
            3 => (Self::Packed { len: reader.u32()?, block: reader.rest() }, MAX_INLINE_PAYLOAD),
            code => return Err(DecodeError::UnknownCode { what: "payload", code: code.into() }),
        };
        match payload.len() <= max {
            true => Ok(payload),
            false => {
                Err(DecodeError::TooLong { what: "payload", got: payload.len() as u64, max: max as u64 })
            }
        }
    }
}

/// A piece of a write to a buffer. A write is cut into pieces that follow each other; the first piece
/// says how long the whole is, so that it is judged before any of it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteBuffer<'a> {
    /// The buffer.
    pub buffer: Id<Buffer>,
    /// Where in the buffer the whole write begins.
    pub offset: u64,
    /// Bytes of the whole write.
    pub total: u64,
    /// Where in the whole write this piece begins.
    pub at: u64,
    /// The piece.
    pub payload: Payload<'a>,
}

impl<'a> WriteBuffer<'a> {
    /// Appends the frame; `code` is [`code::WRITE_BUFFER`], [`code::WRITE_MAPPED`] or
    /// [`code::REJECT_WRITE_WITH`].
    pub fn put(&self, out: &mut Vec<u8>, code: u8) {
        put(out, code, |out| {
            for field in [self.buffer.to_bits(), self.offset, self.total, self.at] {
                out.extend_from_slice(&field.to_le_bytes());
            }
            self.payload.put(out);
        });
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] where it is malformed or the piece does not lie within the whole.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let write = Self {
            buffer: Id::from_bits(reader.u64()?),
            offset: reader.u64()?,
            total: reader.u64()?,
            at: reader.u64()?,
            payload: Payload::take(&mut reader)?,
        };
        reader.finish()?;
        match write.at.checked_add(write.payload.len() as u64) {
            Some(end) if end <= write.total => Ok(write),
            _ => Err(DecodeError::Invalid("piece of a write, beyond the whole")),
        }
    }
}

/// A piece of a command encoder's recording: whole [`crate::Op`]s, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encode<'a> {
    /// The encoder.
    pub encoder: Id<CommandEncoder>,
    /// The operations.
    pub ops: &'a [u8],
}

impl<'a> Encode<'a> {
    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        put(out, code::ENCODE, |out| {
            out.extend_from_slice(&self.encoder.to_bits().to_le_bytes());
            out.extend_from_slice(self.ops);
        });
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        Ok(Self { encoder: Id::from_bits(reader.u64()?), ops: reader.rest() })
    }
}

/// A submission of command buffers to a device's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submit<'a> {
    /// The device.
    pub device: Id<Device>,
    /// The guest's number for the submission: one more than that of the device's last one.
    pub index: u64,
    buffers: &'a [u8],
}

impl<'a> Submit<'a> {
    /// Appends the frame.
    pub fn put(out: &mut Vec<u8>, device: Id<Device>, index: u64, buffers: &[Id<CommandBuffer>]) {
        put(out, code::SUBMIT, |out| {
            out.extend_from_slice(&device.to_bits().to_le_bytes());
            out.extend_from_slice(&index.to_le_bytes());
            for buffer in buffers {
                out.extend_from_slice(&buffer.to_bits().to_le_bytes());
            }
        });
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] where it is cut or the handles are not whole.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let submit =
            Self { device: Id::from_bits(reader.u64()?), index: reader.u64()?, buffers: reader.rest() };
        match submit.buffers.len() % 8 {
            0 => Ok(submit),
            _ => Err(DecodeError::Invalid("list of command buffers")),
        }
    }

    /// The command buffers, in order.
    pub fn buffers(&self) -> impl Iterator<Item = Id<CommandBuffer>> + 'a {
        let (chunks, _) = self.buffers.as_chunks::<8>();
        chunks.iter().map(|bits| Id::from_bits(u64::from_le_bytes(*bits)))
    }
}

/// The guest drops an object: its name may be used again after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forget {
    /// The object's kind ([`crate::Kind::CODE`]).
    pub kind: u8,
    /// The object's name ([`Id::to_bits`]).
    pub id: u64,
}

impl Forget {
    /// Appends the frame.
    #[inline]
    pub fn put(&self, out: &mut Vec<u8>) {
        put(out, code::FORGET, |out| {
            out.push(self.kind);
            out.extend_from_slice(&self.id.to_le_bytes());
        });
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError`] where it is not nine bytes.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let forget = Self { kind: reader.u8()?, id: reader.u64()? };
        reader.finish()?;
        Ok(forget)
    }
}

/// Bytes of a mapped range, from the host, where there is no shared arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedBytes<'a> {
    /// The mapping's number.
    pub map: u64,
    /// Where in the mapped range they belong.
    pub at: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> MappedBytes<'a> {
    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        put(out, code::MAPPED_BYTES, |out| {
            out.extend_from_slice(&self.map.to_le_bytes());
            out.extend_from_slice(&self.at.to_le_bytes());
            out.extend_from_slice(self.bytes);
        });
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        Ok(Self { map: reader.u64()?, at: reader.u64()?, bytes: reader.rest() })
    }
}

/// Bytes from a stream, on their way to becoming frames.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl FrameBuffer {
    /// Where a transport appends what it received.
    pub fn space(&mut self) -> &mut Vec<u8> {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > MAX_INLINE_PAYLOAD {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        &mut self.bytes
    }

    /// The next whole frame: its code and body. Call until `None`, then receive more.
    ///
    /// # Errors
    /// [`DecodeError`] where no valid frame can begin like this.
    pub fn next_frame(&mut self) -> Result<Option<(u8, &[u8])>, DecodeError> {
        let rest = &self.bytes[self.start..];
        match split(rest, MAX_FRAME_BODY)? {
            Some((code, body, taken)) => {
                self.start += taken;
                Ok(Some((code, body)))
            }
            None => Ok(None),
        }
    }

    /// Whether part of a frame is here: its rest was still to come.
    pub fn is_mid_frame(&self) -> bool {
        self.start < self.bytes.len()
    }
}
