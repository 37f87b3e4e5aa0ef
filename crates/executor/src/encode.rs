//! Command encoders and their passes: recorded operations, resolved and executed one by one.

use pontoon_wire::command::{
    BufferLocation, ComputePassDesc, RenderPassDesc, TextureLocation, TimestampWrites, Transitions,
};
use pontoon_wire::limits::MAX_DYNAMIC_OFFSETS;
use pontoon_wire::ops::Words;
use pontoon_wire::{Id, Op, Reader, frame, handle as kind};
use wgpu::BufferSlice;

use crate::End;
use crate::create::label;
use crate::quota::Ticket;
use crate::session::{Session, Tables};

/// A command encoder and the pass that is open on it.
#[derive(Debug)]
pub(crate) struct Recording {
    encoder: wgpu::CommandEncoder,
    pass: Pass,
    /// A pass was begun while another was open: the encoder is invalid.
    confused: bool,
    pub ticket: Ticket,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one lives in each recording, whatever it is")]
enum Pass {
    None,
    Compute(wgpu::ComputePass<'static>),
    Render(wgpu::RenderPass<'static>),
}

impl Recording {
    pub fn new(encoder: wgpu::CommandEncoder, ticket: Ticket) -> Self {
        Self { encoder, pass: Pass::None, confused: false, ticket }
    }
}

fn misplaced(op: &Op<'_>, place: &str) -> End {
    End::Violation(format!("{} {place}", op.name()))
}

/// Dynamic offsets, out of the wire's bytes.
pub(crate) fn offsets<'a>(
    words: &Words<'_>,
    room: &'a mut [u32; MAX_DYNAMIC_OFFSETS],
) -> Result<&'a [u32], End> {
    let len = words.len();
    let offsets = room.get_mut(..len).ok_or_else(|| {
        End::Violation(format!("{len} dynamic offsets, the maximum is {MAX_DYNAMIC_OFFSETS}"))
    })?;
    offsets.iter_mut().zip(words.iter()).for_each(|(offset, word)| *offset = word);
    Ok(offsets)
}

impl Tables {
    /// Part of a buffer, whose range was checked.
    #[inline]
    pub fn slice(
        &self,
        id: Id<kind::Buffer>,
        offset: u64,
        size: Option<u64>,
    ) -> Result<BufferSlice<'_>, End> {
        let entry = self.buffers.get(id)?;
        let end = size.map_or(Some(entry.size), |size| offset.checked_add(size));
        match end {
            Some(end) if offset < end && end <= entry.size => Ok(entry.buffer.slice(offset..end)),
            _ => Err(End::Violation(format!(
                "part {offset}+{size:?} of buffer {id:?} of {} bytes",
                entry.size
            ))),
        }
    }

    /// A buffer.
    #[inline]
    pub fn buffer(&self, id: Id<kind::Buffer>) -> Result<&wgpu::Buffer, End> {
        Ok(&self.buffers.get(id)?.buffer)
    }

    /// A bind group.
    #[inline]
    pub fn bind_group(&self, id: Id<kind::BindGroup>) -> Result<&wgpu::BindGroup, End> {
        Ok(&self.bind_groups.get(id)?.object)
    }

