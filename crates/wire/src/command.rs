//! Commands that are not hot: object creation, mapping, destruction and questions, in postcard.
//!
//! Fields keep the names and meanings of `wgpu`'s descriptors. Handles and sizes in here are the
//! guest's word only.

use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use wgpu_types as wgt;

use crate::bounded::{Label, List, Text};
use crate::handle::{
    BindGroup, BindGroupLayout, Buffer, CommandBuffer, CommandEncoder, ComputePipeline, Device,
    ExternalTexture, PipelineLayout, QuerySet, RenderBundle, RenderPipeline, Sampler, ShaderModule, Texture,
    TextureView,
};
use crate::limits::*;
use crate::{Blob, Id};

/// One command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields are those of wgpu's descriptors")]
pub enum Command {
    /// Answered by [`crate::event::Reply::Barrier`] once everything before it is executed.
    Barrier {
        call: u32,
    },
    /// Answered by [`crate::event::Reply::Device`].
    RequestDevice {
        call: u32,
        adapter: u32,
        id: Id<Device>,
        desc: Box<DeviceRequest>,
    },
    /// Answered by [`crate::event::Reply::FormatFeatures`].
    FormatFeatures {
        call: u32,
        adapter: u32,
        format: wgt::TextureFormat,
    },
    /// Answered by [`crate::event::Reply::CompilationInfo`].
    CompilationInfo {
        call: u32,
        module: Id<ShaderModule>,
    },
    /// Answered by [`crate::Event::Done`] when the submission and all before it are finished.
    NotifyDone {
        device: Id<Device>,
        index: u64,
        call: u32,
    },
    CreateShaderModule {
        device: Id<Device>,
        id: Id<ShaderModule>,
        label: Label,
        source: ShaderSource,
    },
    CreateBindGroupLayout {
        device: Id<Device>,
        id: Id<BindGroupLayout>,
        label: Label,
        entries: List<wgt::BindGroupLayoutEntry, MAX_BINDINGS>,
    },
    CreateBindGroup {
        device: Id<Device>,
        id: Id<BindGroup>,
        label: Label,
        layout: Id<BindGroupLayout>,
        entries: List<BindGroupEntry, MAX_BINDINGS>,
    },
    CreatePipelineLayout {
        device: Id<Device>,
        id: Id<PipelineLayout>,
        label: Label,
        layouts: List<Option<Id<BindGroupLayout>>, MAX_BIND_GROUPS>,
        immediate_size: u32,
    },
    CreateComputePipeline {
        device: Id<Device>,
        id: Id<ComputePipeline>,
        desc: Box<ComputePipelineDesc>,
    },
    CreateRenderPipeline {
        device: Id<Device>,
        id: Id<RenderPipeline>,
        desc: Box<RenderPipelineDesc>,
    },
    /// Names the layout that a compute pipeline has at `index`.
    ComputeBindGroupLayout {
        pipeline: Id<ComputePipeline>,
        index: u32,
        id: Id<BindGroupLayout>,
    },
    /// Names the layout that a render pipeline has at `index`.
    RenderBindGroupLayout {
        pipeline: Id<RenderPipeline>,
        index: u32,
        id: Id<BindGroupLayout>,
    },
    CreateBuffer {
        device: Id<Device>,
        id: Id<Buffer>,
        desc: wgt::BufferDescriptor<Label>,
    },
    CreateTexture {
        device: Id<Device>,
        id: Id<Texture>,
        desc: wgt::TextureDescriptor<Label, List<wgt::TextureFormat, MAX_VIEW_FORMATS>>,
    },
    CreateTextureView {
        texture: Id<Texture>,
        id: Id<TextureView>,
        desc: wgt::TextureViewDescriptor<Label>,
    },
    CreateExternalTexture {
        device: Id<Device>,
        id: Id<ExternalTexture>,
        desc: Box<wgt::ExternalTextureDescriptor<Label>>,
        planes: List<Id<TextureView>, MAX_PLANES>,
    },
    CreateSampler {
        device: Id<Device>,
        id: Id<Sampler>,
        desc: wgt::SamplerDescriptor<Label>,
    },
    CreateQuerySet {
        device: Id<Device>,
        id: Id<QuerySet>,
        desc: wgt::QuerySetDescriptor<Label>,
    },
    CreateCommandEncoder {
        device: Id<Device>,
        id: Id<CommandEncoder>,
        label: Label,
    },
    /// Ends a recording; the encoder's name is free again.
    FinishEncoder {
        encoder: Id<CommandEncoder>,
        id: Id<CommandBuffer>,
    },
    CreateRenderBundle {
        device: Id<Device>,
        id: Id<RenderBundle>,
        desc: Box<RenderBundleDesc>,
    },
    MapBuffer {
        buffer: Id<Buffer>,
        map: u64,
        write: bool,
        offset: u64,
        size: u64,
    },
    UnmapBuffer {
        buffer: Id<Buffer>,
    },
    /// Writes the payload staged just before to a texture.
    WriteTexture {
        device: Id<Device>,
        destination: TextureLocation,
        layout: wgt::TexelCopyBufferLayout,
        size: wgt::Extent3d,
        staged: u64,
    },
    DestroyBuffer {
        buffer: Id<Buffer>,
    },
    DestroyTexture {
        texture: Id<Texture>,
    },
    DestroyExternalTexture {
        texture: Id<ExternalTexture>,
    },
    DestroyQuerySet {
        query_set: Id<QuerySet>,
    },
    DestroyDevice {
        device: Id<Device>,
    },
}

