//! Compute, uploads, copies, and what adapters say of themselves.

use std::sync::{Arc, Mutex};

use wgpu::BufferUsages as U;

use crate::Trace;
use crate::rig::{Backend, Gpu};

/// Bytes as a line: in full where they are few, by length and sum where they are many. The noop back end
/// computes nothing, so only the length counts there.
pub fn line(gpu: &Gpu, what: &str, bytes: &[u8]) -> String {
    let sum = bytes.iter().enumerate().fold(0u64, |sum, (at, byte)| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte)).wrapping_add(at as u64)
    });
    match gpu.backend {
        Backend::Noop => format!("{what}: {} bytes", bytes.len()),
        Backend::Gpu if bytes.len() <= 64 => format!("{what}: {bytes:?}"),
        Backend::Gpu => format!("{what}: {} bytes, sum {sum}", bytes.len()),
    }
}

const DOUBLE: &str = "
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < arrayLength(&data) { data[id.x] = data[id.x] * 2u + id.x; }
}";

pub struct Doubler {
    pub pipeline: wgpu::ComputePipeline,
    pub data: wgpu::Buffer,
    pub group: wgpu::BindGroup,
}

impl Doubler {
    pub fn new(gpu: &Gpu, len: u64) -> Self {
        let module = gpu.shader(DOUBLE);
        let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let data = gpu.buffer(len * 4, U::STORAGE | U::COPY_SRC | U::COPY_DST);
        let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: data.as_entire_binding() }],
        });
        Self { pipeline, data, group }
    }

    pub fn run(&self, gpu: &Gpu, times: u32) {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        for _ in 0..times {
            pass.dispatch_workgroups((self.data.size() as u32 / 4).div_ceil(64), 1, 1);
        }
        drop(pass);
        gpu.queue.submit([encoder.finish()]);
    }
}

pub fn compute_reads_back(gpu: &Gpu) -> Trace {
    let doubler = Doubler::new(gpu, 1000);
    let start: Vec<u32> = (0..1000).collect();
    gpu.queue.write_buffer(&doubler.data, 0, bytemuck::cast_slice(&start));
    doubler.run(gpu, 3);
    // More operations than one piece of a recording holds.
    doubler.run(gpu, 10_000);
    vec![line(gpu, "data", &gpu.fetch(&doubler.data)), format!("{:?}", gpu.uncaptured())]
}

pub fn large_writes_arrive_whole(gpu: &Gpu) -> Trace {
    let size = 9 * 1024 * 1024 + 4;
    let buffer = gpu.buffer(size, U::COPY_DST | U::COPY_SRC);
    let bytes: Vec<u8> = (0..size - 8).map(|at| (at * 7 + at / 251) as u8).collect();
    gpu.queue.write_buffer(&buffer, 8, &bytes);
    let first = gpu.fetch(&buffer);
    // Many times the arena, without waiting in between.
    for round in 0..20u8 {
        let bytes = vec![round; 8 * 1024 * 1024];
        gpu.queue.write_buffer(&buffer, u64::from(round) * 4, &bytes);
    }
    let second = gpu.fetch(&buffer);
    if gpu.backend == Backend::Gpu {
        assert_eq!(first[8..], bytes, "the bytes are those that were written");
    }
    vec![line(gpu, "first", &first), line(gpu, "second", &second), format!("{:?}", gpu.uncaptured())]
}

pub fn write_buffer_with_fills(gpu: &Gpu) -> Trace {
    let buffer = gpu.buffer(64, U::COPY_DST | U::COPY_SRC);
    let size = wgpu::BufferSize::new(16).unwrap();
    gpu.queue.write_buffer_with(&buffer, 8, size).unwrap().copy_from_slice(&[7; 16]);
    let none = gpu.queue.write_buffer_with(&buffer, 56, size).is_none();
    vec![line(gpu, "data", &gpu.fetch(&buffer)), format!("{none} {:?}", gpu.uncaptured())]
}

pub fn indirect_dispatch(gpu: &Gpu) -> Trace {
    let doubler = Doubler::new(gpu, 256);
    let arguments = gpu.buffer(16, U::INDIRECT | U::COPY_DST);
    gpu.queue.write_buffer(&arguments, 4, bytemuck::cast_slice(&[2u32, 1, 1]));
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&doubler.pipeline);
    pass.set_bind_group(0, &doubler.group, &[]);
    pass.dispatch_workgroups_indirect(&arguments, 4);
    drop(pass);
    gpu.queue.submit([encoder.finish()]);
    vec![line(gpu, "data", &gpu.fetch(&doubler.data)), format!("{:?}", gpu.uncaptured())]
}

