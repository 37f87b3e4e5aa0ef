//! A guest without a socket: frames go straight into a session on `wgpu`'s noop back end.
#![allow(dead_code, reason = "each test file uses its part")]

use std::rc::Rc;

use pontoon_executor::{Arena, Backend, End, Host, Limits, NoArena, Session};
use pontoon_wire::command::*;
use pontoon_wire::event::{ErrorKind, Event, Reply};
use pontoon_wire::frame::{self, FrameBuffer, Payload, WriteBuffer, code};
use pontoon_wire::limits::MAX_FRAME_BODY;
use pontoon_wire::{Blob, Command, Id, List, Op, Text, handle as kind};
use wgpu::wgt;

thread_local! {
    static HOST: Rc<Host> = Rc::new(Host::open(Backend::Noop));
}

/// A guest and the session that serves it.
pub struct Guest {
    pub session: Session,
    /// Sequence number of the last command.
    pub sequence: u64,
}

/// What writes a frame.
pub type Fill<'a> = &'a dyn Fn(&mut Vec<u8>);

/// The names that [`Guest::furnished`] gives.
pub const DEVICE: Id<kind::Device> = Id::new(0, 1);
pub const BUFFER: Id<kind::Buffer> = Id::new(0, 1);
pub const MAPPABLE: Id<kind::Buffer> = Id::new(1, 1);
pub const TEXTURE: Id<kind::Texture> = Id::new(0, 1);
pub const TARGET: Id<kind::TextureView> = Id::new(0, 1);
pub const QUERIES: Id<kind::QuerySet> = Id::new(0, 1);
pub const COMPUTE: Id<kind::ComputePipeline> = Id::new(0, 1);
pub const RENDER: Id<kind::RenderPipeline> = Id::new(0, 1);
pub const GROUP: Id<kind::BindGroup> = Id::new(0, 1);
/// Bytes in the furnished buffers.
pub const SIZE: u64 = 256;

impl Guest {
    /// A session without objects.
    pub fn new(limits: Limits) -> Self {
        Self::with_arena(limits, Box::new(NoArena))
    }

    pub fn with_arena(limits: Limits, arena: Box<dyn Arena>) -> Self {
        Self { session: Session::new(HOST.with(Rc::clone), limits, arena), sequence: 0 }
    }

    /// A session with one device.
    pub fn with_device() -> Self {
        let mut guest = Self::new(Limits::default());
        guest.device(DEVICE);
        guest
    }

    /// A session with one valid object of every kind that a program usually has.
    pub fn furnished() -> Self {
        let mut guest = Self::new(Limits::default());
        furnish(&mut |fill| {
            guest.frame(fill).unwrap();
            assert_eq!(guest.errors(), []);
        });
        guest
    }

    pub fn device(&mut self, id: Id<kind::Device>) {
        self.command(request_device(id)).unwrap();
        let events = self.events();
        assert!(matches!(&events[..], [Event::Reply { reply: Reply::Device(Ok(_)), .. }]), "{events:?}");
    }

    /// Executes the one frame that `fill` writes.
    pub fn frame(&mut self, fill: Fill<'_>) -> Result<(), End> {
        let mut bytes = Vec::new();
        fill(&mut bytes);
        let (code, body, taken) = frame::split(&bytes, MAX_FRAME_BODY).unwrap().expect("a whole frame");
        assert_eq!(taken, bytes.len());
        self.sequence += 1;
        self.session.execute(code, body)
    }

    pub fn command(&mut self, command: Command) -> Result<(), End> {
        self.frame(&|out| frame::put_encoded(out, code::COMMAND, &command))
    }