/// What a guest wants of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// Label.
    pub label: Label,
    /// Features that must be there.
    pub features: wgt::Features,
    /// Limits that must be met.
    pub limits: wgt::Limits,
    /// Whether small memory use matters more than speed.
    pub low_memory: bool,
}

/// Shader source that naga parses on the host, always with its run-time checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ShaderSource {
    /// WGSL text.
    Wgsl(Text<MAX_SHADER_BYTES>),
    /// SPIR-V words, little-endian.
    SpirV(Blob<MAX_SHADER_BYTES>),
}

/// One entry of a bind group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BindGroupEntry {
    /// Binding number.
    pub binding: u32,
    /// What is bound.
    pub resource: BindingResource,
}

/// What a bind group entry binds. Binding arrays are not offered: naga does not check indices into them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "variants are those of wgpu::BindingResource")]
pub enum BindingResource {
    Buffer(BufferBinding),
    Sampler(Id<Sampler>),
    TextureView(Id<TextureView>),
    ExternalTexture(Id<ExternalTexture>),
}

/// Part of a buffer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BufferBinding {
    /// The buffer.
    pub buffer: Id<Buffer>,
    /// First byte.
    pub offset: u64,
    /// Bytes; nothing for the rest of the buffer.
    pub size: Option<std::num::NonZeroU64>,
}

/// A programmable stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Shader module.
    pub module: Id<ShaderModule>,
    /// Entry point; nothing where the module has just one.
    pub entry_point: Option<Text<MAX_NAME_BYTES>>,
    /// Pipeline-overridable constants.
    pub constants: List<(Text<MAX_NAME_BYTES>, f64), MAX_CONSTANTS>,
    /// Whether workgroup memory starts as zero. Hosts zero it always: it may hold another's data.
    pub zero_initialize_workgroup_memory: bool,
}

/// A compute pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputePipelineDesc {
    /// Label.
    pub label: Label,
    /// Layout; nothing to derive it.
    pub layout: Option<Id<PipelineLayout>>,
    /// The compute stage.
    pub stage: Stage,
}

/// A vertex buffer's layout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VertexBufferLayout {
    /// Bytes between elements.
    pub array_stride: u64,
    /// Per vertex or per instance.
    pub step_mode: wgt::VertexStepMode,
    /// The attributes.
    pub attributes: List<wgt::VertexAttribute, MAX_VERTEX_ATTRIBUTES>,
}

