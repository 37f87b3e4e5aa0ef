//! One guest's session: its tables, and the way of a frame through them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use pontoon_uploads::Kept;
use pontoon_wire::event::{Event, Message};
use pontoon_wire::frame::{self, code};
use pontoon_wire::handle as kind;
use pontoon_wire::{Command, Id, Kind};

use crate::encode::Recording;
use crate::errors::{Report, Reports, error_event, panic_message};
use crate::in_place::{Freed, InPlace, Releases};
use crate::map::Mapping;
use crate::quota::{Charge, Charges, Recordings, Ticket};
use crate::table::Table;
use crate::upload::Write;
use crate::{Arena, End, Host, Limits, Usage};

/// A device and its queue.
#[derive(Debug)]
pub(crate) struct DeviceEntry {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// The guest's number of the last submission.
    pub submitted: u64,
    /// Submissions that were not seen finished yet, oldest first.
    pub in_flight: VecDeque<InFlight>,
    /// Bytes of upload since the queue was last seen empty.
    pub staged: u64,
    /// `wgpu` holds writes that wait for a submission.
    pub unsubmitted: bool,
    /// Uploads that the GPU takes out of shared memory.
    pub in_place: InPlace,
    /// Submissions that the guest wants to hear of, and the numbers of its questions.
    pub notify: VecDeque<(u64, u32)>,
}

/// A submission under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub index: u64,
    pub token: wgpu::SubmissionIndex,
    pub since: Instant,
    /// What it reads from the arena is the guest's again when this is dropped.
    pub reads: Option<Rc<()>>,
    /// Arena pages of dropped buffers that it may write to.
    pub pages: Vec<u64>,
}

/// A buffer and its mapping.
#[derive(Debug)]
pub(crate) struct BufferEntry {
    pub buffer: wgpu::Buffer,
    pub device: Id<kind::Device>,
    /// Size and usage as the guest asked for them; those of `buffer` differ where its creation failed.
    pub size: u64,
    pub usage: wgpu::BufferUsages,
    pub mapping: Option<Mapping>,
    /// Where in the arena its bytes are, for a buffer that lies there.
    pub in_arena: Option<u64>,
    /// Whether writes to it may be the GPU's copies out of the arena.
    pub takes_copies: bool,
    pub charge: Rc<Charge>,
}

/// A texture.
#[derive(Debug)]
pub(crate) struct TextureEntry {
    pub texture: wgpu::Texture,
    pub charge: Rc<Charge>,
}

/// An object that keeps memory alive, and what is counted for that.
#[derive(Debug)]
pub(crate) struct Keeper<T> {
    pub object: T,
    pub charges: Charges,
}

/// All objects of a session.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub devices: Table<kind::Device, DeviceEntry>,
    pub buffers: Table<kind::Buffer, BufferEntry>,
    pub textures: Table<kind::Texture, TextureEntry>,
    pub views: Table<kind::TextureView, Keeper<wgpu::TextureView>>,
    pub samplers: Table<kind::Sampler, wgpu::Sampler>,
    pub bind_group_layouts: Table<kind::BindGroupLayout, wgpu::BindGroupLayout>,
    pub bind_groups: Table<kind::BindGroup, Keeper<wgpu::BindGroup>>,
    pub pipeline_layouts: Table<kind::PipelineLayout, wgpu::PipelineLayout>,
    pub shader_modules: Table<kind::ShaderModule, wgpu::ShaderModule>,
    pub compute_pipelines: Table<kind::ComputePipeline, wgpu::ComputePipeline>,
    pub render_pipelines: Table<kind::RenderPipeline, wgpu::RenderPipeline>,
    pub query_sets: Table<kind::QuerySet, wgpu::QuerySet>,
    pub encoders: Table<kind::CommandEncoder, Recording>,
    pub command_buffers: Table<kind::CommandBuffer, (wgpu::CommandBuffer, Ticket)>,
    pub bundles: Table<kind::RenderBundle, Keeper<Option<wgpu::RenderBundle>>>,
    pub external_textures: Table<kind::ExternalTexture, wgpu::ExternalTexture>,
}