    /// A piece of a recording.
    pub fn encode(&mut self, encoder: u32, ops: &[Op<'_>]) -> Result<(), End> {
        let mut bytes = Vec::new();
        ops.iter().for_each(|op| op.put(&mut bytes));
        self.frame(&|out| frame::Encode { encoder: Id::new(encoder, 1), ops: &bytes }.put(out))
    }

    /// Records `ops` in encoder and command buffer `number`, which must be the next ones.
    pub fn record(&mut self, number: u32, ops: &[Op<'_>]) -> Result<(), End> {
        let id = Id::new(number, 1);
        self.command(Command::CreateCommandEncoder { device: DEVICE, id, label: None })?;
        self.encode(number, ops)?;
        self.command(Command::FinishEncoder { encoder: id, id: Id::new(number, 1) })
    }

    pub fn submit(&mut self, index: u64, buffers: &[u32]) -> Result<(), End> {
        let buffers: Vec<_> = buffers.iter().map(|number| Id::new(*number, 1)).collect();
        self.frame(&|out| frame::Submit::put(out, DEVICE, index, &buffers))
    }

    pub fn write(&mut self, offset: u64, total: u64, at: u64, bytes: &[u8]) -> Result<(), End> {
        let payload = Payload::Inline(bytes);
        let write = WriteBuffer { buffer: BUFFER, offset, total, at, payload };
        self.frame(&|out| write.put(out, code::WRITE_BUFFER))
    }

    pub fn forget(&mut self, kind: u8, id: u64) -> Result<(), End> {
        self.frame(&|out| frame::Forget { kind, id }.put(out))
    }

    /// What the session has sent since the last look.
    pub fn events(&mut self) -> Vec<Event> {
        let mut frames = FrameBuffer::default();
        frames.space().append(self.session.outbox());
        let mut events = Vec::new();
        while let Some((code, body)) = frames.next_frame().unwrap() {
            if code == code::EVENT {
                events.push(pontoon_wire::decode(body).unwrap());
            }
        }
        events
    }

    /// The errors among them: sequence number, kind, text.
    pub fn errors(&mut self) -> Vec<(u64, ErrorKind, String)> {
        let error = |event| match event {
            Event::Error { sequence, kind, message, .. } => Some((sequence, kind, message.into_string())),
            _ => None,
        };
        self.events().into_iter().filter_map(error).collect()
    }

    /// That the last command, and nothing else, was rejected once.
    #[track_caller]
    pub fn expect_error(&mut self, kind: ErrorKind) -> String {
        let errors = self.errors();
        let [(sequence, found, message)] = &errors[..] else { panic!("not one error but {errors:?}") };
        assert_eq!((*sequence, *found), (self.sequence, kind), "{message}");
        message.clone()
    }
}

/// The message of a violation.
#[track_caller]
pub fn violation(result: Result<(), End>) -> String {
    match result {
        Err(End::Violation(message)) => message,
        other => panic!("no violation but {other:?}"),
    }
}

pub fn request_device(id: Id<kind::Device>) -> Command {
    let desc = DeviceRequest {
        label: None,
        features: wgt::Features::TIMESTAMP_QUERY | wgt::Features::IMMEDIATES | wgt::Features::CLEAR_TEXTURE,
        limits: wgt::Limits { max_immediate_size: 16, ..Default::default() },
        low_memory: false,
    };
    Command::RequestDevice { call: 1, adapter: 0, id, desc: Box::new(desc) }
}

pub fn create_buffer(index: u32, size: u64, usage: wgt::BufferUsages, mapped_at_creation: bool) -> Command {
    let desc = wgt::BufferDescriptor { label: None, size, usage, mapped_at_creation };
    Command::CreateBuffer { device: DEVICE, id: Id::new(index, 1), desc }
}

pub fn create_texture(
    index: u32,
    size: wgt::Extent3d,
    mip_level_count: u32,
    usage: wgt::TextureUsages,
) -> Command {
    let desc = wgt::TextureDescriptor {
        label: None,
        size,
        mip_level_count,
        sample_count: 1,
        dimension: wgt::TextureDimension::D2,
        format: wgt::TextureFormat::Rgba8Unorm,
        usage,
        view_formats: List::default(),
    };
    Command::CreateTexture { device: DEVICE, id: Id::new(index, 1), desc }
}

pub fn place(texture: Id<kind::Texture>) -> TextureLocation {
    TextureLocation { texture, mip_level: 0, origin: wgt::Origin3d::ZERO, aspect: wgt::TextureAspect::All }
}

pub fn begin_render() -> Op<'static> {
    let target = ColorAttachment {
        view: TARGET,
        depth_slice: None,
        resolve_target: None,
        clear: Some(wgt::Color::BLACK),
        store: true,
    };
    let desc = RenderPassDesc {
        label: None,
        color: List::cut([Some(target)]),
        depth_stencil: None,
        timestamps: None,
        occlusion_query_set: None,
        multiview_mask: None,
    };
    Op::BeginRenderPass { desc: pontoon_wire::ops::Coded(Box::new(desc)) }
}

pub fn begin_compute() -> Op<'static> {
    Op::BeginComputePass {
        desc: pontoon_wire::ops::Coded(Box::new(ComputePassDesc { label: None, timestamps: None })),
    }
}

const SHADER: &str = "
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(1) fn compute(@builtin(global_invocation_id) id: vec3u) { data[id.x] += 1u; }
@vertex fn vertex(@location(0) at: vec4f) -> @builtin(position) vec4f { return at; }
@fragment fn fragment() -> @location(0) vec4f { return vec4f(1.0); }
";