/// A render pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenderPipelineDesc {
    /// Label.
    pub label: Label,
    /// Layout; nothing to derive it.
    pub layout: Option<Id<PipelineLayout>>,
    /// The vertex stage.
    pub vertex: Stage,
    /// Its buffers.
    pub buffers: List<Option<VertexBufferLayout>, MAX_VERTEX_BUFFERS>,
    /// How vertices become primitives.
    pub primitive: wgt::PrimitiveState,
    /// Depth and stencil tests.
    pub depth_stencil: Option<wgt::DepthStencilState>,
    /// Multisampling.
    pub multisample: wgt::MultisampleState,
    /// The fragment stage and its targets.
    pub fragment: Option<(Stage, List<Option<wgt::ColorTargetState>, MAX_COLOR_ATTACHMENTS>)>,
    /// Views rendered at once.
    pub multiview_mask: Option<NonZeroU32>,
}

/// A render bundle, recorded whole by the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenderBundleDesc {
    /// The encoder's label.
    pub encoder_label: Label,
    /// The bundle's label.
    pub label: Label,
    /// Formats of the colour attachments.
    pub color_formats: List<Option<wgt::TextureFormat>, MAX_COLOR_ATTACHMENTS>,
    /// The depth-stencil attachment.
    pub depth_stencil: Option<wgt::RenderBundleDepthStencil>,
    /// Samples per pixel.
    pub sample_count: u32,
    /// Views rendered at once.
    pub multiview: Option<NonZeroU32>,
    /// The recording: [`crate::Op`]s, one after the other.
    pub ops: Blob<{ 4 * 1024 * 1024 }>,
}

/// A place in a texture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TextureLocation {
    /// The texture.
    pub texture: Id<Texture>,
    /// Mip level.
    pub mip_level: u32,
    /// First texel.
    pub origin: wgt::Origin3d,
    /// Aspect.
    pub aspect: wgt::TextureAspect,
}

/// A place in a buffer that holds texels.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct BufferLocation {
    /// The buffer.
    pub buffer: Id<Buffer>,
    /// How texels are laid out.
    pub layout: wgt::TexelCopyBufferLayout,
}

/// What a render pass begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenderPassDesc {
    /// Label.
    pub label: Label,
    /// Colour attachments.
    pub color: List<Option<ColorAttachment>, MAX_COLOR_ATTACHMENTS>,
    /// Depth-stencil attachment.
    pub depth_stencil: Option<DepthStencilAttachment>,
    /// Timestamps.
    pub timestamps: Option<TimestampWrites>,
    /// Query set of occlusion queries.
    pub occlusion_query_set: Option<Id<QuerySet>>,
    /// Views rendered at once.
    pub multiview_mask: Option<NonZeroU32>,
}

/// A colour attachment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColorAttachment {
    /// Target.
    pub view: Id<TextureView>,
    /// Slice of a 3D target.
    pub depth_slice: Option<u32>,
    /// Where samples are resolved to.
    pub resolve_target: Option<Id<TextureView>>,
    /// Clear value, or nothing to load. (`LoadOp::DontCare` would show old memory: it clears here.)
    pub clear: Option<wgt::Color>,
    /// Whether the result is kept.
    pub store: bool,
}

/// A depth-stencil attachment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DepthStencilAttachment {
    /// Target.
    pub view: Id<TextureView>,
    /// Depth: clear value or load, and whether it is kept; nothing where read-only.
    pub depth: Option<(Option<f32>, bool)>,
    /// Stencil likewise.
    pub stencil: Option<(Option<u32>, bool)>,
}

/// Timestamps at a pass's ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimestampWrites {
    /// Query set.
    pub query_set: Id<QuerySet>,
    /// Index for the beginning.
    pub beginning: Option<u32>,
    /// Index for the end.
    pub end: Option<u32>,
}

/// What a compute pass begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputePassDesc {
    /// Label.
    pub label: Label,
    /// Timestamps.
    pub timestamps: Option<TimestampWrites>,
}

/// Hints on how resources are used next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transitions {
    /// Buffers and their coming uses.
    pub buffers: List<(Id<Buffer>, wgt::BufferUses), MAX_TRANSITIONS>,
    /// Textures, the parts meant, and their coming uses.
    pub textures: List<(Id<Texture>, Option<wgt::TextureSelector>, wgt::TextureUses), MAX_TRANSITIONS>,
    /// Texture views likewise (compute passes).
    pub views: List<(Id<TextureView>, Option<wgt::TextureSelector>, wgt::TextureUses), MAX_TRANSITIONS>,
}