    /// A place in a texture.
    pub fn texture_location(&self, place: &TextureLocation) -> Result<wgpu::TexelCopyTextureInfo<'_>, End> {
        Ok(wgpu::TexelCopyTextureInfo {
            texture: &self.textures.get(place.texture)?.texture,
            mip_level: place.mip_level,
            origin: place.origin,
            aspect: place.aspect,
        })
    }

    fn buffer_location(&self, place: &BufferLocation) -> Result<wgpu::TexelCopyBufferInfo<'_>, End> {
        Ok(wgpu::TexelCopyBufferInfo { buffer: self.buffer(place.buffer)?, layout: place.layout })
    }

    fn begin_compute(&self, encoder: &mut wgpu::CommandEncoder, desc: &ComputePassDesc) -> Result<Pass, End> {
        let timestamp_writes = match &desc.timestamps {
            Some(TimestampWrites { query_set, beginning, end }) => Some(wgpu::ComputePassTimestampWrites {
                query_set: self.query_sets.get(*query_set)?,
                beginning_of_pass_write_index: *beginning,
                end_of_pass_write_index: *end,
            }),
            None => None,
        };
        let desc = wgpu::ComputePassDescriptor { label: label(&desc.label), timestamp_writes };
        Ok(Pass::Compute(encoder.begin_compute_pass(&desc).forget_lifetime()))
    }

    fn begin_render(&self, encoder: &mut wgpu::CommandEncoder, desc: &RenderPassDesc) -> Result<Pass, End> {
        let color_attachments = desc
            .color
            .iter()
            .map(|target| {
                let Some(target) = target else { return Ok(None) };
                Ok(Some(wgpu::RenderPassColorAttachment {
                    view: &self.views.get(target.view)?.object,
                    depth_slice: target.depth_slice,
                    resolve_target: target
                        .resolve_target
                        .map(|id| Ok::<_, End>(&self.views.get(id)?.object))
                        .transpose()?,
                    ops: operations(target.clear, target.store),
                }))
            })
            .collect::<Result<Vec<_>, End>>()?;
        let depth_stencil_attachment = match &desc.depth_stencil {
            Some(target) => Some(wgpu::RenderPassDepthStencilAttachment {
                view: &self.views.get(target.view)?.object,
                depth_ops: target.depth.map(|(clear, store)| operations(clear, store)),
                stencil_ops: target.stencil.map(|(clear, store)| operations(clear, store)),
            }),
            None => None,
        };
        let timestamp_writes = match &desc.timestamps {
            Some(TimestampWrites { query_set, beginning, end }) => Some(wgpu::RenderPassTimestampWrites {
                query_set: self.query_sets.get(*query_set)?,
                beginning_of_pass_write_index: *beginning,
                end_of_pass_write_index: *end,
            }),
            None => None,
        };
        let desc = wgpu::RenderPassDescriptor {
            label: label(&desc.label),
            color_attachments: &color_attachments,
            depth_stencil_attachment,
            timestamp_writes,
            occlusion_query_set: desc.occlusion_query_set.map(|id| self.query_sets.get(id)).transpose()?,
            multiview_mask: desc.multiview_mask,
        };
        Ok(Pass::Render(encoder.begin_render_pass(&desc).forget_lifetime()))
    }

    /// Hints are looked up and then left alone: `wgpu` finds out by itself what a recording uses, and takes
    /// a wrong hint for granted.
    fn look_up_hints(&self, hints: &Transitions) -> Result<(), End> {
        for (id, _) in hints.buffers.iter() {
            self.buffers.get(*id)?;
        }
        for (id, ..) in hints.textures.iter() {
            self.textures.get(*id)?;
        }
        for (id, ..) in hints.views.iter() {
            self.views.get(*id)?;
        }
        Ok(())
    }

    /// A texture and a part that lies within it. `wgpu-core` 30 checks only where a part ends, and takes one
    /// that begins behind its end out of bounds.
    fn part(
        &self,
        id: Id<kind::Texture>,
        range: &wgpu::ImageSubresourceRange,
    ) -> Result<&wgpu::Texture, End> {
        let texture = &self.textures.get(id)?.texture;
        let within = |base: u32, count: Option<u32>, all: u32| {
            let end = count.map_or(Some(all), |count| base.checked_add(count));
            end.is_some_and(|end| base < end && base < all)
        };
        let layers = texture.depth_or_array_layers();
        match within(range.base_mip_level, range.mip_level_count, texture.mip_level_count())
            && within(range.base_array_layer, range.array_layer_count, layers)
        {
            true => Ok(texture),
            false => Err(End::Violation(format!("texture {id:?} has no part {range:?}"))),
        }
    }
}

/// A range that begins before it ends: `wgpu` subtracts the one from the other.
pub(crate) fn ascending(start: u32, end: u32) -> Result<std::ops::Range<u32>, End> {
    match start <= end {
        true => Ok(start..end),
        false => Err(End::Violation(format!("a draw of {start}..{end}"))),
    }
}

