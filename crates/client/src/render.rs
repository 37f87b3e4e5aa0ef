//! `wgpu::RenderPass`.

use std::ops::Range;
use std::sync::Arc;

use pontoon_wire::Op;
use pontoon_wire::ops::{Ids, Words};
use wgpu::custom::*;

use crate::buffer::dispatched;
use crate::encoder::{EncoderCore, Recording, marker};
use crate::objects::*;
use crate::unsupported::MESH_SHADERS;

/// A pass records by itself, without a lock; its encoder takes the recording over when it ends.
#[derive(Debug)]
pub(crate) struct ClientRenderPass {
    core: Arc<EncoderCore>,
    recording: Recording,
}

impl ClientRenderPass {
    pub fn new(core: &Arc<EncoderCore>) -> Self {
        Self { core: core.clone(), recording: Recording::default() }
    }

    /// Records an operation that reads one buffer.
    fn with_buffer(
        &mut self,
        buffer: &DispatchBuffer,
        op: impl FnOnce(crate::render::BufferId) -> Op<'static>,
    ) {
        let object = &dispatched(buffer).object;
        self.recording.keep(object);
        self.recording.op(&op(object.id));
        self.drawn();
    }
}

type BufferId = pontoon_wire::Id<pontoon_wire::handle::Buffer>;

/// The operations that passes and bundles share.
pub(crate) mod shared {
    use super::*;

    pub fn set_pipeline(recording: &mut Recording, pipeline: &DispatchRenderPipeline) {
        let object = dispatched_render_pipeline(pipeline);
        recording.keep(object);
        recording.op(&Op::SetRenderPipeline { pipeline: object.id });
    }

    pub fn set_bind_group(
        recording: &mut Recording,
        index: u32,
        group: Option<&DispatchBindGroup>,
        offsets: &[u32],
    ) {
        let object = group.map(dispatched_bind_group);
        if let Some(object) = object {
            recording.keep(object);
        }
        let group = object.map(|object| object.id);
        recording.op(&Op::SetBindGroup { index, group, offsets: Words::Native(offsets) });
    }

    pub fn set_index_buffer(
        recording: &mut Recording,
        buffer: &DispatchBuffer,
        format: wgpu::IndexFormat,
        offset: u64,
        size: Option<wgpu::BufferSize>,
    ) {
        let object = &dispatched(buffer).object;
        recording.keep(object);
        let size = size.map(wgpu::BufferSize::get);
        recording.op(&Op::SetIndexBuffer { buffer: object.id, format, offset, size });
    }

    pub fn set_vertex_buffer(
        recording: &mut Recording,
        slot: u32,
        buffer: Option<&DispatchBuffer>,
        offset: u64,
        size: Option<wgpu::BufferSize>,
    ) {
        let object = buffer.map(|buffer| &dispatched(buffer).object);
        if let Some(object) = object {
            recording.keep(object);
        }
        let (buffer, size) = (object.map(|object| object.id), size.map(wgpu::BufferSize::get));
        recording.op(&Op::SetVertexBuffer { slot, buffer, offset, size });
    }

    // A range that ends before it begins is empty, as it is everywhere in Rust.
    pub fn draw(recording: &mut Recording, vertices: Range<u32>, instances: Range<u32>) {
        recording.op(&Op::Draw {
            first_vertex: vertices.start,
            end_vertex: vertices.end.max(vertices.start),
            first_instance: instances.start,
            end_instance: instances.end.max(instances.start),
        });
    }

    pub fn draw_indexed(
        recording: &mut Recording,
        indices: Range<u32>,
        base_vertex: i32,
        instances: Range<u32>,
    ) {
        recording.op(&Op::DrawIndexed {
            first_index: indices.start,
            end_index: indices.end.max(indices.start),
            base_vertex,
            first_instance: instances.start,
            end_instance: instances.end.max(instances.start),
        });
    }

