//! Payload large enough to be read, or to land, in shared memory: in order with everything around it.

use std::sync::{Arc, Mutex};

use wgpu::BufferUsages as U;

use crate::Trace;
use crate::programs::line;
use crate::rig::{Backend, Gpu};

const SIZE: usize = 1 << 20;
const READ_BACK: U = U::MAP_READ.union(U::COPY_DST);

fn target(gpu: &Gpu) -> wgpu::Buffer {
    gpu.buffer(SIZE as u64, U::COPY_DST | U::COPY_SRC)
}

fn copy(gpu: &Gpu, source: &wgpu::Buffer, target: &wgpu::Buffer) -> wgpu::CommandBuffer {
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(source, 0, target, 0, None);
    encoder.finish()
}

/// Small and large writes to one buffer, overlapping, before one submission.
pub fn writes_keep_their_order(gpu: &Gpu) -> Trace {
    let mut trace = Trace::new();
    let buffer = target(gpu);
    for round in 0..3u8 {
        gpu.queue.write_buffer(&buffer, 0, &[round + 1; 64]);
        gpu.queue.write_buffer(&buffer, 32, &vec![round + 10; SIZE - 32]);
        gpu.queue.write_buffer(&buffer, 64, &[round + 20; 64]);
        gpu.queue.write_buffer(&buffer, 96, &vec![round + 30; SIZE / 2]);
        gpu.queue.write_buffer(&buffer, 100, &[round + 40; 4]);
        if round == 1 {
            gpu.queue.submit([]);
        }
        let bytes = gpu.fetch(&buffer);
        if gpu.backend == Backend::Gpu {
            let at = |place: usize| bytes[place] - round;
            assert_eq!([at(0), at(32), at(64), at(96), at(100), at(SIZE - 1)], [1, 10, 20, 30, 40, 10]);
        }
        trace.push(line(gpu, "bytes", &bytes));
    }
    trace.push(format!("{:?}", gpu.uncaptured()));
    trace
}

/// Sizes that divide into pieces badly.
pub fn odd_sizes(gpu: &Gpu) -> Trace {
    let buffer = gpu.buffer(4_000_016, U::COPY_DST | U::COPY_SRC);
    let mut trace = Trace::new();
    for len in [4_000_004, 1_048_580, 262_148, 70_004, 4_100] {
        let bytes: Vec<u8> = (0..len).map(|at| (at * 3 + at / 509) as u8).collect();
        gpu.queue.write_buffer(&buffer, 12, &bytes);
        let back = gpu.fetch(&buffer);
        assert!(gpu.backend == Backend::Noop || back[12..12 + len] == bytes, "{len} bytes arrive");
        trace.push(line(gpu, "bytes", &back));
    }
    trace.push(format!("{:?}", gpu.uncaptured()));
    trace
}

/// What happens to the target between a write and its submission.
pub fn targets_that_go(gpu: &Gpu) -> Trace {
    let data = vec![9; SIZE];
    let dropped = target(gpu);
    gpu.queue.write_buffer(&dropped, 0, &data);
    drop(dropped);
    let destroyed = target(gpu);
    gpu.queue.write_buffer(&destroyed, 0, &data);
    destroyed.destroy();
    let late = gpu.scope(wgpu::ErrorFilter::Validation, || gpu.queue.write_buffer(&destroyed, 0, &data));
    gpu.queue.submit([]);
    let kept = target(gpu);
    gpu.queue.write_buffer(&kept, 0, &data);
    let bad = gpu.scope(wgpu::ErrorFilter::Validation, || gpu.queue.write_buffer(&kept, 8, &data));
    let invalid = Mutex::new(None);
    let creation = gpu.scope(wgpu::ErrorFilter::Validation, || {
        *invalid.lock().unwrap() = Some(gpu.buffer(SIZE as u64, U::MAP_READ | U::STORAGE | U::COPY_DST));
    });
    let invalid = invalid.into_inner().unwrap().unwrap();
    let into_invalid =
        gpu.scope(wgpu::ErrorFilter::Validation, || gpu.queue.write_buffer(&invalid, 0, &data));
    let kept = line(gpu, "kept", &gpu.fetch(&kept));
    vec![late, bad, creation, into_invalid, kept, format!("{:?}", gpu.uncaptured())]
}

