//! Bind groups and layouts.

use pontoon_wire::bounded::label;
use pontoon_wire::command::{BindGroupEntry, BindingResource, BufferBinding};
use pontoon_wire::limits::{MAX_BIND_GROUPS, MAX_BINDINGS};
use pontoon_wire::{Command, List};

use crate::buffer::buffer;
use crate::device::ClientDevice;
use crate::objects::*;

fn part(binding: &wgpu::BufferBinding<'_>) -> BindingResource {
    BindingResource::Buffer(BufferBinding {
        buffer: buffer(binding.buffer).id,
        offset: binding.offset,
        size: binding.size,
    })
}

/// A binding for the wire. Binding arrays are not offered, so an array can only meet a layout that is
/// invalid: its first element stands for it in the host's error.
fn resource(resource: &wgpu::BindingResource<'_>) -> Option<BindingResource> {
    use wgpu::BindingResource as R;
    match resource {
        R::Buffer(binding) => Some(part(binding)),
        R::BufferArray(bindings) => bindings.first().map(part),
        R::Sampler(one) => Some(BindingResource::Sampler(sampler(one).id)),
        R::SamplerArray(many) => many.first().map(|one| BindingResource::Sampler(sampler(one).id)),
        R::TextureView(view) => Some(BindingResource::TextureView(texture_view(view).id)),
        R::TextureViewArray(views) => {
            views.first().map(|view| BindingResource::TextureView(texture_view(view).id))
        }
        R::ExternalTexture(texture) => Some(BindingResource::ExternalTexture(external_texture(texture).id)),
        R::AccelerationStructure(_) | R::AccelerationStructureArray(_) => None,
        #[allow(unreachable_patterns, reason = "wgpu may add kinds")]
        _ => None,
    }
}

impl ClientDevice {
    pub fn bind_group_layout(&self, desc: &wgpu::BindGroupLayoutDescriptor<'_>) -> ClientBindGroupLayout {
        if desc.entries.len() > MAX_BINDINGS {
            let message = format!("{} entries, the maximum is {MAX_BINDINGS}", desc.entries.len());
            self.invalid("Device::create_bind_group_layout", desc.label, &message);
        }
        let (device, label) = (self.id(), label(desc.label));
        let entries = List::cut(desc.entries.iter().copied());
        let object =
            self.session().create(|id| Command::CreateBindGroupLayout { device, id, label, entries });
        ClientBindGroupLayout { object }
    }

    pub fn bind_group(&self, desc: &wgpu::BindGroupDescriptor<'_>) -> ClientBindGroup {
        let entries = desc.entries.iter().filter_map(|entry| {
            Some(BindGroupEntry { binding: entry.binding, resource: resource(&entry.resource)? })
        });
        let entries = List::cut(entries);
        let (device, label) = (self.id(), label(desc.label));
        let layout = bind_group_layout(desc.layout).id;
        let object =
            self.session().create(|id| Command::CreateBindGroup { device, id, label, layout, entries });
        ClientBindGroup { object }
    }

    pub fn pipeline_layout(&self, desc: &wgpu::PipelineLayoutDescriptor<'_>) -> ClientPipelineLayout {
        if desc.bind_group_layouts.len() > MAX_BIND_GROUPS {
            let message = format!(
                "{} bind group layouts, the maximum is {MAX_BIND_GROUPS}",
                desc.bind_group_layouts.len()
            );
            self.invalid("Device::create_pipeline_layout", desc.label, &message);
        }
        let layouts =
            desc.bind_group_layouts.iter().map(|layout| layout.map(|layout| bind_group_layout(layout).id));
        let (device, label, layouts) = (self.id(), label(desc.label), List::cut(layouts));
        let immediate_size = desc.immediate_size;
        let object = self.session().create(|id| Command::CreatePipelineLayout {
            device,
            id,
            label,
            layouts,
            immediate_size,
        });
        ClientPipelineLayout { object }
    }
}