/// One guest's session.
pub struct Session {
    pub(crate) host: Rc<Host>,
    pub(crate) tables: Tables,
    pub(crate) limits: Limits,
    pub(crate) usage: Usage,
    pub(crate) reports: Reports,
    /// Bytes in buffers and textures.
    pub(crate) memory: Rc<Cell<u64>>,
    /// Recordings that are open or wait for a submission.
    pub(crate) recordings: Recordings,
    pub(crate) arena: Box<dyn Arena>,
    /// What is kept of uploads, where the host does so.
    pub(crate) kept: Option<Kept>,
    /// Places in the arena on their way back to the guest.
    pub(crate) releases: Releases,
    /// Arena pages of buffers that are gone.
    pub(crate) freed_pages: Freed,
    /// The buffer write whose pieces are arriving.
    pub(crate) write: Option<Write>,
    /// Mappings that `wgpu` has not answered yet.
    pub(crate) waiting: VecDeque<(u64, Id<kind::Buffer>)>,
    /// Payload for the next command.
    pub(crate) staged: Vec<u8>,
    /// Frames for the guest.
    pub(crate) out: Vec<u8>,
    /// Room for copies out of shared memory, kept.
    pub(crate) scratch: Vec<u8>,
    /// Room for a payload that the guest named, kept.
    pub(crate) named: Vec<u8>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("usage", &self.usage).finish_non_exhaustive()
    }
}

impl Session {
    /// A session without objects.
    pub fn new(host: Rc<Host>, limits: Limits, arena: Box<dyn Arena>) -> Self {
        Self {
            host,
            tables: Tables::default(),
            limits,
            usage: Usage::default(),
            reports: Reports::default(),
            memory: Rc::default(),
            recordings: Recordings::default(),
            arena,
            kept: None,
            releases: Releases::default(),
            freed_pages: Rc::default(),
            write: None,
            waiting: VecDeque::new(),
            staged: Vec::new(),
            out: Vec::new(),
            scratch: Vec::new(),
            named: Vec::new(),
        }
    }

    /// Keeps uploads from now on, and takes their names instead.
    pub fn keep_uploads(&mut self, kept: Kept) {
        self.kept = Some(kept);
    }

    /// What the session uses.
    pub fn usage(&self) -> Usage {
        Usage { memory_bytes: self.memory.get(), ..self.usage }
    }

    /// Frames for the guest, to be sent and cleared.
    pub fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Executes one frame. Its errors, if `wgpu` rejects it, are in the outbox afterwards.
    ///
    /// # Errors
    /// [`End`] where the session is over.
    pub fn execute(&mut self, code: u8, body: &[u8]) -> Result<(), End> {
        // `wgpu` panics on a few misuses that it does not validate: that ends this session, with a reason.
        let mut named = std::mem::take(&mut self.named);
        let execute = AssertUnwindSafe(|| self.execute_frame(code, body, &mut named));
        let executed =
            catch_unwind(execute).unwrap_or_else(|panic| Err(End::Panic(panic_message(&*panic).to_owned())));
        self.named = named;
        executed
    }

    fn execute_frame(&mut self, code: u8, body: &[u8], named: &mut Vec<u8>) -> Result<(), End> {
        self.usage.commands += 1;
        match code {
            code::ENCODE => self.encode(frame::Encode::decode(body)?)?,
            code::SUBMIT => self.submit(frame::Submit::decode(body)?)?,
            code::FORGET => self.forget(frame::Forget::decode(body)?)?,
            code::WRITE_BUFFER => {
                let write = self.received_write(body, named)?;
                self.write_buffer(write)?;
                // Pieces are written with `write_buffer_with`; the program called `write_buffer`.
                self.reports.rename("Queue::write_buffer_with", "Queue::write_buffer");
            }
            code::REJECT_WRITE_WITH => self.reject_write_with(frame::WriteBuffer::decode(body)?)?,
            code::WRITE_MAPPED => {
                let write = self.received_write(body, named)?;
                self.write_mapped(write)?;
            }
            code::STAGE => self.stage(body, named)?,
            code::COMMAND => self.command(pontoon_wire::decode(body)?)?,
            code => return Err(End::Violation(format!("unknown frame code {code}"))),
        }
        self.collect_reports();
        Ok(())
    }

