//! The host's GPUs: opened once by a worker, before it knows whom it will serve.

use pontoon_wire::List;
use pontoon_wire::hello;
use wgpu::Features;

/// Features that a guest may have. Left out, and why: whatever hands shaders or memory past validation
/// (shader passthrough, external memory, pipeline caches), what `wgpu` itself calls experimental, binding
/// arrays, whose indices naga does not check, and draws whose count the GPU reads, whose arguments
/// `wgpu` does not check.
pub const OFFERED_FEATURES: Features = Features::DEPTH_CLIP_CONTROL
    .union(Features::DEPTH32FLOAT_STENCIL8)
    .union(Features::TEXTURE_COMPRESSION_BC)
    .union(Features::TEXTURE_COMPRESSION_BC_SLICED_3D)
    .union(Features::TEXTURE_COMPRESSION_ETC2)
    .union(Features::TEXTURE_COMPRESSION_ASTC)
    .union(Features::TEXTURE_COMPRESSION_ASTC_SLICED_3D)
    .union(Features::TIMESTAMP_QUERY)
    .union(Features::INDIRECT_FIRST_INSTANCE)
    .union(Features::SHADER_F16)
    .union(Features::RG11B10UFLOAT_RENDERABLE)
    .union(Features::BGRA8UNORM_STORAGE)
    .union(Features::FLOAT32_FILTERABLE)
    .union(Features::FLOAT32_BLENDABLE)
    .union(Features::DUAL_SOURCE_BLENDING)
    .union(Features::CLIP_DISTANCES)
    .union(Features::IMMEDIATES)
    .union(Features::PRIMITIVE_INDEX)
    .union(Features::SHADER_FLOAT32_ATOMIC)
    .union(Features::TEXTURE_FORMAT_16BIT_NORM)
    .union(Features::TEXTURE_COMPRESSION_ASTC_HDR)
    .union(Features::TEXTURE_ADAPTER_SPECIFIC_FORMAT_FEATURES)
    .union(Features::PIPELINE_STATISTICS_QUERY)
    .union(Features::TIMESTAMP_QUERY_INSIDE_ENCODERS)
    .union(Features::TIMESTAMP_QUERY_INSIDE_PASSES)
    .union(Features::MAPPABLE_PRIMARY_BUFFERS)
    .union(Features::ADDRESS_MODE_CLAMP_TO_ZERO)
    .union(Features::ADDRESS_MODE_CLAMP_TO_BORDER)
    .union(Features::POLYGON_MODE_LINE)
    .union(Features::POLYGON_MODE_POINT)
    .union(Features::CONSERVATIVE_RASTERIZATION)
    .union(Features::VERTEX_WRITABLE_STORAGE)
    .union(Features::CLEAR_TEXTURE)
    .union(Features::MULTIVIEW)
    .union(Features::SELECTIVE_MULTIVIEW)
    .union(Features::MULTISAMPLE_ARRAY)
    .union(Features::VERTEX_ATTRIBUTE_64BIT)
    .union(Features::TEXTURE_ATOMIC)
    .union(Features::TEXTURE_INT64_ATOMIC)
    .union(Features::TEXTURE_FORMAT_NV12)
    .union(Features::TEXTURE_FORMAT_P010)
    .union(Features::EXTERNAL_TEXTURE)
    .union(Features::SHADER_F64)
    .union(Features::SHADER_I16)
    .union(Features::SHADER_INT64)
    .union(Features::SHADER_INT64_ATOMIC_MIN_MAX)
    .union(Features::SHADER_INT64_ATOMIC_ALL_OPS)
    .union(Features::SHADER_EARLY_DEPTH_TEST)
    .union(Features::SHADER_BARYCENTRICS)
    .union(Features::SHADER_PER_VERTEX)
    .union(Features::SHADER_DRAW_INDEX)
    .union(Features::SUBGROUP)
    .union(Features::SUBGROUP_VERTEX)
    .union(Features::SUBGROUP_BARRIER);

/// What executes commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The host's GPU drivers.
    Gpu,
    /// `wgpu`'s back end that validates and executes nothing: for tests.
    Noop,
}

/// The opened GPUs.
#[derive(Debug)]
pub struct Host {
    adapters: Vec<wgpu::Adapter>,
}

impl Host {
    /// Opens all GPUs, the best first: discrete, integrated, virtual, then CPU.
    pub fn open(backend: Backend) -> Self {
        let backends = match backend {
            Backend::Gpu => wgpu::Backends::VULKAN | wgpu::Backends::METAL,
            Backend::Noop => wgpu::Backends::NOOP,
        };
        let mut desc = wgpu::InstanceDescriptor::new_without_display_handle();
        desc.backends = backends;
        desc.flags = wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL;
        desc.backend_options.noop.enable = backend == Backend::Noop;
        let instance = wgpu::Instance::new(desc);
        let mut adapters = pollster::block_on(instance.enumerate_adapters(backends));
        adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        });
        Self { adapters }
    }

    /// Keeps only the adapters for which `wanted` says yes.
    pub fn retain(&mut self, wanted: impl Fn(&wgpu::AdapterInfo) -> bool) {
        self.adapters.retain(|adapter| wanted(&adapter.get_info()));
    }

    /// The opened adapters, best first.
    pub fn adapters(&self) -> &[wgpu::Adapter] {
        &self.adapters
    }

    /// What a guest is told of the adapters.
    pub fn offers(&self) -> List<hello::Adapter, { pontoon_wire::limits::MAX_ADAPTERS }> {
        List::cut(self.adapters.iter().map(|adapter| hello::Adapter {
            info: adapter.get_info(),
            features: adapter.features() & OFFERED_FEATURES,
            limits: adapter.limits(),
            downlevel: adapter.get_downlevel_capabilities(),
        }))
    }

    /// Makes the driver do once what it does lazily at the first device: load its compiler, start its
    /// threads. A session that begins afterwards begins sooner.
    pub fn warm_up(&self) {
        let Some(adapter) = self.adapters.first() else { return };
        let Ok((device, queue)) =
            pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))
        else {
            return;
        };
        let source = wgpu::ShaderSource::Wgsl("@compute @workgroup_size(1) fn main() {}".into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        queue.submit([encoder.finish()]);
        let _ = device.poll(wgpu::PollType::wait_indefinitely());
    }
}