    pub fn draw_indirect(recording: &mut Recording, buffer: &DispatchBuffer, offset: u64) {
        let object = &dispatched(buffer).object;
        recording.keep(object);
        recording.op(&Op::DrawIndirect { buffer: object.id, offset });
    }

    pub fn draw_indexed_indirect(recording: &mut Recording, buffer: &DispatchBuffer, offset: u64) {
        let object = &dispatched(buffer).object;
        recording.keep(object);
        recording.op(&Op::DrawIndexedIndirect { buffer: object.id, offset });
    }
}

impl ClientRenderPass {
    /// Hands a long recording over in time: a frame has a largest size.
    #[inline]
    fn drawn(&mut self) {
        if self.recording.is_long() {
            self.core.append(&mut self.recording, "RenderPass::end");
        }
    }
}

impl Drop for ClientRenderPass {
    fn drop(&mut self) {
        self.recording.op(&Op::EndPass {});
        self.core.append(&mut self.recording, "RenderPass::end");
    }
}

impl RenderPassInterface for ClientRenderPass {
    fn set_pipeline(&mut self, pipeline: &DispatchRenderPipeline) {
        shared::set_pipeline(&mut self.recording, pipeline);
    }

    fn set_bind_group(&mut self, index: u32, group: Option<&DispatchBindGroup>, offsets: &[u32]) {
        shared::set_bind_group(&mut self.recording, index, group, offsets);
        self.drawn();
    }

    fn set_index_buffer(
        &mut self,
        buffer: &DispatchBuffer,
        format: wgpu::IndexFormat,
        offset: u64,
        size: Option<wgpu::BufferSize>,
    ) {
        shared::set_index_buffer(&mut self.recording, buffer, format, offset, size);
    }

    fn set_vertex_buffer(
        &mut self,
        slot: u32,
        buffer: Option<&DispatchBuffer>,
        offset: u64,
        size: Option<wgpu::BufferSize>,
    ) {
        shared::set_vertex_buffer(&mut self.recording, slot, buffer, offset, size);
    }

    fn set_immediates(&mut self, offset: u32, data: &[u8]) {
        self.recording.op(&Op::SetImmediates { offset, data });
    }

    fn set_blend_constant(&mut self, color: wgpu::Color) {
        self.recording.op(&Op::SetBlendConstant { r: color.r, g: color.g, b: color.b, a: color.a });
    }

    fn set_scissor_rect(&mut self, x: u32, y: u32, width: u32, height: u32) {
        self.recording.op(&Op::SetScissorRect { x, y, width, height });
    }

    fn set_viewport(&mut self, x: f32, y: f32, width: f32, height: f32, min_depth: f32, max_depth: f32) {
        self.recording.op(&Op::SetViewport { x, y, width, height, min_depth, max_depth });
    }

    fn set_stencil_reference(&mut self, reference: u32) {
        self.recording.op(&Op::SetStencilReference { reference });
    }

    fn draw(&mut self, vertices: Range<u32>, instances: Range<u32>) {
        shared::draw(&mut self.recording, vertices, instances);
        self.drawn();
    }

    fn draw_indexed(&mut self, indices: Range<u32>, base_vertex: i32, instances: Range<u32>) {
        shared::draw_indexed(&mut self.recording, indices, base_vertex, instances);
        self.drawn();
    }

    fn draw_mesh_tasks(&mut self, _: u32, _: u32, _: u32) {
        log::error!("draw_mesh_tasks: {MESH_SHADERS}");
    }

    fn draw_indirect(&mut self, buffer: &DispatchBuffer, offset: u64) {
        shared::draw_indirect(&mut self.recording, buffer, offset);
    }

    fn draw_indexed_indirect(&mut self, buffer: &DispatchBuffer, offset: u64) {
        shared::draw_indexed_indirect(&mut self.recording, buffer, offset);
    }