    fn command(&mut self, command: Command) -> Result<(), End> {
        use Command as C;
        match command {
            C::Barrier { call } => {
                self.collect_reports();
                self.reply(call, pontoon_wire::event::Reply::Barrier);
            }
            C::RequestDevice { call, adapter, id, desc } => self.request_device(call, adapter, id, &desc)?,
            C::FormatFeatures { call, adapter, format } => self.format_features(call, adapter, format)?,
            C::CompilationInfo { call, module } => self.compilation_info(call, module)?,
            C::NotifyDone { device, index, call } => self.notify_done(device, index, call)?,
            C::MapBuffer { buffer, map, write, offset, size } => {
                self.map(buffer, map, write, offset..offset.saturating_add(size))?
            }
            C::UnmapBuffer { buffer } => self.unmap(buffer)?,
            C::WriteTexture { device, destination, layout, size, staged } => {
                self.write_texture(device, destination, layout, size, staged)?;
            }
            C::FinishEncoder { encoder, id } => self.finish_encoder(encoder, id)?,
            C::CreateRenderBundle { device, id, desc } => self.create_bundle(device, id, &desc)?,
            C::CreateComputePipeline { device, id, desc } => {
                self.create_compute_pipeline(device, id, &desc)?
            }
            C::CreateRenderPipeline { device, id, desc } => self.create_render_pipeline(device, id, &desc)?,
            C::DestroyBuffer { buffer } => self.destroy_buffer(buffer)?,
            C::DestroyTexture { texture } => self.destroy_texture(texture)?,
            C::DestroyExternalTexture { texture } => self.tables.external_textures.get(texture)?.destroy(),
            C::DestroyQuerySet { query_set } => self.tables.query_sets.get(query_set)?.destroy(),
            C::DestroyDevice { device } => {
                self.submit_copies(device)?;
                self.tables.devices.get(device)?.device.destroy();
            }
            create => self.create(create)?,
        }
        Ok(())
    }

    /// Turns what `wgpu` reported since the last call into events.
    pub(crate) fn collect_reports(&mut self) {
        for report in self.reports.take() {
            let event = match report {
                Report::Error { device, kind, message } => {
                    self.usage.errors += 1;
                    error_event(device, self.usage.commands, kind, message)
                }
                Report::Lost { device, destroyed, message } => {
                    Event::DeviceLost { device, destroyed, message: Message::cut(message) }
                }
                Report::Mapped { map, ok } => {
                    self.mapped(map, ok);
                    continue;
                }
            };
            self.send(&event);
        }
    }

    pub(crate) fn send(&mut self, event: &Event) {
        frame::put_encoded(&mut self.out, code::EVENT, event);
    }

    pub(crate) fn reply(&mut self, call: u32, reply: pontoon_wire::event::Reply) {
        self.usage.round_trips += 1;
        self.send(&Event::Reply { call, reply });
    }

    fn forget(&mut self, forget: frame::Forget) -> Result<(), End> {
        fn id<K>(forget: frame::Forget) -> Id<K> {
            Id::from_bits(forget.id)
        }
        match forget.kind {
            kind::Buffer::CODE => self.settle_buffer(id(forget))?,
            kind::Device::CODE => self.finish_copies(id(forget))?,
            _ => {}
        }
        let tables = &mut self.tables;
        match forget.kind {
            kind::Buffer::CODE => {
                let entry = tables.buffers.remove(id(forget))?;
                self.recordings.outlive([entry.charge]);
                if let Some(at) = entry.mapping.and_then(|mapping| mapping.placed) {
                    self.arena.free(at);
                }
            }
            kind::Texture::CODE => self.recordings.outlive([tables.textures.remove(id(forget))?.charge]),
            kind::Device::CODE => drop(tables.devices.remove(id(forget))?),
            kind::TextureView::CODE => self.recordings.outlive(tables.views.remove(id(forget))?.charges),
            kind::Sampler::CODE => drop(tables.samplers.remove(id(forget))?),
            kind::BindGroupLayout::CODE => drop(tables.bind_group_layouts.remove(id(forget))?),
            kind::BindGroup::CODE => self.recordings.outlive(tables.bind_groups.remove(id(forget))?.charges),
            kind::PipelineLayout::CODE => drop(tables.pipeline_layouts.remove(id(forget))?),
            kind::ShaderModule::CODE => drop(tables.shader_modules.remove(id(forget))?),
            kind::ComputePipeline::CODE => drop(tables.compute_pipelines.remove(id(forget))?),
            kind::RenderPipeline::CODE => drop(tables.render_pipelines.remove(id(forget))?),
            kind::QuerySet::CODE => drop(tables.query_sets.remove(id(forget))?),
            kind::CommandEncoder::CODE => {
                let recording = tables.encoders.remove(id(forget))?;
                self.recordings.end(&recording.ticket);
            }
            kind::CommandBuffer::CODE => {
                let (_, ticket) = tables.command_buffers.remove(id(forget))?;
                self.recordings.end(&ticket);
            }
            kind::RenderBundle::CODE => self.recordings.outlive(tables.bundles.remove(id(forget))?.charges),
            kind::ExternalTexture::CODE => drop(tables.external_textures.remove(id(forget))?),
            code => return Err(End::Violation(format!("unknown kind of object {code}"))),
        }
        self.usage.objects -= 1;
        Ok(())
    }
}
