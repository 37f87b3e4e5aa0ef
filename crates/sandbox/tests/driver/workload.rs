//! The work a guest would ask for: a compute shader and a triangle, checked by their results.

const SQUARES: &str = "
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) { data[id.x] = id.x * id.x + 1u; }
";

const TRIANGLE: &str = "
@vertex fn corner(@builtin(vertex_index) i: u32) -> @builtin(position) vec4<f32> {
    let at = array(vec2(-1.0, -1.0), vec2(3.0, -1.0), vec2(-1.0, 3.0));
    return vec4(at[i], 0.0, 1.0);
}
@fragment fn paint(@builtin(position) at: vec4<f32>) -> @location(0) vec4<f32> {
    return vec4(0.0, select(0.0, 1.0, at.x < 32.0), 1.0, 1.0);
}
";

const COUNT: u32 = 4096;
const SIZE: u32 = 64;
const BYTES: u64 = 4 * COUNT as u64;
const PIXELS: u64 = 4 * SIZE as u64 * SIZE as u64;

/// Loads the drivers and takes the first adapter: what a worker does before it is sealed.
pub fn warm_up() -> Option<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let adapter = adapters.into_iter().next()?;
    let info = adapter.get_info();
    println!("adapter: {} ({}, {})", info.name, info.driver, info.driver_info);
    Some(adapter)
}

/// Everything that happens on behalf of the guest.
pub fn run(adapter: &wgpu::Adapter) {
    let started = std::time::Instant::now();
    let wish = wgpu::DeviceDescriptor::default();
    let (device, queue) = pollster::block_on(adapter.request_device(&wish)).unwrap();
    squares(&device, &queue);
    triangle(&device, &queue);
    let elsewhere = std::thread::spawn(move || squares(&device, &queue));
    elsewhere.join().unwrap();
    println!("device, compute, draw, compute in a thread: {:?}", started.elapsed());
}

fn squares(device: &wgpu::Device, queue: &wgpu::Queue) {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let data = buffer(device, BYTES, usage);
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &shader(device, SQUARES),
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: data.as_entire_binding() }],
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(COUNT / 64, 1, 1);
    drop(pass);
    let read = readable(device, BYTES);
    encoder.copy_buffer_to_buffer(&data, 0, &read, 0, BYTES);
    queue.submit([encoder.finish()]);
    let found = words(device, &read);
    let expected: Vec<u32> = (0..COUNT).map(|i| i * i + 1).collect();
    assert_eq!(found, expected);
}

fn triangle(device: &wgpu::Device, queue: &wgpu::Queue) {
    let format = wgpu::TextureFormat::Rgba8Unorm;
    let canvas = canvas(device, format);
    let view = canvas.create_view(&Default::default());
    let pipeline = pipeline(device, format);
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
        color_attachments: &[Some(wgpu::RenderPassColorAttachment {
            view: &view,
            depth_slice: None,
            resolve_target: None,
            ops: wgpu::Operations::default(),
        })],
        ..Default::default()
    });
    pass.set_pipeline(&pipeline);
    pass.draw(0..3, 0..1);
    drop(pass);
    let read = readable(device, PIXELS);
    let layout =
        wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * SIZE), rows_per_image: None };
    let into = wgpu::TexelCopyBufferInfo { buffer: &read, layout };
    encoder.copy_texture_to_buffer(canvas.as_image_copy(), into, canvas.size());
    queue.submit([encoder.finish()]);
    let pixels = words(device, &read);
    let green_and_blue = |x: usize| if x < 32 { 0xffff_ff00 } else { 0xffff_0000 };
    let expected: Vec<u32> = (0..64 * 64).map(|i| green_and_blue(i % 64)).collect();
    assert_eq!(pixels, expected);
}

fn canvas(device: &wgpu::Device, format: wgpu::TextureFormat) -> wgpu::Texture {
    device.create_texture(&wgpu::TextureDescriptor {
        label: None,
        size: wgpu::Extent3d { width: SIZE, height: SIZE, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
        view_formats: &[],
    })
}

fn pipeline(device: &wgpu::Device, format: wgpu::TextureFormat) -> wgpu::RenderPipeline {
    let module = shader(device, TRIANGLE);
    device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: None,
        layout: None,
        vertex: wgpu::VertexState {
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            buffers: &[],
        },
        primitive: Default::default(),
        depth_stencil: None,
        multisample: Default::default(),
        fragment: Some(wgpu::FragmentState {
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            targets: &[Some(format.into())],
        }),
        multiview_mask: None,
        cache: None,
    })
}

fn shader(device: &wgpu::Device, source: &str) -> wgpu::ShaderModule {
    device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.into()),
    })
}

fn buffer(device: &wgpu::Device, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

fn readable(device: &wgpu::Device, size: u64) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    buffer(device, size, usage)
}

fn words(device: &wgpu::Device, buffer: &wgpu::Buffer) -> Vec<u32> {
    let slice = buffer.slice(..);
    slice.map_async(wgpu::MapMode::Read, |outcome| outcome.unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let bytes = slice.get_mapped_range().unwrap();
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}
