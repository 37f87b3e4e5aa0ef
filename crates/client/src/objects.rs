//! The objects that are little more than a name.

use std::pin::Pin;
use std::sync::Arc;

use pontoon_wire::bounded::label;
use pontoon_wire::event::Reply;
use pontoon_wire::{Command, handle as kind};
use wgpu::custom::*;

use crate::device::when_polled;
use crate::ids::Object;

macro_rules! objects {
    ($($name:ident $kind:ident $wgpu:ident $lookup:ident,)*) => {$(
        #[derive(Debug)]
        pub(crate) struct $name {
            pub object: Arc<Object<kind::$kind>>,
        }

        /// The object behind one of `wgpu`'s.
        ///
        /// # Panics
        /// Where it belongs to another implementation of `wgpu`, as local `wgpu` does.
        #[allow(dead_code, reason = "not every kind is looked up")]
        pub(crate) fn $lookup(object: &wgpu::$wgpu) -> &Arc<Object<kind::$kind>> {
            match object.as_custom::<$name>() {
                Some(object) => &object.object,
                None => panic!(concat!(stringify!($wgpu), " is not from this Pontoon device")),
            }
        }
    )*};
}

objects! {
    ClientShaderModule ShaderModule ShaderModule shader_module,
    ClientBindGroupLayout BindGroupLayout BindGroupLayout bind_group_layout,
    ClientBindGroup BindGroup BindGroup bind_group,
    ClientPipelineLayout PipelineLayout PipelineLayout pipeline_layout,
    ClientComputePipeline ComputePipeline ComputePipeline compute_pipeline,
    ClientRenderPipeline RenderPipeline RenderPipeline render_pipeline,
    ClientTexture Texture Texture texture,
    ClientTextureView TextureView TextureView texture_view,
    ClientExternalTexture ExternalTexture ExternalTexture external_texture,
    ClientSampler Sampler Sampler sampler,
    ClientQuerySet QuerySet QuerySet query_set,
    ClientRenderBundle RenderBundle RenderBundle render_bundle,
}

/// The object behind one of `wgpu`'s dispatch types.
///
/// # Panics
/// Where it belongs to another implementation of `wgpu`.
macro_rules! dispatched {
    ($($lookup:ident $dispatch:ident $name:ident $kind:ident,)*) => {$(
        #[inline]
        pub(crate) fn $lookup(object: &$dispatch) -> &Arc<Object<kind::$kind>> {
            match object.as_custom::<$name>() {
                Some(object) => &object.object,
                None => panic!(concat!(stringify!($kind), " is not from this Pontoon device")),
            }
        }
    )*};
}

dispatched! {
    dispatched_bind_group DispatchBindGroup ClientBindGroup BindGroup,
    dispatched_compute_pipeline DispatchComputePipeline ClientComputePipeline ComputePipeline,
    dispatched_render_pipeline DispatchRenderPipeline ClientRenderPipeline RenderPipeline,
    dispatched_query_set DispatchQuerySet ClientQuerySet QuerySet,
    dispatched_render_bundle DispatchRenderBundle ClientRenderBundle RenderBundle,
    dispatched_texture DispatchTexture ClientTexture Texture,
}

impl BindGroupLayoutInterface for ClientBindGroupLayout {}
impl BindGroupInterface for ClientBindGroup {}
impl PipelineLayoutInterface for ClientPipelineLayout {}
impl TextureViewInterface for ClientTextureView {}
impl SamplerInterface for ClientSampler {}
impl RenderBundleInterface for ClientRenderBundle {}

impl ShaderModuleInterface for ClientShaderModule {
    fn get_compilation_info(&self) -> Pin<Box<dyn ShaderCompilationInfoFuture>> {
        let object = self.object.clone();
        when_polled(move || {
            let module = object.id;
            let reply = object.session.ask(|call| Command::CompilationInfo { call, module });
            let messages = match reply {
                Some(Reply::CompilationInfo(messages)) => messages.into_vec(),
                _ => Vec::new(),
            };
            wgpu::CompilationInfo { messages: messages.into_iter().map(message).collect() }
        })
    }
}

fn message(message: pontoon_wire::event::CompilationMessage) -> wgpu::CompilationMessage {
    wgpu::CompilationMessage {
        message: message.message.into_string(),
        message_type: match message.severity {
            0 => wgpu::CompilationMessageType::Error,
            1 => wgpu::CompilationMessageType::Warning,
            _ => wgpu::CompilationMessageType::Info,
        },
        location: message.location.map(|(line_number, line_position, offset, length)| wgpu::SourceLocation {
            line_number,
            line_position,
            offset,
            length,
        }),
    }
}

impl TextureInterface for ClientTexture {
    fn create_view(&self, desc: &wgpu::TextureViewDescriptor<'_>) -> DispatchTextureView {
        let wire = wgpu::wgt::TextureViewDescriptor {
            label: label(desc.label),
            format: desc.format,
            dimension: desc.dimension,
            usage: desc.usage,
            aspect: desc.aspect,
            base_mip_level: desc.base_mip_level,
            mip_level_count: desc.mip_level_count,
            base_array_layer: desc.base_array_layer,
            array_layer_count: desc.array_layer_count,
        };
        let texture = self.object.id;
        let object = self.object.session.create(|id| Command::CreateTextureView { texture, id, desc: wire });
        DispatchTextureView::custom(ClientTextureView { object })
    }

    fn destroy(&self) {
        self.object.session.command(&Command::DestroyTexture { texture: self.object.id });
    }
}

impl ExternalTextureInterface for ClientExternalTexture {
    fn destroy(&self) {
        self.object.session.command(&Command::DestroyExternalTexture { texture: self.object.id });
    }
}

impl QuerySetInterface for ClientQuerySet {
    fn destroy(&self) {
        self.object.session.command(&Command::DestroyQuerySet { query_set: self.object.id });
    }
}
