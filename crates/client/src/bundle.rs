//! `wgpu::RenderBundleEncoder`: recorded whole and sent when it is finished.

use std::ops::Range;
use std::sync::Arc;

use pontoon_wire::bounded::label;
use pontoon_wire::command::RenderBundleDesc;
use pontoon_wire::{Blob, Command, Label, List, Op};
use wgpu::custom::*;

use crate::device::ClientDevice;
use crate::encoder::Recording;
use crate::objects::ClientRenderBundle;
use crate::render::shared;

#[derive(Debug)]
pub(crate) struct ClientBundleEncoder {
    device: Arc<ClientDevice>,
    name: Label,
    color_formats: Vec<Option<wgpu::TextureFormat>>,
    depth_stencil: Option<wgpu::RenderBundleDepthStencil>,
    sample_count: u32,
    multiview: Option<std::num::NonZeroU32>,
    recording: Recording,
}

impl ClientBundleEncoder {
    pub fn new(device: &Arc<ClientDevice>, desc: &wgpu::RenderBundleEncoderDescriptor<'_>) -> Self {
        Self {
            device: device.clone(),
            name: label(desc.label),
            color_formats: desc.color_formats.to_vec(),
            depth_stencil: desc.depth_stencil,
            sample_count: desc.sample_count,
            multiview: desc.multiview,
            recording: Recording::default(),
        }
    }
}

impl RenderBundleEncoderInterface for ClientBundleEncoder {
    fn set_pipeline(&mut self, pipeline: &DispatchRenderPipeline) {
        shared::set_pipeline(&mut self.recording, pipeline);
    }

    fn set_bind_group(&mut self, index: u32, group: Option<&DispatchBindGroup>, offsets: &[u32]) {
        shared::set_bind_group(&mut self.recording, index, group, offsets);
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

    fn draw(&mut self, vertices: Range<u32>, instances: Range<u32>) {
        shared::draw(&mut self.recording, vertices, instances);
    }

    fn draw_indexed(&mut self, indices: Range<u32>, base_vertex: i32, instances: Range<u32>) {
        shared::draw_indexed(&mut self.recording, indices, base_vertex, instances);
    }

    fn draw_indirect(&mut self, buffer: &DispatchBuffer, offset: u64) {
        shared::draw_indirect(&mut self.recording, buffer, offset);
    }

    fn draw_indexed_indirect(&mut self, buffer: &DispatchBuffer, offset: u64) {
        shared::draw_indexed_indirect(&mut self.recording, buffer, offset);
    }

    fn finish(self, desc: &wgpu::RenderBundleDescriptor<'_>) -> DispatchRenderBundle {
        let recorded = self.recording.ops.len();
        let ops = Blob::new(self.recording.ops).unwrap_or_else(|_| {
            let message = format!("The bundle has {recorded} bytes, the maximum is 4 MiB: split it");
            self.device.invalid("RenderBundleEncoder::finish", desc.label, &message);
            Blob::default()
        });
        let wire = Box::new(RenderBundleDesc {
            encoder_label: self.name,
            label: label(desc.label),
            color_formats: List::cut(self.color_formats),
            depth_stencil: self.depth_stencil,
            sample_count: self.sample_count,
            multiview: self.multiview,
            ops,
        });
        let device = self.device.id();
        let object =
            self.device.session().create(|id| Command::CreateRenderBundle { device, id, desc: wire });
        DispatchRenderBundle::custom(ClientRenderBundle { object })
    }

    fn finish_boxed(self: Box<Self>, desc: &wgpu::RenderBundleDescriptor<'_>) -> DispatchRenderBundle {
        (*self).finish(desc)
    }
}
