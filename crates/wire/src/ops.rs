//! The hot commands: what encoders, passes and bundles record, in compact fixed layouts.
//!
//! An operation is one code byte and its fields in order, little-endian, without padding. Optional
//! values are one byte (0 or 1) and the value. Slices are a `u32` length and the bytes.

use crate::command::{BufferLocation, ComputePassDesc, RenderPassDesc, TextureLocation, Transitions};
use crate::handle::{BindGroup, Buffer, ComputePipeline, QuerySet, RenderBundle, RenderPipeline, Texture};
use crate::{DecodeError, Id, Reader};
use wgpu_types as wgt;

/// A field with a fixed layout.
pub trait Field<'a>: Sized {
    /// Appends the field.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads the field.
    ///
    /// # Errors
    /// [`DecodeError`] where it is cut or not valid.
    fn take(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
}

macro_rules! number_fields {
    ($($number:ty),*) => {$(
        impl Field<'_> for $number {
            #[inline]
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            #[inline]
            fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self::from_le_bytes(reader.array()?))
            }
        }
    )*};
}
number_fields!(u8, u32, i32, u64, f32, f64);

impl<K> Field<'_> for Id<K> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        self.to_bits().put(out);
    }
    #[inline]
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from_bits(reader.u64()?))
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.put(out);
            }
        }
    }
    #[inline]
    fn take(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(None),
            1 => T::take(reader).map(Some),
            _ => Err(DecodeError::Invalid("option")),
        }
    }
}

impl<'a> Field<'a> for &'a [u8] {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self);
    }
    #[inline]
    fn take(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len = reader.u32()?;
        reader.bytes(len as usize)
    }
}

impl<'a> Field<'a> for &'a str {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_bytes().put(out);
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let bytes = <&[u8]>::take(reader)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid("text"))
    }
}

/// A run of 32-bit numbers, unaligned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Words<'a> {
    /// As recorded.
    Native(&'a [u32]),
    /// As read.
    Wire(&'a [[u8; 4]]),
}

impl Words<'_> {
    /// The numbers.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (native, wire): (&[u32], &[[u8; 4]]) = match self {
            Self::Native(words) => (words, &[]),
            Self::Wire(words) => (&[], words),
        };
        native.iter().copied().chain(wire.iter().map(|word| u32::from_le_bytes(*word)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Native(words) => words.len(),
            Self::Wire(words) => words.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Field<'a> for Words<'a> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        self.iter().for_each(|word| word.put(out));
    }
    #[inline]
    fn take(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len = reader.u32()? as usize;
        let bytes = len.checked_mul(4).ok_or(DecodeError::Invalid("length"))?;
        Ok(Self::Wire(reader.bytes(bytes)?.as_chunks().0))
    }
}

/// A run of names.
#[derive(Debug, Clone)]
pub enum Ids<'a, K> {
    /// As recorded.
    Native(&'a [Id<K>]),
    /// As read.
    Wire(&'a [[u8; 8]]),
}

impl<K> Ids<'_, K> {
    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = Id<K>> + '_ {
        let (native, wire): (&[Id<K>], &[[u8; 8]]) = match self {
            Self::Native(ids) => (ids, &[]),
            Self::Wire(ids) => (&[], ids),
        };
        native.iter().copied().chain(wire.iter().map(|bits| Id::from_bits(u64::from_le_bytes(*bits))))
    }
}

impl<'a, K> Field<'a> for Ids<'a, K> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.iter().count() as u32).put(out);
        self.iter().for_each(|id| id.put(out));
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len = reader.u32()? as usize;
        let bytes = len.checked_mul(8).ok_or(DecodeError::Invalid("length"))?;
        Ok(Self::Wire(reader.bytes(bytes)?.as_chunks().0))
    }
}

/// A descriptor in postcard within an operation, decoded when it is resolved.
#[derive(Debug, Clone)]
pub struct Coded<T>(pub Box<T>);

impl<'a, T: serde::Serialize + serde::Deserialize<'a>> Field<'a> for Coded<T> {
    fn put(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        crate::encode(&self.0, out);
        let len = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        crate::decode(<&[u8]>::take(reader)?).map(|value| Self(Box::new(value)))
    }
}

impl Field<'_> for wgt::IndexFormat {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Uint16 => 0,
            Self::Uint32 => 1,
        });
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Self::Uint16),
            1 => Ok(Self::Uint32),
            _ => Err(DecodeError::Invalid("index format")),
        }
    }
}

