//! Error scopes, uncaptured errors, invalid objects, losses.

use std::sync::{Arc, Mutex};

use wgpu::BufferUsages as U;
use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};

use crate::Trace;
use crate::programs::Doubler;
use crate::rig::Gpu;

fn bad_buffer(gpu: &Gpu, name: &str) -> wgpu::Buffer {
    gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(name),
        size: 16,
        usage: U::MAP_READ | U::MAP_WRITE | U::STORAGE,
        mapped_at_creation: false,
    })
}

fn popped(scope: wgpu::ErrorScopeGuard) -> String {
    pollster::block_on(scope.pop()).map_or_else(|| "no error".to_owned(), |error| error.to_string())
}

pub fn scopes_nest(gpu: &Gpu) -> Trace {
    let outer = gpu.device.push_error_scope(Validation);
    drop(bad_buffer(gpu, "outer"));
    let inner = gpu.device.push_error_scope(Validation);
    drop(bad_buffer(gpu, "inner first"));
    drop(bad_buffer(gpu, "inner second"));
    let inner = popped(inner);
    drop(bad_buffer(gpu, "outer second"));
    let outer = popped(outer);
    let empty = gpu.device.push_error_scope(Validation);
    let with_command = gpu.device.push_error_scope(Validation);
    drop(gpu.buffer(16, U::COPY_DST));
    vec![inner, outer, popped(with_command), popped(empty), format!("{:?}", gpu.uncaptured())]
}

pub fn filters_choose(gpu: &Gpu) -> Trace {
    let validation = gpu.device.push_error_scope(Validation);
    let memory = gpu.device.push_error_scope(OutOfMemory);
    let internal = gpu.device.push_error_scope(Internal);
    drop(bad_buffer(gpu, "bad"));
    vec![popped(internal), popped(memory), popped(validation), format!("{:?}", gpu.uncaptured())]
}

pub fn uncaptured_errors(gpu: &Gpu) -> Trace {
    drop(bad_buffer(gpu, "one"));
    let memory = gpu.device.push_error_scope(OutOfMemory);
    drop(bad_buffer(gpu, "two"));
    let memory = popped(memory);
    let first = gpu.uncaptured();
    let second = gpu.uncaptured();
    vec![memory, format!("{first:?}"), format!("{second:?}")]
}

pub fn shader_errors(gpu: &Gpu) -> Trace {
    let mut trace = Trace::new();
    for source in
        ["@compute fn main( {", "fn f() -> u32 { return 1.5; }", "@compute @workgroup_size(1) fn main() {}"]
    {
        let mut messages = String::new();
        let error = gpu.scope(Validation, || {
            let info = pollster::block_on(gpu.shader(source).get_compilation_info());
            messages = format!("{info:?}");
        });
        trace.extend([error, messages]);
    }
    trace.push(format!("{:?}", gpu.uncaptured()));
    trace
}

pub fn invalid_objects_spread(gpu: &Gpu) -> Trace {
    let mut trace = Trace::new();
    let mut bad = None;
    trace.push(gpu.scope(Validation, || bad = Some(bad_buffer(gpu, "spread"))));
    let bad = bad.unwrap();
    trace.push(gpu.scope(Validation, || gpu.queue.write_buffer(&bad, 0, &[0; 4])));
    let doubler = Doubler::new(gpu, 4);
    let mut group = None;
    trace.push(gpu.scope(Validation, || {
        group = Some(gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("of a bad buffer"),
            layout: &doubler.pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: bad.as_entire_binding() }],
        }));
    }));
    let group = group.unwrap();
    trace.push(gpu.scope(Validation, || {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut pass = encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("pass"), timestamp_writes: None });
        pass.set_pipeline(&doubler.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        gpu.queue.submit([encoder.finish()]);
    }));
    trace.push(format!("{:?}", gpu.uncaptured()));
    trace
}

pub fn encoder_errors(gpu: &Gpu) -> Trace {
    let mut trace = Trace::new();
    let buffer = gpu.buffer(64, U::COPY_DST);
    // The error of a recording comes with `finish`, not with the operation.
    let mut encoder =
        gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("copy") });
    trace.push(gpu.scope(Validation, || encoder.copy_buffer_to_buffer(&buffer, 0, &buffer, 0, Some(32))));
    let mut commands = None;
    trace.push(gpu.scope(Validation, || commands = Some(encoder.finish())));
    trace.push(gpu.scope(Validation, || {
        gpu.queue.submit(commands);
    }));
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    trace.push(gpu.scope(Validation, || drop(encoder.finish())));
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let pass = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
    trace.push(gpu.scope(Validation, || drop(encoder.finish())));
    drop(pass);
    drop(gpu.device.create_command_encoder(&Default::default()));
    trace.push(format!("{:?}", gpu.uncaptured()));
    trace
}

pub fn encoder_used_under_a_pass(gpu: &Gpu) -> Trace {
    let mut trace = Trace::new();
    let buffer = gpu.buffer(64, U::COPY_DST);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let pass = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
    encoder.clear_buffer(&buffer, 0, None);
    drop(pass);
    trace.push(gpu.scope(Validation, || drop(encoder.finish())));
    let doubler = Doubler::new(gpu, 4);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut first = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
    let mut second = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
    first.set_pipeline(&doubler.pipeline);
    second.set_pipeline(&doubler.pipeline);
    drop(first);
    drop(second);
    // Which of the two is told first depends on when the recording travels; that it is invalid does not.
    let error = gpu.scope(Validation, || drop(encoder.finish()));
    trace
        .push(format!("{}", error.contains("Encoder is locked by a previously created render/compute pass")));
    gpu.uncaptured();
    trace.push(gpu.scope(Validation, || doubler.run(gpu, 1)));
    trace
}

