//! Pipelines.

use pontoon_wire::bounded::label;
use pontoon_wire::command::{ComputePipelineDesc, RenderPipelineDesc, Stage, VertexBufferLayout};
use pontoon_wire::{Command, List, Text, handle as kind};

use crate::device::ClientDevice;
use crate::objects::*;
use crate::unsupported::MESH_SHADERS;

fn stage(
    module: &wgpu::ShaderModule,
    entry_point: Option<&str>,
    options: &wgpu::PipelineCompilationOptions<'_>,
) -> Stage {
    let constants = options.constants.iter().map(|(name, value)| (Text::cut(*name), *value));
    Stage {
        module: shader_module(module).id,
        entry_point: entry_point.map(Text::cut),
        constants: List::cut(constants),
        zero_initialize_workgroup_memory: options.zero_initialize_workgroup_memory,
    }
}

fn vertex_buffer(layout: &wgpu::VertexBufferLayout<'_>) -> VertexBufferLayout {
    VertexBufferLayout {
        array_stride: layout.array_stride,
        step_mode: layout.step_mode,
        attributes: List::cut(layout.attributes.iter().copied()),
    }
}

fn render_pipeline_desc(desc: &wgpu::RenderPipelineDescriptor<'_>) -> RenderPipelineDesc {
    let vertex = &desc.vertex;
    RenderPipelineDesc {
        label: label(desc.label),
        layout: desc.layout.map(|layout| pipeline_layout(layout).id),
        vertex: stage(vertex.module, vertex.entry_point, &vertex.compilation_options),
        buffers: List::cut(vertex.buffers.iter().map(|layout| layout.as_ref().map(vertex_buffer))),
        primitive: desc.primitive,
        depth_stencil: desc.depth_stencil.clone(),
        multisample: desc.multisample,
        fragment: desc.fragment.as_ref().map(|fragment| {
            let targets = List::cut(fragment.targets.iter().cloned());
            (stage(fragment.module, fragment.entry_point, &fragment.compilation_options), targets)
        }),
        multiview_mask: desc.multiview_mask,
    }
}

impl ClientDevice {
    pub fn compute_pipeline(&self, desc: &wgpu::ComputePipelineDescriptor<'_>) -> ClientComputePipeline {
        let wire = Box::new(ComputePipelineDesc {
            label: label(desc.label),
            layout: desc.layout.map(|layout| pipeline_layout(layout).id),
            stage: stage(desc.module, desc.entry_point, &desc.compilation_options),
        });
        let device = self.id();
        let object = self.session().create(|id| Command::CreateComputePipeline { device, id, desc: wire });
        self.session().flush();
        ClientComputePipeline { object }
    }

    pub fn render_pipeline(&self, desc: &wgpu::RenderPipelineDescriptor<'_>) -> ClientRenderPipeline {
        let (device, wire) = (self.id(), Box::new(render_pipeline_desc(desc)));
        let object = self.session().create(|id| Command::CreateRenderPipeline { device, id, desc: wire });
        self.session().flush();
        ClientRenderPipeline { object }
    }

    /// Mesh shaders are experimental in `wgpu` and not offered; what stands in for the pipeline is one
    /// that is invalid on the host, so that using it is an error too.
    pub fn mesh_pipeline(&self, desc: &wgpu::MeshPipelineDescriptor<'_>) -> ClientRenderPipeline {
        self.invalid("Device::create_mesh_pipeline", desc.label, MESH_SHADERS);
        let depth =
            self.session().push_scope(self.id().to_bits(), pontoon_wire::event::ErrorKind::Validation);
        let pipeline = self.render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: desc.label,
            layout: None,
            vertex: wgpu::VertexState {
                module: desc.mesh.module,
                entry_point: Some("no vertex stage"),
                compilation_options: Default::default(),
                buffers: &[],
            },
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            fragment: None,
            multiview_mask: None,
            cache: None,
        });
        if let Ok((number, last)) = self.session().pop_scope(self.id().to_bits(), depth) {
            self.session().settle(last.unwrap_or(0));
            self.session().resolve_scope(number);
        }
        pipeline
    }
}

impl wgpu::custom::ComputePipelineInterface for ClientComputePipeline {
    fn get_bind_group_layout(&self, index: u32) -> wgpu::custom::DispatchBindGroupLayout {
        let pipeline = self.object.id;
        let object = self
            .object
            .session
            .create::<kind::BindGroupLayout>(|id| Command::ComputeBindGroupLayout { pipeline, index, id });
        wgpu::custom::DispatchBindGroupLayout::custom(ClientBindGroupLayout { object })
    }
}

impl wgpu::custom::RenderPipelineInterface for ClientRenderPipeline {
    fn get_bind_group_layout(&self, index: u32) -> wgpu::custom::DispatchBindGroupLayout {
        let pipeline = self.object.id;
        let object = self
            .object
            .session
            .create::<kind::BindGroupLayout>(|id| Command::RenderBindGroupLayout { pipeline, index, id });
        wgpu::custom::DispatchBindGroupLayout::custom(ClientBindGroupLayout { object })
    }
}