fn operations<V: Default>(clear: Option<V>, store: bool) -> wgpu::Operations<V> {
    wgpu::Operations {
        load: clear.map_or(wgpu::LoadOp::Load, wgpu::LoadOp::Clear),
        store: if store { wgpu::StoreOp::Store } else { wgpu::StoreOp::Discard },
    }
}

impl Session {
    /// Executes a piece of a recording.
    pub(crate) fn encode(&mut self, piece: frame::Encode<'_>) -> Result<(), End> {
        let mut encoders = std::mem::take(&mut self.tables.encoders);
        let recordings = &mut self.recordings;
        let result = encoders.get_mut(piece.encoder).and_then(|recording| {
            recordings.grow(&mut recording.ticket, piece.ops.len() as u64)?;
            let mut reader = Reader::new(piece.ops);
            while reader.remaining() > 0 {
                recording.execute(&self.tables, Op::take(&mut reader)?)?;
            }
            Ok(())
        });
        self.tables.encoders = encoders;
        result
    }

    pub(crate) fn finish_encoder(
        &mut self,
        encoder: Id<kind::CommandEncoder>,
        id: Id<kind::CommandBuffer>,
    ) -> Result<(), End> {
        let Recording { encoder, pass, ticket, .. } = self.tables.encoders.remove(encoder)?;
        let buffer = encoder.finish();
        drop(pass);
        self.tables.command_buffers.insert(id, (buffer, ticket))
    }
}

/// Whether an operation belongs to the encoder, whatever pass is open.
fn is_encoders(op: &Op<'_>) -> bool {
    matches!(
        op,
        Op::CopyBufferToBuffer { .. }
            | Op::CopyBufferToTexture { .. }
            | Op::CopyTextureToBuffer { .. }
            | Op::CopyTextureToTexture { .. }
            | Op::ClearTexture { .. }
            | Op::ClearBuffer { .. }
            | Op::ResolveQuerySet { .. }
            | Op::TransitionResources { .. }
    )
}

impl Recording {
    #[inline]
    fn execute(&mut self, tables: &Tables, op: Op<'_>) -> Result<(), End> {
        match (&op, &mut self.pass) {
            (Op::EndPass {}, pass) => {
                *pass = Pass::None;
                Ok(())
            }
            // `wgpu` invalidates an encoder that is used while a pass is open, and says so when it is
            // finished. What two open passes record goes nowhere then.
            (Op::BeginComputePass { desc }, _) => {
                self.begin(|encoder| tables.begin_compute(encoder, &desc.0))
            }
            (Op::BeginRenderPass { desc }, _) => self.begin(|encoder| tables.begin_render(encoder, &desc.0)),
            (op, _) if is_encoders(op) => encoder(tables, &mut self.encoder, op),
            _ if self.confused => Ok(()),
            (_, Pass::Compute(pass)) => compute(tables, pass, &op),
            (_, Pass::Render(pass)) => render(tables, pass, &op),
            (_, Pass::None) => encoder(tables, &mut self.encoder, &op),
        }
    }

    fn begin(
        &mut self,
        begin: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<Pass, End>,
    ) -> Result<(), End> {
        let pass = begin(&mut self.encoder)?;
        match self.pass {
            Pass::None => self.pass = pass,
            _ => self.confused = true,
        }
        Ok(())
    }
}