macro_rules! ops {
    ($($(#[$doc:meta])* $code:literal $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        /// One recorded operation. Names and fields are those of `wgpu`'s encoders.
        #[derive(Debug, Clone)]
        #[allow(missing_docs, reason = "fields are the arguments of wgpu's methods")]
        pub enum Op<'a> {
            $($(#[$doc])* $name { $($field: $type),* },)*
        }

        impl<'a> Op<'a> {
            /// Appends the operation.
            #[inline]
            pub fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name { $($field),* } => {
                        out.push($code);
                        $(Field::put($field, out);)*
                    })*
                }
            }

            /// Reads one operation.
            ///
            /// # Errors
            /// [`DecodeError`] where the code is unknown or a field is cut or not valid.
            #[inline]
            pub fn take(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                match reader.u8()? {
                    $($code => Ok(Self::$name { $($field: Field::take(reader)?),* }),)*
                    code => Err(DecodeError::UnknownCode { what: "operation", code: code.into() }),
                }
            }

            /// The operation's name, for errors.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => stringify!($name),)*
                }
            }
        }
    };
}

ops! {
    1 SetComputePipeline { pipeline: Id<ComputePipeline> }
    2 SetRenderPipeline { pipeline: Id<RenderPipeline> }
    3 SetBindGroup { index: u32, group: Option<Id<BindGroup>>, offsets: Words<'a> }
    4 SetImmediates { offset: u32, data: &'a [u8] }
    5 Dispatch { x: u32, y: u32, z: u32 }
    6 DispatchIndirect { buffer: Id<Buffer>, offset: u64 }
    7 SetIndexBuffer { buffer: Id<Buffer>, format: wgt::IndexFormat, offset: u64, size: Option<u64> }
    8 SetVertexBuffer { slot: u32, buffer: Option<Id<Buffer>>, offset: u64, size: Option<u64> }
    9 SetBlendConstant { r: f64, g: f64, b: f64, a: f64 }
    10 SetScissorRect { x: u32, y: u32, width: u32, height: u32 }
    11 SetViewport { x: f32, y: f32, width: f32, height: f32, min_depth: f32, max_depth: f32 }
    12 SetStencilReference { reference: u32 }
    13 Draw { first_vertex: u32, end_vertex: u32, first_instance: u32, end_instance: u32 }
    14 DrawIndexed {
        first_index: u32, end_index: u32, base_vertex: i32, first_instance: u32, end_instance: u32,
    }
    15 DrawIndirect { buffer: Id<Buffer>, offset: u64 }
    16 DrawIndexedIndirect { buffer: Id<Buffer>, offset: u64 }
    17 MultiDrawIndirect { buffer: Id<Buffer>, offset: u64, count: u32 }
    18 MultiDrawIndexedIndirect { buffer: Id<Buffer>, offset: u64, count: u32 }
    19 MultiDrawIndirectCount {
        buffer: Id<Buffer>, offset: u64, count_buffer: Id<Buffer>, count_offset: u64, max_count: u32,
    }
    20 MultiDrawIndexedIndirectCount {
        buffer: Id<Buffer>, offset: u64, count_buffer: Id<Buffer>, count_offset: u64, max_count: u32,
    }
    21 BeginOcclusionQuery { index: u32 }
    22 EndOcclusionQuery {}
    23 BeginPipelineStatisticsQuery { query_set: Id<QuerySet>, index: u32 }
    24 EndPipelineStatisticsQuery {}
    25 ExecuteBundles { bundles: Ids<'a, RenderBundle> }
    26 InsertDebugMarker { label: &'a str }
    27 PushDebugGroup { label: &'a str }
    28 PopDebugGroup {}
    29 WriteTimestamp { query_set: Id<QuerySet>, index: u32 }
    30 BeginComputePass { desc: Coded<ComputePassDesc> }
    31 BeginRenderPass { desc: Coded<RenderPassDesc> }
    /// Ends the pass that is open.
    32 EndPass {}
    33 CopyBufferToBuffer {
        source: Id<Buffer>, source_offset: u64, destination: Id<Buffer>, destination_offset: u64,
        size: Option<u64>,
    }
    34 CopyBufferToTexture {
        source: Coded<BufferLocation>, destination: Coded<TextureLocation>, size: Coded<wgt::Extent3d>,
    }
    35 CopyTextureToBuffer {
        source: Coded<TextureLocation>, destination: Coded<BufferLocation>, size: Coded<wgt::Extent3d>,
    }
    36 CopyTextureToTexture {
        source: Coded<TextureLocation>, destination: Coded<TextureLocation>, size: Coded<wgt::Extent3d>,
    }
    37 ClearTexture { texture: Id<Texture>, range: Coded<wgt::ImageSubresourceRange> }
    38 ClearBuffer { buffer: Id<Buffer>, offset: u64, size: Option<u64> }
    39 ResolveQuerySet {
        query_set: Id<QuerySet>, first: u32, count: u32, destination: Id<Buffer>, destination_offset: u64,
    }
    40 TransitionResources { transitions: Coded<Transitions> }
}
