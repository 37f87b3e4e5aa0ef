//! `wgpu::Device`: creating objects, error scopes, losses. Nothing here waits, except for values.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use pontoon_wire::bounded::label;
use pontoon_wire::command::ShaderSource;
use pontoon_wire::event::ErrorKind;
use pontoon_wire::limits::MAX_SHADER_BYTES;
use pontoon_wire::{Blob, Command, Id, List, Text, handle as kind};
use wgpu::custom::*;

use crate::buffer::ClientBuffer;
use crate::bundle::ClientBundleEncoder;
use crate::encoder::ClientEncoder;
use crate::ids::Object;
use crate::objects::*;
use crate::session::Session;

#[derive(Debug)]
pub(crate) struct ClientDevice {
    pub object: Arc<Object<kind::Device>>,
    pub info: wgpu::AdapterInfo,
    pub features: wgpu::Features,
    pub limits: wgpu::Limits,
    pub timestamp_period: f32,
}

impl ClientDevice {
    pub fn session(&self) -> &Arc<Session> {
        &self.object.session
    }

    pub fn id(&self) -> Id<kind::Device> {
        self.object.id
    }

    /// A device of a session that is over.
    pub fn lost() -> Arc<Self> {
        let object = Object::new(&Session::over(), Id::new(0, 1));
        Arc::new(Self {
            object,
            info: wgpu::AdapterInfo::new(wgpu::DeviceType::Other, wgpu::Backend::Noop),
            features: wgpu::Features::empty(),
            limits: wgpu::Limits::default(),
            timestamp_period: 1.0,
        })
    }

    /// Reports a validation error that was found on this side.
    pub fn invalid(&self, what: &str, name: Option<&str>, message: &str) {
        let name = name.map(|name| format!(", label = '{name}'")).unwrap_or_default();
        let text = format!("Validation Error\n\nCaused by:\n  In {what}{name}\n    {message}\n");
        self.session().local_error(self.id().to_bits(), ErrorKind::Validation, text);
    }
}

impl Drop for ClientDevice {
    fn drop(&mut self) {
        // The program's callbacks go outside the lock: they may own objects of ours.
        let state = self.session().state().devices.remove(&self.id().to_bits());
        drop(state);
    }
}

/// The device as `wgpu` holds it; its objects hold it too.
#[derive(Debug)]
pub(crate) struct SharedDevice(pub Arc<ClientDevice>);

fn filter(filter: wgpu::ErrorFilter) -> ErrorKind {
    match filter {
        wgpu::ErrorFilter::Validation => ErrorKind::Validation,
        wgpu::ErrorFilter::OutOfMemory => ErrorKind::OutOfMemory,
        wgpu::ErrorFilter::Internal => ErrorKind::Internal,
    }
}

/// A future that does `work`, which may wait for the host, when it is first polled. Local `wgpu`'s
/// futures are ready at once too: nobody polls a device to complete them.
pub(crate) fn when_polled<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Pin<Box<impl Future<Output = T> + Send + 'static>> {
    let mut work = Some(work);
    Box::pin(poll_fn(move |_| match work.take() {
        Some(work) => Poll::Ready(work()),
        None => Poll::Pending,
    }))
}

fn shader_source(source: &wgpu::ShaderSource<'_>) -> Result<ShaderSource, String> {
    let too_long = |len: usize| {
        format!("The shader has {len} bytes, Pontoon takes at most {MAX_SHADER_BYTES}: split it into modules")
    };
    match source {
        wgpu::ShaderSource::Wgsl(text) if text.len() > MAX_SHADER_BYTES => Err(too_long(text.len())),
        wgpu::ShaderSource::Wgsl(text) => Ok(ShaderSource::Wgsl(Text::cut(&**text))),
        #[cfg(feature = "spirv")]
        wgpu::ShaderSource::SpirV(words) => {
            let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            Blob::new(bytes).map(ShaderSource::SpirV).map_err(too_long)
        }
        _ => {
            let _ = Blob::<0>::default();
            Err("Pontoon takes shaders as WGSL, or as SPIR-V with pontoon-client's feature `spirv`".into())
        }
    }
}

/// A popped scope; forgotten with its future, whether or not that was polled.
struct PoppedScope {
    session: Arc<Session>,
    number: u64,
}

impl Drop for PoppedScope {
    fn drop(&mut self) {
        drop(self.session.resolve_scope(self.number));
    }
}

impl DeviceInterface for SharedDevice {
    fn features(&self) -> wgpu::Features {
        self.0.features
    }

    fn limits(&self) -> wgpu::Limits {
        self.0.limits.clone()
    }

