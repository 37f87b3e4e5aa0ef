//! Rendering, textures and queries.

use wgpu::BufferUsages as U;
use wgpu::TextureUsages as T;

use crate::Trace;
use crate::programs::line;
use crate::rig::{Backend, Gpu};

const SIZE: u32 = 64;

struct Target {
    texture: wgpu::Texture,
    view: wgpu::TextureView,
}

impl Target {
    fn new(gpu: &Gpu, format: wgpu::TextureFormat, usage: T) -> Self {
        let texture = gpu.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("target"),
            size: wgpu::Extent3d { width: SIZE, height: SIZE, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format,
            usage,
            view_formats: &[],
        });
        let view = texture.create_view(&Default::default());
        Self { texture, view }
    }

    fn read(&self, gpu: &Gpu) -> Vec<u8> {
        let buffer = gpu.buffer(u64::from(SIZE * SIZE * 4), U::COPY_DST | U::COPY_SRC);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_texture_to_buffer(
            self.texture.as_image_copy(),
            wgpu::TexelCopyBufferInfo { buffer: &buffer, layout: layout() },
            self.texture.size(),
        );
        gpu.queue.submit([encoder.finish()]);
        gpu.fetch(&buffer)
    }
}

fn layout() -> wgpu::TexelCopyBufferLayout {
    wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(SIZE * 4), rows_per_image: None }
}

fn color_target(gpu: &Gpu) -> Target {
    Target::new(gpu, wgpu::TextureFormat::Rgba8Unorm, T::RENDER_ATTACHMENT | T::COPY_SRC)
}

fn color(view: &wgpu::TextureView) -> Option<wgpu::RenderPassColorAttachment<'_>> {
    let load = wgpu::LoadOp::Clear(wgpu::Color { r: 0.2, g: 0.4, b: 0.6, a: 1.0 });
    let ops = wgpu::Operations { load, store: wgpu::StoreOp::Store };
    Some(wgpu::RenderPassColorAttachment { view, depth_slice: None, resolve_target: None, ops })
}

const SHADER: &str = "
@vertex fn vertex(@location(0) at: vec2f, @builtin(instance_index) instance: u32) -> @builtin(position) vec4f {
    return vec4f(at * (1.0 - 0.3 * f32(instance)), 0.5 + 0.1 * f32(instance), 1.0);
}
@fragment fn fragment(@builtin(position) at: vec4f) -> @location(0) vec4f {
    return vec4f(at.xy / 64.0, 0.5, 1.0);
}";

struct Triangle {
    pipeline: wgpu::RenderPipeline,
    vertices: wgpu::Buffer,
    indices: wgpu::Buffer,
    depth: Target,
}

impl Triangle {
    fn new(gpu: &Gpu) -> Self {
        let module = gpu.shader(SHADER);
        let attributes = wgpu::vertex_attr_array![0 => Float32x2];
        let pipeline = gpu.device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("triangle"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("vertex"),
                compilation_options: Default::default(),
                buffers: &[Some(wgpu::VertexBufferLayout {
                    array_stride: 8,
                    step_mode: wgpu::VertexStepMode::Vertex,
                    attributes: &attributes,
                })],
            },
            primitive: Default::default(),
            depth_stencil: Some(wgpu::DepthStencilState {
                format: wgpu::TextureFormat::Depth32Float,
                depth_write_enabled: Some(true),
                depth_compare: Some(wgpu::CompareFunction::Less),
                stencil: Default::default(),
                bias: Default::default(),
            }),
            multisample: Default::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("fragment"),
                compilation_options: Default::default(),
                targets: &[Some(wgpu::TextureFormat::Rgba8Unorm.into())],
            }),
            multiview_mask: None,
            cache: None,
        });
        let vertices = gpu.buffer(32, U::VERTEX | U::COPY_DST);
        gpu.queue.write_buffer(
            &vertices,
            0,
            bytemuck::cast_slice(&[-0.8f32, -0.8, 0.8, -0.8, 0.0, 0.8, 0.9, 0.9]),
        );
        let indices = gpu.buffer(12, U::INDEX | U::COPY_DST);
        gpu.queue.write_buffer(&indices, 0, bytemuck::cast_slice(&[0u16, 1, 2, 1, 3, 2]));
        let depth = Target::new(gpu, wgpu::TextureFormat::Depth32Float, T::RENDER_ATTACHMENT);
        Self { pipeline, vertices, indices, depth }
    }

    fn pass<'a>(
        &'a self,
        view: &'a wgpu::TextureView,
        encoder: &mut wgpu::CommandEncoder,
        queries: Option<&'a wgpu::QuerySet>,
    ) -> wgpu::RenderPass<'static> {
        let depth_ops = wgpu::Operations { load: wgpu::LoadOp::Clear(1.0), store: wgpu::StoreOp::Store };
        encoder
            .begin_render_pass(&wgpu::RenderPassDescriptor {
                label: Some("pass"),
                color_attachments: &[color(view)],
                depth_stencil_attachment: Some(wgpu::RenderPassDepthStencilAttachment {
                    view: &self.depth.view,
                    depth_ops: Some(depth_ops),
                    stencil_ops: None,
                }),
                timestamp_writes: None,
                occlusion_query_set: queries,
                multiview_mask: None,
            })
            .forget_lifetime()
    }
}

