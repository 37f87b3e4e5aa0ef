//! Render bundles, which a guest records whole.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pontoon_wire::command::RenderBundleDesc;
use pontoon_wire::event::ErrorKind;
use pontoon_wire::limits::MAX_DYNAMIC_OFFSETS;
use pontoon_wire::{Id, Op, Reader, handle as kind};

use crate::End;
use crate::create::label;
use crate::encode::{ascending, offsets};
use crate::errors::Report;
use crate::quota::Charges;
use crate::session::{Keeper, Session, Tables};

impl Session {
    pub(crate) fn create_bundle(
        &mut self,
        device: Id<kind::Device>,
        id: Id<kind::RenderBundle>,
        desc: &RenderBundleDesc,
    ) -> Result<(), End> {
        self.usage.add_object(&self.limits)?;
        let tables = &self.tables;
        let before = self.reports.len();
        let wgpu_device = &tables.devices.get(device)?.device;
        let encoder = wgpu_device.create_render_bundle_encoder(&wgpu::RenderBundleEncoderDescriptor {
            label: label(&desc.encoder_label),
            color_formats: &desc.color_formats,
            depth_stencil: desc.depth_stencil,
            sample_count: desc.sample_count,
            multiview: desc.multiview,
        });
        let mut charges = Charges::new();
        // `wgpu` has no invalid bundle: it panics where a recording is not valid, and already at its first
        // operation where the encoder is not.
        let made = catch_unwind(AssertUnwindSafe(|| record_all(tables, encoder, desc, &mut charges)));
        let bundle = match made {
            Ok(bundle) => Some(bundle?),
            Err(panic) => {
                let message = crate::errors::panic_message(&*panic);
                let message =
                    message.strip_prefix("Error in RenderBundleEncoder::finish: ").unwrap_or(message);
                // An encoder that failed has been reported; a lost device speaks for itself.
                if self.reports.len() == before && !message.contains("Parent device is lost") {
                    let message = message.to_owned();
                    self.reports.push(Report::Error { device, kind: ErrorKind::Validation, message });
                }
                placeholder(wgpu_device)
            }
        };
        self.tables.bundles.insert(id, Keeper { object: bundle, charges })
    }
}

fn record_all<'a>(
    tables: &'a Tables,
    mut encoder: wgpu::RenderBundleEncoder<'a>,
    desc: &RenderBundleDesc,
    charges: &mut Charges,
) -> Result<wgpu::RenderBundle, End> {
    let mut reader = Reader::new(&desc.ops);
    while reader.remaining() > 0 {
        let op = Op::take(&mut reader)?;
        record(tables, &mut encoder, &op)?;
        charges.extend(charges_of(tables, &op));
    }
    Ok(encoder.finish(&wgpu::RenderBundleDescriptor { label: label(&desc.label) }))
}

/// What stands for a bundle that is not valid: an empty one, or nothing where the device is lost.
fn placeholder(device: &wgpu::Device) -> Option<wgpu::RenderBundle> {
    catch_unwind(AssertUnwindSafe(|| {
        let empty = device.create_render_bundle_encoder(&wgpu::RenderBundleEncoderDescriptor {
            color_formats: &[Some(wgpu::TextureFormat::Rgba8Unorm)],
            sample_count: 1,
            ..Default::default()
        });
        empty.finish(&wgpu::RenderBundleDescriptor::default())
    }))
    .ok()
}

/// What a bundle keeps alive by an operation that was recorded.
fn charges_of(tables: &Tables, op: &Op<'_>) -> Charges {
    let buffer = match op {
        Op::SetBindGroup { group: Some(id), .. } => {
            return tables.bind_groups.get(*id).map(|group| group.charges.clone()).unwrap_or_default();
        }
        Op::SetVertexBuffer { buffer, .. } => *buffer,
        Op::SetIndexBuffer { buffer, .. }
        | Op::DrawIndirect { buffer, .. }
        | Op::DrawIndexedIndirect { buffer, .. } => Some(*buffer),
        _ => None,
    };
    buffer.and_then(|id| tables.buffers.get(id).ok()).map(|entry| entry.charge.clone()).into_iter().collect()
}

fn record<'a>(
    tables: &'a Tables,
    encoder: &mut wgpu::RenderBundleEncoder<'a>,
    op: &Op<'_>,
) -> Result<(), End> {
    match op {
        Op::SetRenderPipeline { pipeline } => encoder.set_pipeline(tables.render_pipelines.get(*pipeline)?),
        Op::SetBindGroup { index, group, offsets: words } => {
            let group = group.map(|id| tables.bind_group(id)).transpose()?;
            encoder.set_bind_group(*index, group, offsets(words, &mut [0; MAX_DYNAMIC_OFFSETS])?);
        }
        Op::SetImmediates { offset, data } => encoder.set_immediates(*offset, data),
        Op::SetIndexBuffer { buffer, format, offset, size } => {
            encoder.set_index_buffer(tables.slice(*buffer, *offset, *size)?, *format);
        }
        Op::SetVertexBuffer { slot, buffer, offset, size } => {
            let slice = buffer.map(|id| tables.slice(id, *offset, *size)).transpose()?;
            encoder.set_vertex_buffer(*slot, slice);
        }
        Op::Draw { first_vertex, end_vertex, first_instance, end_instance } => {
            encoder.draw(ascending(*first_vertex, *end_vertex)?, ascending(*first_instance, *end_instance)?);
        }
        Op::DrawIndexed { first_index, end_index, base_vertex, first_instance, end_instance } => {
            encoder.draw_indexed(
                ascending(*first_index, *end_index)?,
                *base_vertex,
                ascending(*first_instance, *end_instance)?,
            );
        }
        Op::DrawIndirect { buffer, offset } => encoder.draw_indirect(tables.buffer(*buffer)?, *offset),
        Op::DrawIndexedIndirect { buffer, offset } => {
            encoder.draw_indexed_indirect(tables.buffer(*buffer)?, *offset);
        }
        op => return Err(End::Violation(format!("{} in a render bundle", op.name()))),
    }
    Ok(())
}