fn compute(tables: &Tables, pass: &mut wgpu::ComputePass<'static>, op: &Op<'_>) -> Result<(), End> {
    match op {
        Op::SetComputePipeline { pipeline } => pass.set_pipeline(tables.compute_pipelines.get(*pipeline)?),
        Op::SetBindGroup { index, group, offsets: words } => {
            let group = group.map(|id| tables.bind_group(id)).transpose()?;
            pass.set_bind_group(*index, group, offsets(words, &mut [0; MAX_DYNAMIC_OFFSETS])?);
        }
        Op::SetImmediates { offset, data } => pass.set_immediates(*offset, data),
        Op::Dispatch { x, y, z } => pass.dispatch_workgroups(*x, *y, *z),
        Op::DispatchIndirect { buffer, offset } => {
            pass.dispatch_workgroups_indirect(tables.buffer(*buffer)?, *offset);
        }
        Op::InsertDebugMarker { label } => pass.insert_debug_marker(label),
        Op::PushDebugGroup { label } => pass.push_debug_group(label),
        Op::PopDebugGroup {} => pass.pop_debug_group(),
        Op::WriteTimestamp { query_set, index } => {
            pass.write_timestamp(tables.query_sets.get(*query_set)?, *index)
        }
        Op::BeginPipelineStatisticsQuery { query_set, index } => {
            pass.begin_pipeline_statistics_query(tables.query_sets.get(*query_set)?, *index);
        }
        Op::EndPipelineStatisticsQuery {} => pass.end_pipeline_statistics_query(),
        op => return Err(misplaced(op, "in a compute pass")),
    }
    Ok(())
}

fn render(tables: &Tables, pass: &mut wgpu::RenderPass<'static>, op: &Op<'_>) -> Result<(), End> {
    match op {
        Op::SetRenderPipeline { pipeline } => pass.set_pipeline(tables.render_pipelines.get(*pipeline)?),
        Op::SetBindGroup { index, group, offsets: words } => {
            let group = group.map(|id| tables.bind_group(id)).transpose()?;
            pass.set_bind_group(*index, group, offsets(words, &mut [0; MAX_DYNAMIC_OFFSETS])?);
        }
        Op::SetImmediates { offset, data } => pass.set_immediates(*offset, data),
        Op::SetIndexBuffer { buffer, format, offset, size } => {
            pass.set_index_buffer(tables.slice(*buffer, *offset, *size)?, *format);
        }
        Op::SetVertexBuffer { slot, buffer, offset, size } => {
            let slice = buffer.map(|id| tables.slice(id, *offset, *size)).transpose()?;
            pass.set_vertex_buffer(*slot, slice);
        }
        Op::SetBlendConstant { r, g, b, a } => {
            pass.set_blend_constant(wgpu::Color { r: *r, g: *g, b: *b, a: *a });
        }
        Op::SetScissorRect { x, y, width, height } => pass.set_scissor_rect(*x, *y, *width, *height),
        Op::SetViewport { x, y, width, height, min_depth, max_depth } => {
            pass.set_viewport(*x, *y, *width, *height, *min_depth, *max_depth);
        }
        Op::SetStencilReference { reference } => pass.set_stencil_reference(*reference),
        Op::Draw { first_vertex, end_vertex, first_instance, end_instance } => {
            pass.draw(ascending(*first_vertex, *end_vertex)?, ascending(*first_instance, *end_instance)?);
        }
        Op::DrawIndexed { first_index, end_index, base_vertex, first_instance, end_instance } => {
            pass.draw_indexed(
                ascending(*first_index, *end_index)?,
                *base_vertex,
                ascending(*first_instance, *end_instance)?,
            );
        }
        Op::ExecuteBundles { bundles } => {
            let bundles = bundles
                .iter()
                .map(|id| Ok(tables.bundles.get(id)?.object.as_ref()))
                .collect::<Result<Vec<_>, End>>()?;
            // What has no object was made on a lost device, whose passes do nothing.
            pass.execute_bundles(bundles.into_iter().flatten());
        }
        Op::BeginOcclusionQuery { index } => pass.begin_occlusion_query(*index),
        Op::EndOcclusionQuery {} => pass.end_occlusion_query(),
        Op::InsertDebugMarker { label } => pass.insert_debug_marker(label),
        Op::PushDebugGroup { label } => pass.push_debug_group(label),
        Op::PopDebugGroup {} => pass.pop_debug_group(),
        Op::WriteTimestamp { query_set, index } => {
            pass.write_timestamp(tables.query_sets.get(*query_set)?, *index)
        }
        Op::BeginPipelineStatisticsQuery { query_set, index } => {
            pass.begin_pipeline_statistics_query(tables.query_sets.get(*query_set)?, *index);
        }
        Op::EndPipelineStatisticsQuery {} => pass.end_pipeline_statistics_query(),
        op => return draw_indirect(tables, pass, op),
    }
    Ok(())
}

