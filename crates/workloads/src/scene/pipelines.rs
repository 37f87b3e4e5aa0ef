//! Owns the render pipelines of the scene and the layouts of what they bind.

use wgpu::{
    BindGroup, BindGroupLayout, BindingResource, BindingType, Device, RenderPipeline, ShaderModule,
    ShaderStages, Texture, TextureSampleType, TextureView, TextureViewDimension,
};

use super::targets::{COLOUR, DEPTH, PICTURE};
use super::{mesh::Vertex, world::Instance};
use crate::gpu;

/// The pipelines, and the layouts to make bind groups for them.
pub(super) struct Pipelines {
    pub samples: u32,
    pub frame: BindGroupLayout,
    surface: BindGroupLayout,
    reflection: BindGroupLayout,
    colours: BindGroupLayout,
    pub shadow: RenderPipeline,
    pub mirrored_objects: RenderPipeline,
    pub mirrored_sky: RenderPipeline,
    pub objects: RenderPipeline,
    pub floor: RenderPipeline,
    pub sky: RenderPipeline,
    pub finish: RenderPipeline,
}

impl Pipelines {
    pub(super) fn new(device: &Device, samples: u32) -> Self {
        let frame = frame_layout(device);
        let surface = surface_layout(device);
        let picture = sampled(TextureViewDimension::D2);
        let sampler = BindingType::Sampler(wgpu::SamplerBindingType::Filtering);
        let reflection = layout(device, "reflection", &[picture, sampler]);
        let colours = layout(device, "colours", &[picture]);

        let scene = gpu::shader(device, "scene", include_str!("../shaders/scene.wgsl"));
        let end = gpu::shader(device, "finish", include_str!("../shaders/finish.wgsl"));
        let objects = Recipe {
            groups: &[&frame, &surface],
            cull_mode: Some(wgpu::Face::Back),
            samples,
            ..Recipe::new(&scene, "place", "shade")
        };
        let sky = Recipe { groups: &[&frame], samples, ..Recipe::new(&scene, "place_sky", "shade_sky") };
        Self {
            samples,
            shadow: shadow_pipeline(device, &scene, &frame),
            // Mirroring turns triangles around, so both sides are drawn.
            mirrored_objects: Recipe { samples: 1, cull_mode: None, ..objects }.make(device),
            mirrored_sky: Recipe { samples: 1, ..sky }.make(device),
            objects: objects.make(device),
            floor: Recipe { groups: &[&frame, &surface, &reflection], fragment: "shade_floor", ..objects }
                .make(device),
            sky: sky.make(device),
            finish: Recipe { groups: &[&colours], depth: false, ..Recipe::new(&end, "cover", "finish") }
                .make(device),
            frame,
            surface,
            reflection,
            colours,
        }
    }

    pub(super) fn bind_surface(
        &self,
        device: &Device,
        materials: &Texture,
        shadow: &TextureView,
    ) -> BindGroup {
        let sampler = tiling_sampler(device, 8);
        let level_sampler = tiling_sampler(device, 1);
        let compare = device.create_sampler(&wgpu::SamplerDescriptor {
            label: Some("shadow"),
            mag_filter: wgpu::FilterMode::Linear,
            min_filter: wgpu::FilterMode::Linear,
            compare: Some(wgpu::CompareFunction::LessEqual),
            ..Default::default()
        });
        let view = materials.create_view(&Default::default());
        let resources = [
            BindingResource::TextureView(&view),
            BindingResource::Sampler(&sampler),
            BindingResource::TextureView(shadow),
            BindingResource::Sampler(&compare),
            BindingResource::Sampler(&level_sampler),
        ];
        gpu::bind(device, "surface", &self.surface, &resources)
    }

    pub(super) fn bind_reflection(&self, device: &Device, mirrored: &TextureView) -> BindGroup {
        let sampler = device.create_sampler(&wgpu::SamplerDescriptor {
            label: Some("reflection"),
            mag_filter: wgpu::FilterMode::Linear,
            min_filter: wgpu::FilterMode::Linear,
            ..Default::default()
        });
        let resources = [BindingResource::TextureView(mirrored), BindingResource::Sampler(&sampler)];
        gpu::bind(device, "reflection", &self.reflection, &resources)
    }

    pub(super) fn bind_finish(&self, device: &Device, colour: &TextureView) -> BindGroup {
        let resources = [BindingResource::TextureView(colour)];
        gpu::bind(device, "finish", &self.colours, &resources)
    }
}

/// Repeats the texture. Where a shader chooses the level itself, `anisotropy` has to be 1: Mesa's
/// lavapipe mixes up neighbouring pixels otherwise.
fn tiling_sampler(device: &Device, anisotropy: u16) -> wgpu::Sampler {
    device.create_sampler(&wgpu::SamplerDescriptor {
        label: Some("materials"),
        address_mode_u: wgpu::AddressMode::Repeat,
        address_mode_v: wgpu::AddressMode::Repeat,
        mag_filter: wgpu::FilterMode::Linear,
        min_filter: wgpu::FilterMode::Linear,
        mipmap_filter: wgpu::MipmapFilterMode::Linear,
        anisotropy_clamp: anisotropy,
        ..Default::default()
    })
}

fn layout(device: &Device, label: &str, types: &[BindingType]) -> BindGroupLayout {
    let entry = |(binding, ty): (usize, &BindingType)| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: ShaderStages::VERTEX_FRAGMENT,
        ty: *ty,
        count: None,
    };
    let entries: Vec<_> = types.iter().enumerate().map(entry).collect();
    device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries })
}