pub fn clear_and_read(gpu: &Gpu) -> Trace {
    let target = color_target(gpu);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    drop(encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
        color_attachments: &[color(&target.view)],
        ..Default::default()
    }));
    gpu.queue.submit([encoder.finish()]);
    vec![line(gpu, "pixels", &target.read(gpu)), format!("{:?}", gpu.uncaptured())]
}

pub fn triangle(gpu: &Gpu) -> Trace {
    let (target, triangle) = (color_target(gpu), Triangle::new(gpu));
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut pass = triangle.pass(&target.view, &mut encoder, None);
    pass.set_pipeline(&triangle.pipeline);
    pass.set_vertex_buffer(0, triangle.vertices.slice(..));
    pass.set_index_buffer(triangle.indices.slice(..), wgpu::IndexFormat::Uint16);
    pass.set_viewport(0.0, 0.0, 64.0, 64.0, 0.0, 1.0);
    pass.set_scissor_rect(4, 4, 56, 56);
    pass.set_blend_constant(wgpu::Color::WHITE);
    pass.set_stencil_reference(1);
    pass.draw_indexed(0..6, 0, 0..2);
    pass.draw(0..3, 0..1);
    drop(pass);
    gpu.queue.submit([encoder.finish()]);
    let outside = gpu.scope(wgpu::ErrorFilter::Validation, || {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut pass = triangle.pass(&target.view, &mut encoder, None);
        pass.set_pipeline(&triangle.pipeline);
        pass.set_vertex_buffer(0, triangle.vertices.slice(..));
        pass.draw(0..100, 0..1);
        pass.set_scissor_rect(0, 0, 100, 100);
        drop(pass);
        drop(encoder.finish());
    });
    vec![line(gpu, "pixels", &target.read(gpu)), outside, format!("{:?}", gpu.uncaptured())]
}

pub fn bundles_and_indirect(gpu: &Gpu) -> Trace {
    let (target, triangle) = (color_target(gpu), Triangle::new(gpu));
    let arguments = gpu.buffer(64, U::INDIRECT | U::COPY_DST);
    gpu.queue.write_buffer(&arguments, 0, bytemuck::cast_slice(&[3u32, 2, 0, 0]));
    gpu.queue.write_buffer(&arguments, 16, bytemuck::cast_slice(&[6u32, 1, 0, 0, 0]));
    let mut bundle = gpu.device.create_render_bundle_encoder(&wgpu::RenderBundleEncoderDescriptor {
        label: Some("bundle"),
        color_formats: &[Some(wgpu::TextureFormat::Rgba8Unorm)],
        depth_stencil: Some(wgpu::RenderBundleDepthStencil {
            format: wgpu::TextureFormat::Depth32Float,
            depth_read_only: false,
            stencil_read_only: true,
        }),
        sample_count: 1,
        multiview: None,
    });
    bundle.set_pipeline(&triangle.pipeline);
    bundle.set_vertex_buffer(0, triangle.vertices.slice(..));
    bundle.set_index_buffer(triangle.indices.slice(..), wgpu::IndexFormat::Uint16);
    // The noop back end's limits trip an assertion in `wgpu`'s own validation of indirect draws.
    let indirect = gpu.backend == Backend::Gpu;
    if indirect {
        bundle.draw_indexed_indirect(&arguments, 16);
    }
    bundle.draw(0..3, 0..1);
    let bundle = bundle.finish(&wgpu::RenderBundleDescriptor { label: Some("bundle") });
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut pass = triangle.pass(&target.view, &mut encoder, None);
    pass.execute_bundles([&bundle, &bundle]);
    pass.set_pipeline(&triangle.pipeline);
    pass.set_vertex_buffer(0, triangle.vertices.slice(..));
    if indirect {
        pass.draw_indirect(&arguments, 0);
        pass.multi_draw_indirect(&arguments, 0, 1);
    }
    drop(pass);
    gpu.queue.submit([encoder.finish()]);
    vec![line(gpu, "pixels", &target.read(gpu)), format!("{:?}", gpu.uncaptured())]
}

