//! `wgpu::CommandEncoder`: records here; recordings travel in large pieces.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pontoon_wire::bounded::label;
use pontoon_wire::command::{
    BufferLocation, ColorAttachment, ComputePassDesc, DepthStencilAttachment, RenderPassDesc,
    TimestampWrites, Transitions,
};
use pontoon_wire::frame::Encode;
use pontoon_wire::ops::Coded;
use pontoon_wire::{Command, List, Op, handle as kind};
use wgpu::custom::*;

use crate::buffer::{buffer, dispatched};
use crate::compute::ClientComputePass;
use crate::device::ClientDevice;
use crate::ids::Object;
use crate::objects::*;
use crate::queue::location;
use crate::render::ClientRenderPass;

/// Bytes of recording that are sent before the encoder is finished.
const PIECE: usize = 64 * 1024;
/// A label of a debug group longer than this is cut.
const MAX_MARKER: usize = 1024;

/// An object that a recording uses, kept until the host has its name.
pub(crate) type Kept = Arc<dyn std::any::Any + Send + Sync>;

/// Operations, and what they use.
#[derive(Default)]
pub(crate) struct Recording {
    pub ops: Vec<u8>,
    pub kept: Vec<Kept>,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.ops.len())
    }
}

impl Recording {
    #[inline]
    pub fn op(&mut self, op: &Op<'_>) {
        op.put(&mut self.ops);
    }

    /// Whether it is time to send it.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.ops.len() > PIECE
    }

    /// Keeps an object alive that an operation names.
    #[inline]
    pub fn keep<K: pontoon_wire::Kind + Send + Sync>(&mut self, object: &Arc<Object<K>>) {
        let address = Arc::as_ptr(object).cast::<()>();
        let known = self.kept.iter().rev().take(4).any(|kept| Arc::as_ptr(kept).cast::<()>() == address);
        if !known {
            self.kept.push(object.clone());
        }
    }
}

/// A marker's text, short enough for the wire.
pub(crate) fn marker(text: &str) -> &str {
    match text.len() > MAX_MARKER {
        true => &text[..text.floor_char_boundary(MAX_MARKER)],
        false => text,
    }
}

/// What an encoder and its passes share.
#[derive(Debug)]
pub(crate) struct EncoderCore {
    device: Arc<ClientDevice>,
    object: Arc<Object<kind::CommandEncoder>>,
    recording: Mutex<Recording>,
    finished: AtomicBool,
}

impl EncoderCore {
    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a pass's recording over, and sends what has become long enough.
    ///
    /// A pass that outlives its encoder's `finish` is an error, as locally.
    pub fn append(&self, pass: &mut Recording, end: &str) {
        if self.finished.load(Ordering::Relaxed) {
            return self.device.invalid(end, None, "Encoding must not have ended");
        }
        let mut recording = self.lock();
        recording.ops.append(&mut pass.ops);
        recording.kept.append(&mut pass.kept);
        self.send_over(&mut recording, PIECE);
    }

    fn send_over(&self, recording: &mut Recording, len: usize) {
        if recording.ops.len() > len {
            let encoder = self.object.id;
            self.object.session.send(|out| Encode { encoder, ops: &recording.ops }.put(out));
            recording.ops.clear();
            recording.kept.clear();
        }
    }
}

#[derive(Debug)]
pub(crate) struct ClientEncoder {
    core: Arc<EncoderCore>,
}

#[derive(Debug)]
pub(crate) struct ClientCommandBuffer {
    pub object: Arc<Object<kind::CommandBuffer>>,
}

impl CommandBufferInterface for ClientCommandBuffer {}

impl ClientEncoder {
    pub fn new(device: &Arc<ClientDevice>, name: Option<&str>) -> Self {
        let (id, label) = (device.id(), label(name));
        let object = device.session().create(|encoder| Command::CreateCommandEncoder {
            device: id,
            id: encoder,
            label,
        });
        let core = EncoderCore {
            device: device.clone(),
            object,
            recording: Mutex::default(),
            finished: AtomicBool::new(false),
        };
        Self { core: Arc::new(core) }
    }

    fn record(&self, record: impl FnOnce(&mut Recording)) {
        let mut recording = self.core.lock();
        record(&mut recording);
        self.core.send_over(&mut recording, PIECE);
    }
}

fn buffer_location(place: &wgpu::TexelCopyBufferInfo<'_>) -> Coded<BufferLocation> {
    Coded(Box::new(BufferLocation { buffer: buffer(place.buffer).id, layout: place.layout }))
}

