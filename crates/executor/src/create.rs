//! Creating objects: each command is resolved to `wgpu`'s descriptor and executed.

use pontoon_wire::command::{BindGroupEntry, BindingResource, DeviceRequest, ShaderSource};
use pontoon_wire::event::{CompilationMessage, DeviceReply, ErrorKind, Message, Reply};
use pontoon_wire::{Command, Id, Label, List, handle as kind};
use wgpu::wgt;

use crate::errors::Report;
use crate::quota::{Charge, Charges, texture_bytes};
use crate::session::{BufferEntry, DeviceEntry, Keeper, Session, Tables, TextureEntry};
use crate::{End, OFFERED_FEATURES, import};

/// `wgpu`'s label for one from the wire.
pub(crate) fn label(label: &Label) -> Option<&str> {
    label.as_deref()
}

impl Session {
    pub(crate) fn request_device(
        &mut self,
        call: u32,
        adapter: u32,
        id: Id<kind::Device>,
        desc: &DeviceRequest,
    ) -> Result<(), End> {
        let host = self.host.clone();
        let Some(adapter) = host.adapters().get(adapter as usize) else {
            return Err(End::Violation(format!("adapter {adapter} does not exist")));
        };
        self.usage.add_object(&self.limits)?;
        let reply = match open_device(adapter, desc) {
            Ok((device, queue)) => {
                self.reports.watch(id, &device);
                let reply = DeviceReply {
                    features: device.features(),
                    limits: device.limits(),
                    timestamp_period: queue.get_timestamp_period(),
                };
                let entry = DeviceEntry {
                    device,
                    queue,
                    submitted: 0,
                    staged: 0,
                    unsubmitted: false,
                    in_place: Default::default(),
                    in_flight: Default::default(),
                    notify: Default::default(),
                };
                self.tables.devices.insert(id, entry)?;
                Ok(Box::new(reply))
            }
            Err(message) => {
                self.usage.objects -= 1;
                self.tables.devices.skip(id)?;
                Err(Message::cut(message))
            }
        };
        self.reply(call, Reply::Device(reply));
        Ok(())
    }

    pub(crate) fn format_features(
        &mut self,
        call: u32,
        adapter: u32,
        format: wgt::TextureFormat,
    ) -> Result<(), End> {
        let host = self.host.clone();
        let Some(adapter) = host.adapters().get(adapter as usize) else {
            return Err(End::Violation(format!("adapter {adapter} does not exist")));
        };
        self.reply(call, Reply::FormatFeatures(adapter.get_texture_format_features(format)));
        Ok(())
    }

    pub(crate) fn compilation_info(&mut self, call: u32, module: Id<kind::ShaderModule>) -> Result<(), End> {
        let info = pollster::block_on(self.tables.shader_modules.get(module)?.get_compilation_info());
        let messages = info.messages.into_iter().map(|message| CompilationMessage {
            message: Message::cut(message.message),
            severity: match message.message_type {
                wgpu::CompilationMessageType::Error => 0,
                wgpu::CompilationMessageType::Warning => 1,
                wgpu::CompilationMessageType::Info => 2,
            },
            location: message.location.map(|at| (at.line_number, at.line_position, at.offset, at.length)),
        });
        self.reply(call, Reply::CompilationInfo(List::cut(messages)));
        Ok(())
    }

