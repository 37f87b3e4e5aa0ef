//! Creating pipelines.

use pontoon_wire::command::{ComputePipelineDesc, RenderPipelineDesc, Stage};
use pontoon_wire::{Id, handle as kind};
use wgpu::wgt;

use crate::End;
use crate::create::label;
use crate::session::{Session, Tables};

/// A stage whose module was looked up.
struct ResolvedStage<'a> {
    module: &'a wgpu::ShaderModule,
    entry_point: Option<&'a str>,
    constants: Vec<(&'a str, f64)>,
}

impl<'a> ResolvedStage<'a> {
    fn new(tables: &'a Tables, stage: &'a Stage) -> Result<Self, End> {
        Ok(Self {
            module: tables.shader_modules.get(stage.module)?,
            entry_point: stage.entry_point.as_deref(),
            constants: stage.constants.iter().map(|(name, value)| (&**name, *value)).collect(),
        })
    }

    /// Workgroup memory starts as zero whatever the guest asks: it may hold another tenant's data.
    fn options(&self) -> wgpu::PipelineCompilationOptions<'_> {
        wgpu::PipelineCompilationOptions {
            constants: &self.constants,
            zero_initialize_workgroup_memory: true,
        }
    }
}

impl Session {
    pub(crate) fn create_compute_pipeline(
        &mut self,
        device: Id<kind::Device>,
        id: Id<kind::ComputePipeline>,
        desc: &ComputePipelineDesc,
    ) -> Result<(), End> {
        self.usage.add_object(&self.limits)?;
        let tables = &mut self.tables;
        let stage = ResolvedStage::new(tables, &desc.stage)?;
        let resolved = wgpu::ComputePipelineDescriptor {
            label: label(&desc.label),
            layout: desc.layout.map(|id| tables.pipeline_layouts.get(id)).transpose()?,
            module: stage.module,
            entry_point: stage.entry_point,
            compilation_options: stage.options(),
            cache: None,
        };
        let pipeline = tables.devices.get(device)?.device.create_compute_pipeline(&resolved);
        tables.compute_pipelines.insert(id, pipeline)
    }

    pub(crate) fn create_render_pipeline(
        &mut self,
        device: Id<kind::Device>,
        id: Id<kind::RenderPipeline>,
        desc: &RenderPipelineDesc,
    ) -> Result<(), End> {
        self.usage.add_object(&self.limits)?;
        let tables = &mut self.tables;
        let vertex = ResolvedStage::new(tables, &desc.vertex)?;
        // `wgpu` adds an attribute's size to its offset without looking: an offset that would wrap becomes
        // one that it rejects.
        let bounded = |attribute: &wgt::VertexAttribute| wgt::VertexAttribute {
            offset: attribute.offset.min(1 << 40),
            ..*attribute
        };
        let attributes: Vec<Vec<_>> = desc
            .buffers
            .iter()
            .map(|buffer| buffer.iter().flat_map(|buffer| buffer.attributes.iter().map(bounded)).collect())
            .collect();
        let buffers: Vec<_> = desc
            .buffers
            .iter()
            .zip(&attributes)
            .map(|(buffer, attributes)| {
                buffer.as_ref().map(|buffer| wgpu::VertexBufferLayout {
                    array_stride: buffer.array_stride,
                    step_mode: buffer.step_mode,
                    attributes,
                })
            })
            .collect();
        let fragment = match &desc.fragment {
            Some((stage, targets)) => Some((ResolvedStage::new(tables, stage)?, targets)),
            None => None,
        };
        let resolved = wgpu::RenderPipelineDescriptor {
            label: label(&desc.label),
            layout: desc.layout.map(|id| tables.pipeline_layouts.get(id)).transpose()?,
            vertex: wgpu::VertexState {
                module: vertex.module,
                entry_point: vertex.entry_point,
                compilation_options: vertex.options(),
                buffers: &buffers,
            },
            primitive: desc.primitive,
            depth_stencil: desc.depth_stencil.clone(),
            multisample: desc.multisample,
            fragment: fragment.as_ref().map(|(stage, targets)| wgpu::FragmentState {
                module: stage.module,
                entry_point: stage.entry_point,
                compilation_options: stage.options(),
                targets,
            }),
            multiview_mask: desc.multiview_mask,
            cache: None,
        };
        let pipeline = tables.devices.get(device)?.device.create_render_pipeline(&resolved);
        tables.render_pipelines.insert(id, pipeline)
    }
}