    fn adapter_info(&self) -> wgpu::AdapterInfo {
        self.0.info.clone()
    }

    fn create_shader_module(
        &self,
        desc: wgpu::ShaderModuleDescriptor<'_>,
        // The host compiles with all checks, whatever is asked here.
        _: wgpu::ShaderRuntimeChecks,
    ) -> DispatchShaderModule {
        let source = shader_source(&desc.source).unwrap_or_else(|message| {
            self.0.invalid("Device::create_shader_module", desc.label, &message);
            ShaderSource::Wgsl(Text::default())
        });
        let device = self.0.id();
        let label = label(desc.label);
        let object = self.0.session().create(|id| Command::CreateShaderModule { device, id, label, source });
        self.0.session().flush();
        DispatchShaderModule::custom(ClientShaderModule { object })
    }

    // SAFETY: `wgpu`'s signature; nothing unsafe is done, since passthrough is refused.
    unsafe fn create_shader_module_passthrough(
        &self,
        desc: &wgpu::ShaderModuleDescriptorPassthrough<'_>,
    ) -> DispatchShaderModule {
        let message = "Pontoon does not offer Features::PASSTHROUGH_SHADERS: every shader is checked by naga";
        self.0.invalid("Device::create_shader_module_passthrough", desc.label, message);
        let source = wgpu::ShaderSource::Wgsl("".into());
        let desc = wgpu::ShaderModuleDescriptor { label: desc.label, source };
        self.create_shader_module(desc, wgpu::ShaderRuntimeChecks::checked())
    }

    fn create_bind_group_layout(
        &self,
        desc: &wgpu::BindGroupLayoutDescriptor<'_>,
    ) -> DispatchBindGroupLayout {
        DispatchBindGroupLayout::custom(self.0.bind_group_layout(desc))
    }

    fn create_bind_group(&self, desc: &wgpu::BindGroupDescriptor<'_>) -> DispatchBindGroup {
        DispatchBindGroup::custom(self.0.bind_group(desc))
    }

    fn create_pipeline_layout(&self, desc: &wgpu::PipelineLayoutDescriptor<'_>) -> DispatchPipelineLayout {
        DispatchPipelineLayout::custom(self.0.pipeline_layout(desc))
    }

    fn create_render_pipeline(&self, desc: &wgpu::RenderPipelineDescriptor<'_>) -> DispatchRenderPipeline {
        DispatchRenderPipeline::custom(self.0.render_pipeline(desc))
    }

    fn create_mesh_pipeline(&self, desc: &wgpu::MeshPipelineDescriptor<'_>) -> DispatchRenderPipeline {
        DispatchRenderPipeline::custom(self.0.mesh_pipeline(desc))
    }

    fn create_compute_pipeline(&self, desc: &wgpu::ComputePipelineDescriptor<'_>) -> DispatchComputePipeline {
        DispatchComputePipeline::custom(self.0.compute_pipeline(desc))
    }

    // SAFETY: `wgpu`'s signature; nothing unsafe is done, since no cache is made.
    unsafe fn create_pipeline_cache(
        &self,
        desc: &wgpu::PipelineCacheDescriptor<'_>,
    ) -> DispatchPipelineCache {
        self.0.invalid("Device::create_pipeline_cache", desc.label, crate::unsupported::PIPELINE_CACHE);
        DispatchPipelineCache::custom(crate::unsupported::NoPipelineCache)
    }

    fn create_buffer(&self, desc: &wgpu::BufferDescriptor<'_>) -> DispatchBuffer {
        DispatchBuffer::custom(ClientBuffer::new(&self.0, desc))
    }

    fn create_texture(&self, desc: &wgpu::TextureDescriptor<'_>) -> DispatchTexture {
        let wire = desc
            .map_label_and_view_formats(|name| label(*name), |formats| List::cut(formats.iter().copied()));
        let device = self.0.id();
        let object = self.0.session().create(|id| Command::CreateTexture { device, id, desc: wire });
        DispatchTexture::custom(ClientTexture { object })
    }

    fn create_external_texture(
        &self,
        desc: &wgpu::ExternalTextureDescriptor<'_>,
        planes: &[&wgpu::TextureView],
    ) -> DispatchExternalTexture {
        let planes = List::cut(planes.iter().map(|plane| texture_view(plane).id));
        let (device, desc) = (self.0.id(), Box::new(desc.map_label(|name| label(*name))));
        let object =
            self.0.session().create(|id| Command::CreateExternalTexture { device, id, desc, planes });
        DispatchExternalTexture::custom(ClientExternalTexture { object })
    }