fn stage(entry_point: &str) -> Stage {
    Stage {
        module: Id::new(0, 1),
        entry_point: Some(Text::cut(entry_point)),
        constants: List::default(),
        zero_initialize_workgroup_memory: true,
    }
}

fn render_pipeline() -> RenderPipelineDesc {
    let attribute =
        wgt::VertexAttribute { format: wgt::VertexFormat::Float32x4, offset: 0, shader_location: 0 };
    let buffer = VertexBufferLayout {
        array_stride: 16,
        step_mode: wgt::VertexStepMode::Vertex,
        attributes: List::cut([attribute]),
    };
    RenderPipelineDesc {
        label: None,
        layout: None,
        vertex: stage("vertex"),
        buffers: List::cut([Some(buffer)]),
        primitive: Default::default(),
        depth_stencil: None,
        multisample: Default::default(),
        fragment: Some((stage("fragment"), List::cut([Some(wgt::TextureFormat::Rgba8Unorm.into())]))),
        multiview_mask: None,
    }
}

/// The frames that furnish a session, each through `send`.
pub fn furnish(send: &mut dyn FnMut(Fill<'_>)) {
    use wgt::BufferUsages as B;
    let extent = wgt::Extent3d { width: 16, height: 16, depth_or_array_layers: 1 };
    let usage =
        B::COPY_SRC | B::COPY_DST | B::VERTEX | B::INDEX | B::STORAGE | B::INDIRECT | B::QUERY_RESOLVE;
    let textures =
        wgt::TextureUsages::COPY_SRC | wgt::TextureUsages::COPY_DST | wgt::TextureUsages::RENDER_ATTACHMENT;
    let layout_entry = wgt::BindGroupLayoutEntry {
        binding: 0,
        visibility: wgt::ShaderStages::COMPUTE,
        ty: wgt::BindingType::Buffer {
            ty: wgt::BufferBindingType::Storage { read_only: false },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let binding = BufferBinding { buffer: BUFFER, offset: 0, size: None };
    let queries = wgt::QuerySetDescriptor { label: None, ty: wgt::QueryType::Timestamp, count: 4 };
    let compute = ComputePipelineDesc { label: None, layout: Some(Id::new(0, 1)), stage: stage("compute") };
    let commands = [
        request_device(DEVICE),
        create_buffer(0, SIZE, usage, false),
        create_buffer(1, SIZE, B::MAP_READ | B::COPY_DST, false),
        create_texture(0, extent, 1, textures),
        Command::CreateTextureView { texture: TEXTURE, id: TARGET, desc: Default::default() },
        Command::CreateSampler { device: DEVICE, id: Id::new(0, 1), desc: Default::default() },
        Command::CreateQuerySet { device: DEVICE, id: QUERIES, desc: queries },
        Command::CreateShaderModule {
            device: DEVICE,
            id: Id::new(0, 1),
            label: None,
            source: ShaderSource::Wgsl(Text::cut(SHADER)),
        },
        Command::CreateBindGroupLayout {
            device: DEVICE,
            id: Id::new(0, 1),
            label: None,
            entries: List::cut([layout_entry]),
        },
        Command::CreateBindGroup {
            device: DEVICE,
            id: GROUP,
            label: None,
            layout: Id::new(0, 1),
            entries: List::cut([BindGroupEntry { binding: 0, resource: BindingResource::Buffer(binding) }]),
        },
        Command::CreatePipelineLayout {
            device: DEVICE,
            id: Id::new(0, 1),
            label: None,
            layouts: List::cut([Some(Id::new(0, 1))]),
            immediate_size: 16,
        },
        Command::CreateComputePipeline { device: DEVICE, id: COMPUTE, desc: Box::new(compute) },
        Command::CreateRenderPipeline { device: DEVICE, id: RENDER, desc: Box::new(render_pipeline()) },
        Command::CreateRenderBundle { device: DEVICE, id: Id::new(0, 1), desc: Box::new(bundle(&[])) },
    ];
    for command in commands {
        send(&|out| frame::put_encoded(out, code::COMMAND, &command));
    }
}

/// A render bundle that fits the furnished target.
pub fn bundle(ops: &[Op<'_>]) -> RenderBundleDesc {
    let mut bytes = Vec::new();
    ops.iter().for_each(|op| op.put(&mut bytes));
    RenderBundleDesc {
        encoder_label: None,
        label: None,
        color_formats: List::cut([Some(wgt::TextureFormat::Rgba8Unorm)]),
        depth_stencil: None,
        sample_count: 1,
        multiview: None,
        ops: Blob::new(bytes).unwrap(),
    }
}