pub fn destroyed_objects(gpu: &Gpu) -> Trace {
    let mut trace = Trace::new();
    let doubler = Doubler::new(gpu, 16);
    doubler.data.destroy();
    doubler.data.destroy();
    trace.push(gpu.scope(Validation, || doubler.run(gpu, 1)));
    trace.push(gpu.scope(Validation, || gpu.queue.write_buffer(&doubler.data, 0, &[0; 4])));
    let late = gpu.buffer(16, U::COPY_DST);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    encoder.clear_buffer(&late, 0, None);
    let commands = encoder.finish();
    late.destroy();
    trace.push(gpu.scope(Validation, || {
        gpu.queue.submit([commands]);
    }));
    // A dropped object lives on in what was recorded with it.
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let dropped = gpu.buffer(16, U::COPY_DST);
    encoder.clear_buffer(&dropped, 0, None);
    drop(dropped);
    trace.push(gpu.scope(Validation, || {
        gpu.queue.submit([encoder.finish()]);
    }));
    trace.push(format!("{:?}", gpu.uncaptured()));
    trace
}

pub fn device_destroy(gpu: &Gpu) -> Trace {
    let lost = Arc::new(Mutex::new(Vec::new()));
    let sink = lost.clone();
    gpu.device.set_device_lost_callback(move |reason, message| {
        sink.lock().unwrap().push(format!("{reason:?} {message}"))
    });
    let doubler = Doubler::new(gpu, 16);
    doubler.run(gpu, 1);
    gpu.wait();
    gpu.device.destroy();
    gpu.wait();
    let lost = lost.lock().unwrap().clone();
    // Nothing that follows is an error: the device is lost.
    drop(bad_buffer(gpu, "after"));
    vec![format!("{lost:?}"), format!("{:?}", gpu.uncaptured())]
}

pub fn writes_out_of_range(gpu: &Gpu) -> Trace {
    let buffer = gpu.buffer(64, U::COPY_DST | U::COPY_SRC);
    let uncopied = gpu.buffer(64, U::STORAGE);
    let write = |buffer: &wgpu::Buffer, offset, len: usize| {
        gpu.scope(Validation, || gpu.queue.write_buffer(buffer, offset, &vec![1; len]))
    };
    vec![
        write(&buffer, 60, 8),
        write(&buffer, 64, 4),
        write(&buffer, 2, 4),
        write(&buffer, 0, 6),
        write(&buffer, 0, 3 << 20),
        write(&buffer, u64::MAX - 3, 8),
        write(&uncopied, 0, 4),
        write(&buffer, 64, 0),
        write(&buffer, 60, 4),
        crate::programs::line(gpu, "data", &gpu.fetch(&buffer)),
        format!("{:?}", gpu.uncaptured()),
    ]
}

pub fn debug_groups(gpu: &Gpu) -> Trace {
    let mut trace = Trace::new();
    for (pushes, pops) in [(2, 1), (1, 2), (2, 2)] {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        (0..pushes).for_each(|_| pass.push_debug_group("group"));
        (0..pops).for_each(|_| pass.pop_debug_group());
        drop(pass);
        trace.push(gpu.scope(Validation, || drop(encoder.finish())));
    }
    trace
}

pub fn scopes_are_per_thread(gpu: &Gpu) -> Trace {
    let mine = gpu.device.push_error_scope(Validation);
    let theirs = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let theirs = gpu.device.push_error_scope(Validation);
            drop(bad_buffer(gpu, "theirs"));
            popped(theirs)
        });
        other.join().unwrap()
    });
    let mine = popped(mine);
    vec![mine, theirs, format!("{:?}", gpu.uncaptured())]
}

pub fn missing_features(gpu: &Gpu) -> Trace {
    let request = |features, limits| {
        let desc = wgpu::DeviceDescriptor {
            required_features: features,
            required_limits: limits,
            ..Default::default()
        };
        pollster::block_on(gpu.adapter.request_device(&desc)).map(|_| "a device").unwrap_or("none")
    };
    let absurd = wgpu::Limits { max_bind_groups: 4000, ..Default::default() };
    if pontoon_client::round_trips(&gpu.instance).is_some() {
        // Not offered, whatever the adapter has.
        assert_eq!(request(wgpu::Features::PASSTHROUGH_SHADERS, Default::default()), "none");
        assert_eq!(request(wgpu::Features::PIPELINE_CACHE, Default::default()), "none");
    }
    vec![
        request(wgpu::Features::empty(), absurd).to_owned(),
        request(wgpu::Features::empty(), wgpu::Limits::downlevel_defaults()).to_owned(),
        request(wgpu::Features::empty(), wgpu::Limits::default()).to_owned(),
    ]
}

pub fn bind_group_mismatches(gpu: &Gpu) -> Trace {
    let doubler = Doubler::new(gpu, 4);
    let layout = doubler.pipeline.get_bind_group_layout(0);
    let uniform = gpu.buffer(16, U::UNIFORM);
    let sampler = gpu.device.create_sampler(&Default::default());
    let group = |entries: &[wgpu::BindGroupEntry<'_>]| {
        gpu.scope(Validation, || {
            let desc = wgpu::BindGroupDescriptor { label: Some("mismatch"), layout: &layout, entries };
            drop(gpu.device.create_bind_group(&desc));
        })
    };
    let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
    vec![
        group(&[]),
        group(&[entry(3, doubler.data.as_entire_binding())]),
        group(&[entry(0, uniform.as_entire_binding())]),
        group(&[entry(0, wgpu::BindingResource::Sampler(&sampler))]),
        group(&[entry(0, doubler.data.as_entire_binding()), entry(0, doubler.data.as_entire_binding())]),
        format!("{:?}", gpu.uncaptured()),
    ]
}