pub fn automatic_layouts(gpu: &Gpu) -> Trace {
    let doubler = Doubler::new(gpu, 64);
    let out_of_range = gpu.scope(wgpu::ErrorFilter::Validation, || {
        let _ = doubler.pipeline.get_bind_group_layout(7);
    });
    vec![out_of_range, line(gpu, "data", &gpu.fetch(&doubler.data))]
}

pub fn dynamic_offsets(gpu: &Gpu) -> Trace {
    let layout = gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &[wgpu::BindGroupLayoutEntry {
            binding: 0,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: false },
                has_dynamic_offset: true,
                min_binding_size: None,
            },
            count: None,
        }],
    });
    let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let module = gpu.shader(DOUBLE);
    let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let data = gpu.buffer(1024, U::STORAGE | U::COPY_SRC | U::COPY_DST);
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &layout,
        entries: &[wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &data,
                offset: 0,
                size: wgpu::BufferSize::new(256),
            }),
        }],
    });
    let run = |offset: u32| {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[offset]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        gpu.queue.submit([encoder.finish()]);
    };
    run(512);
    let misaligned = gpu.scope(wgpu::ErrorFilter::Validation, || run(4));
    let beyond = gpu.scope(wgpu::ErrorFilter::Validation, || run(1024));
    vec![line(gpu, "data", &gpu.fetch(&data)), misaligned, beyond, format!("{:?}", gpu.uncaptured())]
}

pub fn clears_and_copies(gpu: &Gpu) -> Trace {
    let a = gpu.buffer(64, U::COPY_DST | U::COPY_SRC);
    let b = gpu.buffer(64, U::COPY_DST | U::COPY_SRC);
    gpu.queue.write_buffer(&a, 0, &[9; 64]);
    let mut encoder =
        gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("copies") });
    encoder.push_debug_group("group");
    encoder.clear_buffer(&a, 16, Some(16));
    encoder.insert_debug_marker("marker");
    encoder.copy_buffer_to_buffer(&a, 8, &b, 0, Some(32));
    encoder.pop_debug_group();
    gpu.queue.submit([encoder.finish()]);
    gpu.queue.submit([]);
    vec![line(gpu, "a", &gpu.fetch(&a)), line(gpu, "b", &gpu.fetch(&b)), format!("{:?}", gpu.uncaptured())]
}

pub fn work_done_callbacks(gpu: &Gpu) -> Trace {
    let doubler = Doubler::new(gpu, 64);
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..3 {
        doubler.run(gpu, 1);
        let order = order.clone();
        gpu.queue.on_submitted_work_done(move || order.lock().unwrap().push(number));
    }
    let index = gpu.queue.submit([]);
    let status = gpu.device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None });
    let after = order.lock().unwrap().clone();
    vec![format!("{after:?}"), format!("{:?}", status.is_ok())]
}

pub fn adapter_facts(gpu: &Gpu) -> Trace {
    let info = gpu.adapter.get_info();
    let formats = [
        wgpu::TextureFormat::Rgba8Unorm,
        wgpu::TextureFormat::Rgba16Float,
        wgpu::TextureFormat::Depth32Float,
        wgpu::TextureFormat::Bc1RgbaUnorm,
    ];
    let features = formats.map(|format| gpu.adapter.get_texture_format_features(format));
    vec![
        info.name.replace(" via Pontoon", ""),
        format!("{:?} {:?} {}", info.backend, info.device_type, info.driver),
        format!("{:?}", gpu.device.limits()),
        format!("{:?}", gpu.device.features()),
        format!("{:?}", gpu.adapter.limits()),
        format!("{:?}", gpu.adapter.get_downlevel_capabilities()),
        format!("{features:?}"),
        format!("{}", gpu.queue.get_timestamp_period()),
    ]
}

pub fn overridable_constants(gpu: &Gpu) -> Trace {
    let module = gpu.shader(
        "override factor: f32 = 1.0;
        @group(0) @binding(0) var<storage, read_write> data: array<f32>;
        var<workgroup> shared_sum: f32;
        @compute @workgroup_size(1) fn main() { data[0] = factor * 3.0 + shared_sum; }",
    );
    let pipeline = |constants: &[(&str, f64)]| {
        gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("constants"),
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions { constants, ..Default::default() },
            cache: None,
        })
    };
    let data = gpu.buffer(4, U::STORAGE | U::COPY_SRC);
    let good = pipeline(&[("factor", 7.0)]);
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &good.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: data.as_entire_binding() }],
    });
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&good);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    gpu.queue.submit([encoder.finish()]);
    let unknown = gpu.scope(wgpu::ErrorFilter::Validation, || drop(pipeline(&[("nonsense", 1.0)])));
    vec![line(gpu, "data", &gpu.fetch(&data)), unknown, format!("{:?}", gpu.uncaptured())]
}