/// Local `wgpu` panics when an invalid bundle is finished; through Pontoon it is a validation error.
pub fn invalid_bundle_is_an_error(gpu: &Gpu) {
    let triangle = Triangle::new(gpu);
    let error = gpu.scope(wgpu::ErrorFilter::Validation, || {
        let mut bundle = gpu.device.create_render_bundle_encoder(&wgpu::RenderBundleEncoderDescriptor {
            label: Some("wrong"),
            color_formats: &[Some(wgpu::TextureFormat::R8Unorm)],
            depth_stencil: None,
            sample_count: 1,
            multiview: None,
        });
        bundle.set_pipeline(&triangle.pipeline);
        drop(bundle.finish(&Default::default()));
    });
    assert!(error.contains("Render pipeline targets are incompatible with render pass"), "{error}");
    assert!(gpu.uncaptured().is_empty());
}

pub fn textures_round_trip(gpu: &Gpu) -> Trace {
    let usage = T::COPY_SRC | T::COPY_DST | T::TEXTURE_BINDING;
    let source = Target::new(gpu, wgpu::TextureFormat::Rgba8Unorm, usage);
    let copy = Target::new(gpu, wgpu::TextureFormat::Rgba8Unorm, usage);
    let texels: Vec<u8> = (0..SIZE * SIZE * 4).map(|at| (at / 3) as u8).collect();
    gpu.queue.write_texture(source.texture.as_image_copy(), &texels, layout(), source.texture.size());
    let part = wgpu::Extent3d { width: 16, height: 8, depth_or_array_layers: 1 };
    let mut at = source.texture.as_image_copy();
    at.origin = wgpu::Origin3d { x: 8, y: 4, z: 0 };
    gpu.queue.write_texture(
        at,
        &[255; 16 * 8 * 4],
        wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(64), rows_per_image: None },
        part,
    );
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    encoder.copy_texture_to_texture(
        source.texture.as_image_copy(),
        copy.texture.as_image_copy(),
        source.texture.size(),
    );
    gpu.queue.submit([encoder.finish()]);
    let short = gpu.scope(wgpu::ErrorFilter::Validation, || {
        gpu.queue.write_texture(source.texture.as_image_copy(), &[0; 12], layout(), source.texture.size());
    });
    let no_view = gpu.scope(wgpu::ErrorFilter::Validation, || {
        let desc = wgpu::TextureViewDescriptor { base_mip_level: 5, ..Default::default() };
        drop(source.texture.create_view(&desc));
    });
    copy.texture.destroy();
    let destroyed = gpu.scope(wgpu::ErrorFilter::Validation, || {
        gpu.queue.write_texture(copy.texture.as_image_copy(), &texels, layout(), copy.texture.size());
    });
    vec![line(gpu, "source", &source.read(gpu)), short, no_view, destroyed, format!("{:?}", gpu.uncaptured())]
}

pub fn occlusion_queries(gpu: &Gpu) -> Trace {
    let (target, triangle) = (color_target(gpu), Triangle::new(gpu));
    let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
        label: None,
        ty: wgpu::QueryType::Occlusion,
        count: 2,
    });
    let results = gpu.buffer(16, U::QUERY_RESOLVE | U::COPY_SRC);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut pass = triangle.pass(&target.view, &mut encoder, Some(&set));
    pass.set_pipeline(&triangle.pipeline);
    pass.set_vertex_buffer(0, triangle.vertices.slice(..));
    for (query, vertices) in [(0, 0..3), (1, 0..0)] {
        pass.begin_occlusion_query(query);
        pass.draw(vertices, 0..1);
        pass.end_occlusion_query();
    }
    drop(pass);
    encoder.resolve_query_set(&set, 0..2, &results, 0);
    gpu.queue.submit([encoder.finish()]);
    let seen: Vec<bool> =
        gpu.fetch(&results).chunks(8).map(|count| count.iter().any(|byte| *byte != 0)).collect();
    let seen = if gpu.backend == Backend::Gpu { format!("{seen:?}") } else { "noop".to_owned() };
    set.destroy();
    vec![seen, format!("{:?}", gpu.uncaptured())]
}

pub fn timestamps(gpu: &Gpu) -> Trace {
    if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
        return vec!["no timestamps".into()];
    }
    let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
        label: None,
        ty: wgpu::QueryType::Timestamp,
        count: 2,
    });
    let results = gpu.buffer(16, U::QUERY_RESOLVE | U::COPY_SRC);
    let doubler = crate::programs::Doubler::new(gpu, 65_536);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let writes = wgpu::ComputePassTimestampWrites {
        query_set: &set,
        beginning_of_pass_write_index: Some(0),
        end_of_pass_write_index: Some(1),
    };
    let mut pass = encoder
        .begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) });
    pass.set_pipeline(&doubler.pipeline);
    pass.set_bind_group(0, &doubler.group, &[]);
    pass.dispatch_workgroups(1024, 1, 1);
    drop(pass);
    encoder.resolve_query_set(&set, 0..2, &results, 0);
    gpu.queue.submit([encoder.finish()]);
    let ticks: Vec<u64> =
        gpu.fetch(&results).as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let ordered = gpu.backend == Backend::Noop || ticks[0] < ticks[1];
    vec![format!("in order: {ordered}"), format!("{:?}", gpu.uncaptured())]
}