impl CommandEncoderInterface for ClientEncoder {
    fn copy_buffer_to_buffer(
        &self,
        source: &DispatchBuffer,
        source_offset: u64,
        destination: &DispatchBuffer,
        destination_offset: u64,
        size: Option<u64>,
    ) {
        let (from, to) = (&dispatched(source).object, &dispatched(destination).object);
        self.record(|recording| {
            recording.keep(from);
            recording.keep(to);
            let (source, destination) = (from.id, to.id);
            recording.op(&Op::CopyBufferToBuffer {
                source,
                source_offset,
                destination,
                destination_offset,
                size,
            });
        });
    }

    fn copy_buffer_to_texture(
        &self,
        source: wgpu::TexelCopyBufferInfo<'_>,
        destination: wgpu::TexelCopyTextureInfo<'_>,
        size: wgpu::Extent3d,
    ) {
        self.record(|recording| {
            recording.keep(buffer(source.buffer));
            recording.keep(texture(destination.texture));
            let destination = Coded(Box::new(location(&destination)));
            let size = Coded(Box::new(size));
            recording.op(&Op::CopyBufferToTexture { source: buffer_location(&source), destination, size });
        });
    }

    fn copy_texture_to_buffer(
        &self,
        source: wgpu::TexelCopyTextureInfo<'_>,
        destination: wgpu::TexelCopyBufferInfo<'_>,
        size: wgpu::Extent3d,
    ) {
        self.record(|recording| {
            recording.keep(texture(source.texture));
            recording.keep(buffer(destination.buffer));
            let source = Coded(Box::new(location(&source)));
            let size = Coded(Box::new(size));
            recording.op(&Op::CopyTextureToBuffer {
                source,
                destination: buffer_location(&destination),
                size,
            });
        });
    }

    fn copy_texture_to_texture(
        &self,
        source: wgpu::TexelCopyTextureInfo<'_>,
        destination: wgpu::TexelCopyTextureInfo<'_>,
        size: wgpu::Extent3d,
    ) {
        self.record(|recording| {
            recording.keep(texture(source.texture));
            recording.keep(texture(destination.texture));
            recording.op(&Op::CopyTextureToTexture {
                source: Coded(Box::new(location(&source))),
                destination: Coded(Box::new(location(&destination))),
                size: Coded(Box::new(size)),
            });
        });
    }

    fn begin_compute_pass(&self, desc: &wgpu::ComputePassDescriptor<'_>) -> DispatchComputePass {
        let timestamps = desc.timestamp_writes.as_ref().map(|writes| TimestampWrites {
            query_set: query_set(writes.query_set).id,
            beginning: writes.beginning_of_pass_write_index,
            end: writes.end_of_pass_write_index,
        });
        let wire = ComputePassDesc { label: label(desc.label), timestamps };
        self.record(|recording| {
            if let Some(writes) = &desc.timestamp_writes {
                recording.keep(query_set(writes.query_set));
            }
            recording.op(&Op::BeginComputePass { desc: Coded(Box::new(wire)) });
        });
        DispatchComputePass::custom(ClientComputePass::new(&self.core))
    }

    fn begin_render_pass(&self, desc: &wgpu::RenderPassDescriptor<'_>) -> DispatchRenderPass {
        self.record(|recording| {
            let wire = render_pass_desc(recording, desc);
            recording.op(&Op::BeginRenderPass { desc: Coded(Box::new(wire)) });
        });
        DispatchRenderPass::custom(ClientRenderPass::new(&self.core))
    }

    fn finish(&mut self) -> DispatchCommandBuffer {
        let mut recording = self.core.lock();
        self.core.send_over(&mut recording, 0);
        drop(recording);
        self.core.finished.store(true, Ordering::Relaxed);
        let encoder = self.core.object.id;
        self.core.object.use_up();
        let object = self.core.object.session.create(|id| Command::FinishEncoder { encoder, id });
        DispatchCommandBuffer::custom(ClientCommandBuffer { object })
    }

    fn clear_texture(&self, target: &DispatchTexture, range: &wgpu::ImageSubresourceRange) {
        let object = dispatched_texture(target);
        self.record(|recording| {
            recording.keep(object);
            recording.op(&Op::ClearTexture { texture: object.id, range: Coded(Box::new(*range)) });
        });
    }

    fn clear_buffer(&self, target: &DispatchBuffer, offset: u64, size: Option<u64>) {
        let object = &dispatched(target).object;
        self.record(|recording| {
            recording.keep(object);
            recording.op(&Op::ClearBuffer { buffer: object.id, offset, size });
        });
    }

    fn insert_debug_marker(&self, label: &str) {
        self.record(|recording| recording.op(&Op::InsertDebugMarker { label: marker(label) }));
    }