    /// The commands that create an object and need nothing else of the session.
    pub(crate) fn create(&mut self, command: Command) -> Result<(), End> {
        use Command as C;
        self.usage.add_object(&self.limits)?;
        let tables = &mut self.tables;
        match command {
            C::CreateBuffer { device, id, desc } => self.create_buffer(device, id, &desc),
            C::CreateTexture { device, id, desc } => self.create_texture(device, id, desc),
            C::CreateShaderModule { device, id, label, source } => {
                let device = &tables.devices.get(device)?.device;
                let module = create_shader_module(device, &label, &source)?;
                tables.shader_modules.insert(id, module)
            }
            C::CreateBindGroupLayout { device, id, label: name, entries } => {
                let desc = wgpu::BindGroupLayoutDescriptor { label: label(&name), entries: &entries };
                let layout = tables.devices.get(device)?.device.create_bind_group_layout(&desc);
                tables.bind_group_layouts.insert(id, layout)
            }
            C::CreateBindGroup { device, id, label: name, layout, entries } => {
                let charges = charges_of(tables, &entries)?;
                let entries = resolve_entries(tables, &entries)?;
                let layout = tables.bind_group_layouts.get(layout)?;
                let desc = wgpu::BindGroupDescriptor { label: label(&name), layout, entries: &entries };
                let group = tables.devices.get(device)?.device.create_bind_group(&desc);
                tables.bind_groups.insert(id, Keeper { object: group, charges })
            }
            C::CreatePipelineLayout { device, id, label: name, layouts, immediate_size } => {
                let layouts = layouts
                    .iter()
                    .map(|layout| layout.map(|id| tables.bind_group_layouts.get(id)).transpose())
                    .collect::<Result<Vec<_>, _>>()?;
                let desc = wgpu::PipelineLayoutDescriptor {
                    label: label(&name),
                    bind_group_layouts: &layouts,
                    immediate_size,
                };
                let layout = tables.devices.get(device)?.device.create_pipeline_layout(&desc);
                tables.pipeline_layouts.insert(id, layout)
            }
            C::ComputeBindGroupLayout { pipeline, index, id } => {
                let layout = tables.compute_pipelines.get(pipeline)?.get_bind_group_layout(index);
                tables.bind_group_layouts.insert(id, layout)
            }
            C::RenderBindGroupLayout { pipeline, index, id } => {
                let layout = tables.render_pipelines.get(pipeline)?.get_bind_group_layout(index);
                tables.bind_group_layouts.insert(id, layout)
            }
            C::CreateTextureView { texture, id, desc } => {
                let desc = wgpu::TextureViewDescriptor {
                    label: label(&desc.label),
                    format: desc.format,
                    dimension: desc.dimension,
                    usage: desc.usage,
                    aspect: desc.aspect,
                    base_mip_level: desc.base_mip_level,
                    mip_level_count: desc.mip_level_count,
                    base_array_layer: desc.base_array_layer,
                    array_layer_count: desc.array_layer_count,
                };
                let texture = tables.textures.get(texture)?;
                let charges = vec![texture.charge.clone()];
                let object = texture.texture.create_view(&desc);
                tables.views.insert(id, Keeper { object, charges })
            }
            C::CreateExternalTexture { device, id, desc, planes } => {
                let planes = planes
                    .iter()
                    .map(|plane| Ok(&tables.views.get(*plane)?.object))
                    .collect::<Result<Vec<_>, End>>()?;
                let device = &tables.devices.get(device)?.device;
                let texture = device.create_external_texture(&desc.map_label(label), &planes);
                tables.external_textures.insert(id, texture)
            }
            C::CreateSampler { device, id, desc } => {
                let sampler = tables.devices.get(device)?.device.create_sampler(&desc.map_label(label));
                tables.samplers.insert(id, sampler)
            }
            C::CreateQuerySet { device, id, desc } => {
                let set = tables.devices.get(device)?.device.create_query_set(&desc.map_label(label));
                tables.query_sets.insert(id, set)
            }
            C::CreateCommandEncoder { device, id, label: name } => {
                let desc = wgpu::CommandEncoderDescriptor { label: label(&name) };
                let encoder = tables.devices.get(device)?.device.create_command_encoder(&desc);
                tables.encoders.insert(id, crate::encode::Recording::new(encoder, self.recordings.begin()))
            }
            other => Err(End::Violation(format!("{other:?} creates nothing"))),
        }
    }

    fn create_buffer(
        &mut self,
        device_id: Id<kind::Device>,
        id: Id<kind::Buffer>,
        desc: &wgt::BufferDescriptor<Label>,
    ) -> Result<(), End> {
        let mut desc = desc.map_label(label);
        let (size, usage) = (desc.size, desc.usage);
        let charge = Charge::new(desc.size, &self.memory, self.limits.memory_bytes);
        if charge.is_some()
            && let Some((buffer, at, pages)) = self.create_in_arena(device_id, &desc)
        {
            let charge = charge.unwrap_or_else(|| Charge::nothing(&self.memory));
            charge.keep(pages);
            let in_arena = Some(at);
            let takes_copies = false;
            let entry = BufferEntry {
                buffer,
                device: device_id,
                size,
                usage,
                mapping: None,
                in_arena,
                takes_copies,
                charge,
            };
            return self.tables.buffers.insert(id, entry);
        }
        let device = &self.tables.devices.get(device_id)?.device;
        let before = self.reports.len();
        let buffer = if charge.is_some() {
            device.create_buffer(&desc)
        } else {
            self.reports.push(out_of_memory(device_id, "buffer", desc.size, self.memory.get(), &self.limits));
            // An object that `wgpu` knows to be invalid: whoever uses it hears so, as after any failed creation.
            (desc.size, desc.mapped_at_creation) = (!3, false);
            self.reports.quietly(|| device.create_buffer(&desc))
        };
        let takes_copies = BufferEntry::may_take_copies(&desc, self.reports.len() == before);
        let charge = charge.unwrap_or_else(|| Charge::nothing(&self.memory));
        let entry = BufferEntry {
            buffer,
            device: device_id,
            size,
            usage,
            mapping: None,
            in_arena: None,
            takes_copies,
            charge,
        };
        self.tables.buffers.insert(id, entry)
    }