/// A buffer for reading back: mapped, written, mapped again, in parts, and wrongly.
pub fn read_back_again_and_again(gpu: &Gpu) -> Trace {
    let answers = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let answers = answers.clone();
        move |result: Result<(), wgpu::BufferAsyncError>| {
            answers.lock().unwrap().push(format!("{what}: {result:?}"))
        }
    };
    let landing = gpu.buffer(SIZE as u64, READ_BACK);
    let mut trace = vec![line(gpu, "fresh", &gpu.read(&landing))];
    let source = target(gpu);
    for round in 0..3u8 {
        gpu.queue.write_buffer(&source, 0, &vec![round + 1; SIZE]);
        gpu.queue.submit([copy(gpu, &source, &landing)]);
        let at = u64::from(round) * 65_536;
        landing.map_async(wgpu::MapMode::Read, at..at + 131_072, note("part"));
        gpu.wait();
        trace.push(line(gpu, "part", &landing.get_mapped_range(at + 8..at + 80).unwrap()));
        let used = gpu.scope(wgpu::ErrorFilter::Validation, || {
            gpu.queue.submit([copy(gpu, &source, &landing)]);
        });
        trace.push(used);
        landing.unmap();
        trace.push(line(gpu, "whole", &gpu.read(&landing)));
    }
    gpu.queue.write_buffer(&landing, 16, &vec![77; SIZE / 2]);
    gpu.queue.write_buffer(&landing, 32, &[78; 16]);
    trace.push(line(gpu, "written", &gpu.read(&landing)));
    for (what, range) in [("misaligned", 4..12), ("odd", 8..14)] {
        trace.push(gpu.scope(wgpu::ErrorFilter::Validation, || {
            landing.map_async(wgpu::MapMode::Read, range, note(what));
        }));
        gpu.wait();
        landing.unmap();
    }
    trace.push(gpu.scope(wgpu::ErrorFilter::Validation, || {
        landing.map_async(wgpu::MapMode::Write, .., note("for writing"));
    }));
    gpu.wait();
    trace.push(format!("{:?} {:?}", answers.lock().unwrap(), gpu.uncaptured()));
    trace
}

/// Buffers for reading back that are dropped while recordings still write to them, and new ones after.
pub fn read_back_reuses_memory(gpu: &Gpu) -> Trace {
    let sources: Vec<_> = [3u8, 5, 7].map(|byte| (byte, target(gpu))).into();
    for (byte, source) in &sources {
        gpu.queue.write_buffer(source, 0, &vec![*byte; SIZE]);
    }
    let dropped = gpu.buffer(SIZE as u64, READ_BACK);
    let recorded = copy(gpu, &sources[0].1, &dropped);
    drop(dropped);
    let mapped = gpu.buffer(SIZE as u64, READ_BACK);
    gpu.queue.submit([copy(gpu, &sources[1].1, &mapped)]);
    gpu.queue.submit([recorded]);
    let mut trace = vec![line(gpu, "second", &gpu.read(&mapped))];
    // More than the shared memory holds, most of them at once.
    let many: Vec<_> = (0..120).map(|_| gpu.buffer(SIZE as u64, READ_BACK)).collect();
    for (index, landing) in many.iter().enumerate() {
        gpu.queue.submit([copy(gpu, &sources[index % 3].1, landing)]);
    }
    trace.extend(many.iter().map(|landing| line(gpu, "many", &gpu.read(landing))));
    drop(many);
    for round in 0..200 {
        let landing = gpu.buffer(SIZE as u64, READ_BACK);
        gpu.queue.submit([copy(gpu, &sources[round % 3].1, &landing)]);
        if round % 50 == 0 {
            trace.push(line(gpu, "one of many", &gpu.read(&landing)));
        }
    }
    trace.push(line(gpu, "fresh", &gpu.read(&gpu.buffer(SIZE as u64, READ_BACK))));
    trace.push(format!("{:?}", gpu.uncaptured()));
    trace
}

/// Writes of many times the arena that no submission follows, to several devices' buffers in turn.
pub fn writes_without_submission(gpu: &Gpu) -> Trace {
    let others: Vec<_> = (0..3)
        .map(|_| pollster::block_on(gpu.adapter.request_device(&Default::default())).expect("a device"))
        .collect();
    let desc = wgpu::BufferDescriptor {
        label: None,
        size: SIZE as u64,
        usage: U::COPY_DST,
        mapped_at_creation: false,
    };
    let buffers: Vec<_> = others.iter().map(|(device, _)| device.create_buffer(&desc)).collect();
    let own = target(gpu);
    let data = vec![1; SIZE];
    for round in 0..200u8 {
        for ((_, queue), buffer) in others.iter().zip(&buffers) {
            queue.write_buffer(buffer, 0, &data);
        }
        gpu.queue.write_buffer(&own, 0, &vec![round; SIZE]);
    }
    vec![line(gpu, "own", &gpu.fetch(&own)), format!("{:?}", gpu.uncaptured())]
}