    fn push_debug_group(&self, label: &str) {
        self.record(|recording| recording.op(&Op::PushDebugGroup { label: marker(label) }));
    }

    fn pop_debug_group(&self) {
        self.record(|recording| recording.op(&Op::PopDebugGroup {}));
    }

    fn write_timestamp(&self, set: &DispatchQuerySet, index: u32) {
        let object = dispatched_query_set(set);
        self.record(|recording| {
            recording.keep(object);
            recording.op(&Op::WriteTimestamp { query_set: object.id, index });
        });
    }

    fn resolve_query_set(
        &self,
        set: &DispatchQuerySet,
        first: u32,
        count: u32,
        destination: &DispatchBuffer,
        destination_offset: u64,
    ) {
        let (set, target) = (dispatched_query_set(set), &dispatched(destination).object);
        self.record(|recording| {
            recording.keep(set);
            recording.keep(target);
            let (query_set, destination) = (set.id, target.id);
            recording.op(&Op::ResolveQuerySet { query_set, first, count, destination, destination_offset });
        });
    }

    fn mark_acceleration_structures_built<'a>(
        &self,
        _: &mut dyn Iterator<Item = &'a wgpu::Blas>,
        _: &mut dyn Iterator<Item = &'a wgpu::Tlas>,
    ) {
        log::error!("mark_acceleration_structures_built: {}", crate::unsupported::RAY_TRACING);
    }

    fn build_acceleration_structures<'a>(
        &self,
        _: &mut dyn Iterator<Item = &'a wgpu::BlasBuildEntry<'a>>,
        _: &mut dyn Iterator<Item = &'a wgpu::Tlas>,
    ) {
        log::error!("build_acceleration_structures: {}", crate::unsupported::RAY_TRACING);
    }

    fn transition_resources<'a>(
        &mut self,
        buffers: &mut dyn Iterator<Item = wgpu::BufferTransition<&'a DispatchBuffer>>,
        textures: &mut dyn Iterator<Item = wgpu::TextureTransition<&'a DispatchTexture>>,
    ) {
        self.record(|recording| {
            let buffers = List::cut(buffers.map(|hint| {
                let object = &dispatched(hint.buffer).object;
                recording.kept.push(object.clone());
                (object.id, hint.state)
            }));
            let textures = List::cut(textures.map(|hint| {
                let object = dispatched_texture(hint.texture);
                recording.kept.push(object.clone());
                (object.id, hint.selector, hint.state)
            }));
            let transitions = Coded(Box::new(Transitions { buffers, textures, views: List::default() }));
            recording.op(&Op::TransitionResources { transitions });
        });
    }
}

/// A clear value, or nothing to load. `DontCare` would show what was in the memory before: it clears.
fn clear<V: Copy + Default>(load: wgpu::LoadOp<V>) -> Option<V> {
    match load {
        wgpu::LoadOp::Clear(value) => Some(value),
        wgpu::LoadOp::Load => None,
        wgpu::LoadOp::DontCare(_) => Some(V::default()),
    }
}

fn render_pass_desc(recording: &mut Recording, desc: &wgpu::RenderPassDescriptor<'_>) -> RenderPassDesc {
    let mut view = |view: &wgpu::TextureView| {
        let object = texture_view(view);
        recording.keep(object);
        object.id
    };
    let color = List::cut(desc.color_attachments.iter().map(|target| {
        target.as_ref().map(|target| ColorAttachment {
            view: view(target.view),
            depth_slice: target.depth_slice,
            resolve_target: target.resolve_target.map(&mut view),
            clear: clear(target.ops.load),
            store: target.ops.store == wgpu::StoreOp::Store,
        })
    }));
    let depth_stencil = desc.depth_stencil_attachment.as_ref().map(|target| DepthStencilAttachment {
        view: view(target.view),
        depth: target.depth_ops.map(|ops| (clear(ops.load), ops.store == wgpu::StoreOp::Store)),
        stencil: target.stencil_ops.map(|ops| (clear(ops.load), ops.store == wgpu::StoreOp::Store)),
    });
    let mut set = |set: &wgpu::QuerySet| {
        let object = query_set(set);
        recording.keep(object);
        object.id
    };
    RenderPassDesc {
        label: label(desc.label),
        color,
        depth_stencil,
        timestamps: desc.timestamp_writes.as_ref().map(|writes| TimestampWrites {
            query_set: set(writes.query_set),
            beginning: writes.beginning_of_pass_write_index,
            end: writes.end_of_pass_write_index,
        }),
        occlusion_query_set: desc.occlusion_query_set.map(&mut set),
        multiview_mask: desc.multiview_mask,
    }
}