    fn create_texture(
        &mut self,
        device_id: Id<kind::Device>,
        id: Id<kind::Texture>,
        desc: wgt::TextureDescriptor<
            Label,
            List<wgt::TextureFormat, { pontoon_wire::limits::MAX_VIEW_FORMATS }>,
        >,
    ) -> Result<(), End> {
        let device = &self.tables.devices.get(device_id)?.device;
        let mut desc = desc.map_label_and_view_formats(label, |formats| &formats[..]);
        let bytes = texture_bytes(&desc);
        let charge = Charge::new(bytes, &self.memory, self.limits.memory_bytes);
        let texture = if charge.is_some() {
            device.create_texture(&desc)
        } else {
            self.reports.push(out_of_memory(device_id, "texture", bytes, self.memory.get(), &self.limits));
            desc.size.width = 0;
            self.reports.quietly(|| device.create_texture(&desc))
        };
        let charge = charge.unwrap_or_else(|| Charge::nothing(&self.memory));
        self.tables.textures.insert(id, TextureEntry { texture, charge })
    }

    pub(crate) fn destroy_buffer(&mut self, id: Id<kind::Buffer>) -> Result<(), End> {
        self.settle_buffer(id)?;
        let entry = self.tables.buffers.get_mut(id)?;
        entry.buffer.destroy();
        entry.takes_copies = false;
        entry.charge.release();
        if let Some(at) = entry.mapping.take().and_then(|mapping| mapping.placed) {
            self.arena.free(at);
        }
        Ok(())
    }

    pub(crate) fn destroy_texture(&mut self, id: Id<kind::Texture>) -> Result<(), End> {
        let entry = self.tables.textures.get_mut(id)?;
        entry.texture.destroy();
        entry.charge.release();
        Ok(())
    }
}

fn out_of_memory(
    device: Id<kind::Device>,
    what: &str,
    bytes: u64,
    held: u64,
    limits: &crate::Limits,
) -> Report {
    let message = format!(
        "this {what} needs {bytes} bytes; the session holds {held} of the {} that it may (limits.memory_bytes): free buffers and textures or raise the limit",
        limits.memory_bytes
    );
    Report::Error { device, kind: ErrorKind::OutOfMemory, message }
}

fn open_device(adapter: &wgpu::Adapter, desc: &DeviceRequest) -> Result<(wgpu::Device, wgpu::Queue), String> {
    let denied = desc.features - OFFERED_FEATURES;
    if !denied.is_empty() {
        return Err(format!(
            "Pontoon does not offer the features {denied}: they would let a guest past validation"
        ));
    }
    let desc = wgpu::DeviceDescriptor {
        label: label(&desc.label),
        required_features: desc.features,
        required_limits: desc.limits.clone(),
        memory_hints: match desc.low_memory {
            true => wgpu::MemoryHints::MemoryUsage,
            false => wgpu::MemoryHints::Performance,
        },
        ..Default::default()
    };
    match import::open_device(adapter, &desc) {
        Some(opened) => Ok(opened),
        None => pollster::block_on(adapter.request_device(&desc)).map_err(|error| error.to_string()),
    }
}

fn create_shader_module(
    device: &wgpu::Device,
    name: &Label,
    source: &ShaderSource,
) -> Result<wgpu::ShaderModule, End> {
    let source = match source {
        ShaderSource::Wgsl(text) => wgpu::ShaderSource::Wgsl((**text).into()),
        ShaderSource::SpirV(bytes) => {
            let (words, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(End::Violation("SPIR-V that is not whole words".into()));
            }
            wgpu::ShaderSource::SpirV(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
        }
    };
    // `create_shader_module` compiles with all of naga's run-time checks, whatever the guest asked for.
    Ok(device.create_shader_module(wgpu::ShaderModuleDescriptor { label: label(name), source }))
}

/// What a bind group keeps alive.
fn charges_of(tables: &Tables, entries: &[BindGroupEntry]) -> Result<Charges, End> {
    let mut charges = Charges::new();
    for entry in entries {
        match &entry.resource {
            BindingResource::Buffer(part) => charges.push(tables.buffers.get(part.buffer)?.charge.clone()),
            BindingResource::TextureView(id) => {
                charges.extend(tables.views.get(*id)?.charges.iter().cloned())
            }
            BindingResource::Sampler(_) | BindingResource::ExternalTexture(_) => {}
        }
    }
    Ok(charges)
}

fn resolve_entries<'a>(
    tables: &'a Tables,
    entries: &[BindGroupEntry],
) -> Result<Vec<wgpu::BindGroupEntry<'a>>, End> {
    let resolve = |entry: &BindGroupEntry| {
        let resource = match &entry.resource {
            BindingResource::Buffer(part) => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &tables.buffers.get(part.buffer)?.buffer,
                offset: part.offset,
                size: part.size,
            }),
            BindingResource::Sampler(id) => wgpu::BindingResource::Sampler(tables.samplers.get(*id)?),
            BindingResource::TextureView(id) => {
                wgpu::BindingResource::TextureView(&tables.views.get(*id)?.object)
            }
            BindingResource::ExternalTexture(id) => {
                wgpu::BindingResource::ExternalTexture(tables.external_textures.get(*id)?)
            }
        };
        Ok(wgpu::BindGroupEntry { binding: entry.binding, resource })
    };
    entries.iter().map(resolve).collect()
}
