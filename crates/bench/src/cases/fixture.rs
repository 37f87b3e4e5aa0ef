//! Owns the least that a dispatch needs: a kernel of a single workgroup, a buffer and a bind group.

use wgpu::{Buffer, BufferUsages, Device};

const SOURCE: &str = "
override salt: u32 = 1u;

@group(0) @binding(0) var<storage, read_write> numbers: array<u32>;

@compute @workgroup_size(64)
fn add(@builtin(global_invocation_id) id: vec3u) {
    numbers[id.x] += salt;
}
";

const BYTES: u64 = 64 * 4;

pub(crate) struct Fixture {
    pub module: wgpu::ShaderModule,
    pub group_layout: wgpu::BindGroupLayout,
    pub pipeline_layout: wgpu::PipelineLayout,
    pub buffer: Buffer,
    pub group: wgpu::BindGroup,
}

impl Fixture {
    pub fn new(device: &Device) -> Self {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("add"),
            source: wgpu::ShaderSource::Wgsl(SOURCE.into()),
        });
        let group_layout = group_layout(device);
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("add"),
            bind_group_layouts: &[Some(&group_layout)],
            immediate_size: 0,
        });
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let buffer = buffer(device, BYTES, usage);
        let group = bind(device, &group_layout, &buffer);
        Self { module, group_layout, pipeline_layout, buffer, group }
    }

    /// A pipeline that adds `salt`. No driver has seen a new salt before, so none of its caches,
    /// which last longer than a process, spares one target the work that it did for another.
    pub fn pipeline(&self, device: &Device, salt: u32) -> wgpu::ComputePipeline {
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("add"),
            layout: Some(&self.pipeline_layout),
            module: &self.module,
            entry_point: Some("add"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[("salt", f64::from(salt))],
                ..Default::default()
            },
            cache: None,
        })
    }
}

fn group_layout(device: &Device) -> wgpu::BindGroupLayout {
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("add"),
        entries: &[wgpu::BindGroupLayoutEntry {
            binding: 0,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: false },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        }],
    })
}

pub(crate) fn bind(device: &Device, layout: &wgpu::BindGroupLayout, buffer: &Buffer) -> wgpu::BindGroup {
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout,
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
    })
}

pub(crate) fn buffer(device: &Device, size: u64, usage: BufferUsages) -> Buffer {
    device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}