    fn draw_mesh_tasks_indirect(&mut self, _: &DispatchBuffer, _: u64) {
        log::error!("draw_mesh_tasks_indirect: {MESH_SHADERS}");
    }

    fn multi_draw_indirect(&mut self, buffer: &DispatchBuffer, offset: u64, count: u32) {
        self.with_buffer(buffer, |buffer| Op::MultiDrawIndirect { buffer, offset, count });
    }

    fn multi_draw_indexed_indirect(&mut self, buffer: &DispatchBuffer, offset: u64, count: u32) {
        self.with_buffer(buffer, |buffer| Op::MultiDrawIndexedIndirect { buffer, offset, count });
    }

    fn multi_draw_indirect_count(
        &mut self,
        buffer: &DispatchBuffer,
        offset: u64,
        count: &DispatchBuffer,
        count_offset: u64,
        max_count: u32,
    ) {
        let counts = &dispatched(count).object;
        self.recording.keep(counts);
        let count_buffer = counts.id;
        self.with_buffer(buffer, |buffer| Op::MultiDrawIndirectCount {
            buffer,
            offset,
            count_buffer,
            count_offset,
            max_count,
        });
    }

    fn multi_draw_mesh_tasks_indirect(&mut self, _: &DispatchBuffer, _: u64, _: u32) {
        log::error!("multi_draw_mesh_tasks_indirect: {MESH_SHADERS}");
    }

    fn multi_draw_indexed_indirect_count(
        &mut self,
        buffer: &DispatchBuffer,
        offset: u64,
        count: &DispatchBuffer,
        count_offset: u64,
        max_count: u32,
    ) {
        let counts = &dispatched(count).object;
        self.recording.keep(counts);
        let count_buffer = counts.id;
        self.with_buffer(buffer, |buffer| Op::MultiDrawIndexedIndirectCount {
            buffer,
            offset,
            count_buffer,
            count_offset,
            max_count,
        });
    }

    fn multi_draw_mesh_tasks_indirect_count(
        &mut self,
        _: &DispatchBuffer,
        _: u64,
        _: &DispatchBuffer,
        _: u64,
        _: u32,
    ) {
        log::error!("multi_draw_mesh_tasks_indirect_count: {MESH_SHADERS}");
    }

    fn insert_debug_marker(&mut self, label: &str) {
        self.recording.op(&Op::InsertDebugMarker { label: marker(label) });
    }

    fn push_debug_group(&mut self, label: &str) {
        self.recording.op(&Op::PushDebugGroup { label: marker(label) });
    }

    fn pop_debug_group(&mut self) {
        self.recording.op(&Op::PopDebugGroup {});
    }

    fn write_timestamp(&mut self, set: &DispatchQuerySet, index: u32) {
        let object = dispatched_query_set(set);
        self.recording.keep(object);
        self.recording.op(&Op::WriteTimestamp { query_set: object.id, index });
    }

    fn begin_occlusion_query(&mut self, index: u32) {
        self.recording.op(&Op::BeginOcclusionQuery { index });
    }

    fn end_occlusion_query(&mut self) {
        self.recording.op(&Op::EndOcclusionQuery {});
    }

    fn begin_pipeline_statistics_query(&mut self, set: &DispatchQuerySet, index: u32) {
        let object = dispatched_query_set(set);
        self.recording.keep(object);
        self.recording.op(&Op::BeginPipelineStatisticsQuery { query_set: object.id, index });
    }

    fn end_pipeline_statistics_query(&mut self) {
        self.recording.op(&Op::EndPipelineStatisticsQuery {});
    }

    fn execute_bundles(&mut self, bundles: &mut dyn Iterator<Item = &DispatchRenderBundle>) {
        let mut ids = Vec::new();
        for bundle in bundles {
            let object = dispatched_render_bundle(bundle);
            self.recording.keep(object);
            ids.push(object.id);
        }
        self.recording.op(&Op::ExecuteBundles { bundles: Ids::Native(&ids) });
    }
}