fn sampled(view_dimension: TextureViewDimension) -> BindingType {
    BindingType::Texture {
        sample_type: TextureSampleType::Float { filterable: true },
        view_dimension,
        multisampled: false,
    }
}

fn frame_layout(device: &Device) -> BindGroupLayout {
    let uniform = BindingType::Buffer {
        ty: wgpu::BufferBindingType::Uniform,
        has_dynamic_offset: false,
        min_binding_size: None,
    };
    layout(device, "frame", &[uniform])
}

fn surface_layout(device: &Device) -> BindGroupLayout {
    let shadow = BindingType::Texture {
        sample_type: TextureSampleType::Depth,
        view_dimension: TextureViewDimension::D2,
        multisampled: false,
    };
    let types = [
        sampled(TextureViewDimension::D2Array),
        BindingType::Sampler(wgpu::SamplerBindingType::Filtering),
        shadow,
        BindingType::Sampler(wgpu::SamplerBindingType::Comparison),
        BindingType::Sampler(wgpu::SamplerBindingType::Filtering),
    ];
    layout(device, "surface", &types)
}

/// What differs between the pipelines that make colours.
#[derive(Clone, Copy)]
struct Recipe<'a> {
    module: &'a ShaderModule,
    vertex: &'a str,
    fragment: &'a str,
    groups: &'a [&'a BindGroupLayout],
    cull_mode: Option<wgpu::Face>,
    samples: u32,
    depth: bool,
}

impl<'a> Recipe<'a> {
    fn new(module: &'a ShaderModule, vertex: &'a str, fragment: &'a str) -> Self {
        Self { module, vertex, fragment, groups: &[], cull_mode: None, samples: 1, depth: true }
    }

    fn make(self, device: &Device) -> RenderPipeline {
        let target = if self.depth { COLOUR } else { PICTURE };
        let buffers = vertex_buffers();
        device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some(self.fragment),
            layout: Some(&pipeline_layout(device, self.fragment, self.groups)),
            vertex: wgpu::VertexState {
                module: self.module,
                entry_point: Some(self.vertex),
                compilation_options: Default::default(),
                // Only objects come from buffers; sky and finish are made of vertex numbers.
                buffers: if self.vertex == "place" { &buffers } else { &[] },
            },
            primitive: wgpu::PrimitiveState { cull_mode: self.cull_mode, ..Default::default() },
            depth_stencil: self.depth.then(|| depth_state(wgpu::DepthBiasState::default())),
            multisample: wgpu::MultisampleState { count: self.samples, ..Default::default() },
            fragment: Some(wgpu::FragmentState {
                module: self.module,
                entry_point: Some(self.fragment),
                compilation_options: Default::default(),
                targets: &[Some(target.into())],
            }),
            multiview_mask: None,
            cache: None,
        })
    }
}

fn shadow_pipeline(device: &Device, module: &ShaderModule, frame: &BindGroupLayout) -> RenderPipeline {
    let bias = wgpu::DepthBiasState { constant: 2, slope_scale: 2.0, clamp: 0.0 };
    device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some("shadow"),
        layout: Some(&pipeline_layout(device, "shadow", &[frame])),
        vertex: wgpu::VertexState {
            module,
            entry_point: Some("place_in_shadow"),
            compilation_options: Default::default(),
            buffers: &vertex_buffers(),
        },
        primitive: wgpu::PrimitiveState::default(),
        depth_stencil: Some(depth_state(bias)),
        multisample: wgpu::MultisampleState::default(),
        fragment: None,
        multiview_mask: None,
        cache: None,
    })
}

fn pipeline_layout(device: &Device, label: &str, groups: &[&BindGroupLayout]) -> wgpu::PipelineLayout {
    let groups: Vec<_> = groups.iter().copied().map(Some).collect();
    device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(label),
        bind_group_layouts: &groups,
        immediate_size: 0,
    })
}

/// The sky lies at the far end exactly, so equal depth counts as nearer.
fn depth_state(bias: wgpu::DepthBiasState) -> wgpu::DepthStencilState {
    wgpu::DepthStencilState {
        format: DEPTH,
        depth_write_enabled: Some(true),
        depth_compare: Some(wgpu::CompareFunction::LessEqual),
        stencil: Default::default(),
        bias,
    }
}

fn vertex_buffers() -> [Option<wgpu::VertexBufferLayout<'static>>; 2] {
    static CORNER: [wgpu::VertexAttribute; 3] =
        wgpu::vertex_attr_array![0 => Float32x3, 1 => Float32x3, 2 => Float32x2];
    static OBJECT: [wgpu::VertexAttribute; 6] = wgpu::vertex_attr_array![
        3 => Float32x4, 4 => Float32x4, 5 => Float32x4, 6 => Float32x4, 7 => Float32x4, 8 => Float32x4
    ];
    let layout = |array_stride: usize, step_mode, attributes: &'static [wgpu::VertexAttribute]| {
        Some(wgpu::VertexBufferLayout { array_stride: array_stride as u64, step_mode, attributes })
    };
    [
        layout(size_of::<Vertex>(), wgpu::VertexStepMode::Vertex, &CORNER),
        layout(size_of::<Instance>(), wgpu::VertexStepMode::Instance, &OBJECT),
    ]
}