    fn create_blas(
        &self,
        desc: &wgpu::CreateBlasDescriptor<'_>,
        _: wgpu::BlasGeometrySizeDescriptors,
    ) -> (Option<u64>, DispatchBlas) {
        self.0.invalid("Device::create_blas", desc.label, crate::unsupported::RAY_TRACING);
        (None, DispatchBlas::custom(crate::unsupported::NoBlas))
    }

    fn create_tlas(&self, desc: &wgpu::CreateTlasDescriptor<'_>) -> DispatchTlas {
        self.0.invalid("Device::create_tlas", desc.label, crate::unsupported::RAY_TRACING);
        DispatchTlas::custom(crate::unsupported::NoTlas)
    }

    fn create_sampler(&self, desc: &wgpu::SamplerDescriptor<'_>) -> DispatchSampler {
        let (device, desc) = (self.0.id(), desc.map_label(|name| label(*name)));
        let object = self.0.session().create(|id| Command::CreateSampler { device, id, desc });
        DispatchSampler::custom(ClientSampler { object })
    }

    fn create_query_set(&self, desc: &wgpu::QuerySetDescriptor<'_>) -> DispatchQuerySet {
        let (device, desc) = (self.0.id(), desc.map_label(|name| label(*name)));
        let object = self.0.session().create(|id| Command::CreateQuerySet { device, id, desc });
        DispatchQuerySet::custom(ClientQuerySet { object })
    }

    fn create_command_encoder(&self, desc: &wgpu::CommandEncoderDescriptor<'_>) -> DispatchCommandEncoder {
        DispatchCommandEncoder::custom(ClientEncoder::new(&self.0, desc.label))
    }

    fn create_render_bundle_encoder(
        &self,
        desc: &wgpu::RenderBundleEncoderDescriptor<'_>,
    ) -> DispatchRenderBundleEncoder {
        DispatchRenderBundleEncoder::custom(ClientBundleEncoder::new(&self.0, desc))
    }

    fn set_device_lost_callback(&self, callback: BoxDeviceLostCallback) {
        let mut state = self.0.session().state();
        let dead = state.dead.clone();
        let Some(device) = state.devices.get_mut(&self.0.id().to_bits()) else { return };
        let lost = device.lost.clone().or(dead.map(|why| (wgpu::DeviceLostReason::Unknown, why)));
        let last = match lost {
            Some((reason, message)) => {
                state.ready.push_back(Box::new(move || callback(reason, message)));
                None
            }
            None => device.lost_callback.replace(callback),
        };
        drop(state);
        drop(last);
    }

    fn on_uncaptured_error(&self, handler: Arc<dyn wgpu::UncapturedErrorHandler>) {
        let mut state = self.0.session().state();
        let device = state.devices.get_mut(&self.0.id().to_bits());
        let last = device.and_then(|device| device.handler.replace(handler));
        drop(state);
        drop(last);
    }

    fn push_error_scope(&self, error_filter: wgpu::ErrorFilter) -> u32 {
        self.0.session().push_scope(self.0.id().to_bits(), filter(error_filter))
    }

    fn pop_error_scope(&self, index: u32) -> Pin<Box<dyn PopErrorScopeFuture>> {
        match self.0.session().pop_scope(self.0.id().to_bits(), index) {
            Ok((number, last)) => {
                let popped = PoppedScope { session: self.0.session().clone(), number };
                when_polled(move || {
                    if let Some(last) = last {
                        popped.session.settle(last);
                    }
                    let error = popped.session.resolve_scope(number);
                    popped.session.run_callbacks();
                    error
                })
            }
            // As locally: a mismatch is the program's mistake, unless it is unwinding already.
            Err(_) if std::thread::panicking() => Box::pin(std::future::ready(None)),
            Err(message) => panic!("{message}"),
        }
    }

    // SAFETY: `wgpu`'s signature; nothing unsafe is done.
    unsafe fn start_graphics_debugger_capture(&self) {
        log::warn!("graphics debuggers do not reach through Pontoon: start the capture on the host");
    }

    // SAFETY: `wgpu`'s signature; nothing is done.
    unsafe fn stop_graphics_debugger_capture(&self) {}

    fn poll(&self, poll_type: wgpu::wgt::PollType<u64>) -> Result<wgpu::PollStatus, wgpu::PollError> {
        crate::queue::poll(self.0.session(), self.0.id(), poll_type)
    }

    fn get_internal_counters(&self) -> wgpu::InternalCounters {
        wgpu::InternalCounters::default()
    }

    fn generate_allocator_report(&self) -> Option<wgpu::AllocatorReport> {
        None
    }

    fn destroy(&self) {
        self.0.session().command(&Command::DestroyDevice { device: self.0.id() });
        self.0.session().flush();
    }
}