fn draw_indirect(tables: &Tables, pass: &mut wgpu::RenderPass<'static>, op: &Op<'_>) -> Result<(), End> {
    match op {
        Op::DrawIndirect { buffer, offset } => pass.draw_indirect(tables.buffer(*buffer)?, *offset),
        Op::DrawIndexedIndirect { buffer, offset } => {
            pass.draw_indexed_indirect(tables.buffer(*buffer)?, *offset);
        }
        Op::MultiDrawIndirect { buffer, offset, count } => {
            pass.multi_draw_indirect(tables.buffer(*buffer)?, *offset, *count);
        }
        Op::MultiDrawIndexedIndirect { buffer, offset, count } => {
            pass.multi_draw_indexed_indirect(tables.buffer(*buffer)?, *offset, *count);
        }
        Op::MultiDrawIndirectCount { buffer, offset, count_buffer, count_offset, max_count } => {
            let (buffer, count_buffer) = (tables.buffer(*buffer)?, tables.buffer(*count_buffer)?);
            pass.multi_draw_indirect_count(buffer, *offset, count_buffer, *count_offset, *max_count);
        }
        Op::MultiDrawIndexedIndirectCount { buffer, offset, count_buffer, count_offset, max_count } => {
            let (buffer, count_buffer) = (tables.buffer(*buffer)?, tables.buffer(*count_buffer)?);
            pass.multi_draw_indexed_indirect_count(buffer, *offset, count_buffer, *count_offset, *max_count);
        }
        op => return Err(misplaced(op, "in a render pass")),
    }
    Ok(())
}

fn encoder(tables: &Tables, encoder: &mut wgpu::CommandEncoder, op: &Op<'_>) -> Result<(), End> {
    match op {
        Op::CopyBufferToBuffer { source, source_offset, destination, destination_offset, size } => {
            let (source, destination) = (tables.buffer(*source)?, tables.buffer(*destination)?);
            encoder.copy_buffer_to_buffer(source, *source_offset, destination, *destination_offset, *size);
        }
        Op::CopyBufferToTexture { source, destination, size } => {
            let (source, destination) =
                (tables.buffer_location(&source.0)?, tables.texture_location(&destination.0)?);
            encoder.copy_buffer_to_texture(source, destination, *size.0);
        }
        Op::CopyTextureToBuffer { source, destination, size } => {
            let (source, destination) =
                (tables.texture_location(&source.0)?, tables.buffer_location(&destination.0)?);
            encoder.copy_texture_to_buffer(source, destination, *size.0);
        }
        Op::CopyTextureToTexture { source, destination, size } => {
            let (source, destination) =
                (tables.texture_location(&source.0)?, tables.texture_location(&destination.0)?);
            encoder.copy_texture_to_texture(source, destination, *size.0);
        }
        Op::ClearTexture { texture, range } => {
            encoder.clear_texture(tables.part(*texture, &range.0)?, &range.0);
        }
        Op::ClearBuffer { buffer, offset, size } => {
            encoder.clear_buffer(tables.buffer(*buffer)?, *offset, *size)
        }
        Op::InsertDebugMarker { label } => encoder.insert_debug_marker(label),
        Op::PushDebugGroup { label } => encoder.push_debug_group(label),
        Op::PopDebugGroup {} => encoder.pop_debug_group(),
        Op::WriteTimestamp { query_set, index } => {
            encoder.write_timestamp(tables.query_sets.get(*query_set)?, *index);
        }
        Op::ResolveQuerySet { query_set, first, count, destination, destination_offset } => {
            let Some(end) = first.checked_add(*count) else {
                return Err(misplaced(op, "of more queries than there can be"));
            };
            let (set, destination) = (tables.query_sets.get(*query_set)?, tables.buffer(*destination)?);
            encoder.resolve_query_set(set, *first..end, destination, *destination_offset);
        }
        Op::TransitionResources { transitions } => tables.look_up_hints(&transitions.0)?,
        op => return Err(misplaced(op, "outside a pass")),
    }
    Ok(())
}
