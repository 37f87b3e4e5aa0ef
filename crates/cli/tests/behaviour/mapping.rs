//! Mapped buffers in both directions.

use std::sync::{Arc, Mutex};

use wgpu::BufferUsages as U;

use crate::Trace;
use crate::programs::{Doubler, line};
use crate::rig::Gpu;

type Answers = Arc<Mutex<Vec<String>>>;

fn note(
    answers: &Answers,
    what: &'static str,
) -> impl FnOnce(Result<(), wgpu::BufferAsyncError>) + Send + 'static {
    let answers = answers.clone();
    move |result| answers.lock().unwrap().push(format!("{what}: {result:?}"))
}

fn taken(answers: &Answers) -> String {
    format!("{:?}", std::mem::take(&mut *answers.lock().unwrap()))
}

pub fn mapped_at_creation(gpu: &Gpu) -> Trace {
    let create = |size, usage| {
        gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: true,
        })
    };
    let whole = create(64, U::COPY_SRC);
    whole.get_mapped_range_mut(..).unwrap().copy_from_slice(&[5; 64]);
    whole.unmap();
    let parts = create(64, U::COPY_SRC | U::STORAGE);
    parts.get_mapped_range_mut(8..16).unwrap().copy_from_slice(&[6; 8]);
    parts.get_mapped_range_mut(32..40).unwrap().copy_from_slice(&[7; 8]);
    parts.unmap();
    let large = create(3 << 20, U::COPY_SRC);
    large.get_mapped_range_mut(..).unwrap().copy_from_slice(&vec![8; 3 << 20]);
    large.unmap();
    let untouched = create(16, U::COPY_SRC);
    untouched.unmap();
    let too_small_step = gpu.scope(wgpu::ErrorFilter::Validation, || drop(create(6, U::COPY_SRC)));
    vec![
        line(gpu, "whole", &gpu.fetch(&whole)),
        line(gpu, "parts", &gpu.fetch(&parts)),
        line(gpu, "large", &gpu.fetch(&large)),
        line(gpu, "untouched", &gpu.fetch(&untouched)),
        too_small_step,
        format!("{:?}", gpu.uncaptured()),
    ]
}

pub fn map_write(gpu: &Gpu) -> Trace {
    let source = gpu.buffer(64, U::MAP_WRITE | U::COPY_SRC);
    let answers = Answers::default();
    let mut trace = Trace::new();
    for round in 1..=2u8 {
        source.map_async(wgpu::MapMode::Write, .., note(&answers, "write"));
        gpu.wait();
        trace.push(taken(&answers));
        // The second round leaves most of what the first wrote.
        let range = if round == 1 { 0..64 } else { 16..24 };
        let len = (range.end - range.start) as usize;
        source.get_mapped_range_mut(range).unwrap().copy_from_slice(&vec![round; len]);
        source.unmap();
        trace.push(line(gpu, "data", &gpu.fetch(&source)));
    }
    trace.push(format!("{:?}", gpu.uncaptured()));
    trace
}

pub fn partial_ranges(gpu: &Gpu) -> Trace {
    let doubler = Doubler::new(gpu, 4096);
    doubler.run(gpu, 2);
    let target = gpu.buffer(16384, U::MAP_READ | U::COPY_DST);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(&doubler.data, 0, &target, 0, None);
    gpu.queue.submit([encoder.finish()]);
    let answers = Answers::default();
    target.map_async(wgpu::MapMode::Read, 4096..8192, note(&answers, "read"));
    gpu.wait();
    let inner = target.get_mapped_range(4096..4160).unwrap().to_vec();
    let outer = target.get_mapped_range(0..64).map(|view| view.to_vec()).map_err(|error| error.to_string());
    let twice = (target.get_mapped_range(4096..4104).is_ok(), target.get_mapped_range(4096..4104).is_ok());
    target.unmap();
    let after = target.get_mapped_range(4096..4104).map(|_| ()).map_err(|error| error.to_string());
    vec![
        taken(&answers),
        line(gpu, "inner", &inner),
        format!("{} {twice:?} {}", outer.is_err(), after.is_err()),
    ]
}

pub fn map_errors(gpu: &Gpu) -> Trace {
    let answers = Answers::default();
    let unmappable = gpu.buffer(64, U::COPY_DST);
    let usage = gpu.scope(wgpu::ErrorFilter::Validation, || {
        unmappable.map_async(wgpu::MapMode::Read, .., note(&answers, "usage"));
    });
    gpu.wait();
    let readable = gpu.buffer(64, U::MAP_READ | U::COPY_DST);
    let mode = gpu.scope(wgpu::ErrorFilter::Validation, || {
        readable.map_async(wgpu::MapMode::Write, .., note(&answers, "mode"));
    });
    gpu.wait();
    let good = gpu.buffer(64, U::MAP_READ | U::COPY_DST);
    let misaligned = gpu.scope(wgpu::ErrorFilter::Validation, || {
        good.map_async(wgpu::MapMode::Read, 2..6, note(&answers, "misaligned"));
    });
    gpu.wait();
    let early = gpu.buffer(64, U::MAP_READ | U::COPY_DST);
    let unmapped = early.get_mapped_range(..).is_err();
    early.map_async(wgpu::MapMode::Read, .., note(&answers, "first"));
    early.map_async(wgpu::MapMode::Read, .., note(&answers, "second"));
    gpu.wait();
    let mapped_use = gpu.scope(wgpu::ErrorFilter::Validation, || {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.clear_buffer(&early, 0, None);
        gpu.queue.submit([encoder.finish()]);
    });
    early.unmap();
    let twice = gpu.scope(wgpu::ErrorFilter::Validation, || early.unmap());
    vec![
        usage,
        mode,
        misaligned,
        mapped_use,
        twice,
        taken(&answers),
        format!("{unmapped} {:?}", gpu.uncaptured()),
    ]
}

pub fn unmap_before_it_comes_through(gpu: &Gpu) -> Trace {
    let answers = Answers::default();
    let buffer = gpu.buffer(64, U::MAP_READ | U::COPY_DST);
    buffer.map_async(wgpu::MapMode::Read, .., note(&answers, "unmapped"));
    buffer.unmap();
    gpu.wait();
    let destroyed = gpu.buffer(64, U::MAP_READ | U::COPY_DST);
    destroyed.map_async(wgpu::MapMode::Read, .., note(&answers, "destroyed"));
    destroyed.destroy();
    gpu.wait();
    let again = gpu.buffer(64, U::MAP_READ | U::COPY_DST);
    again.map_async(wgpu::MapMode::Read, .., note(&answers, "again"));
    gpu.wait();
    again.unmap();
    again.map_async(wgpu::MapMode::Read, .., note(&answers, "and again"));
    gpu.wait();
    vec![taken(&answers), format!("{:?}", gpu.uncaptured())]
}

pub fn map_on_submit(gpu: &Gpu) -> Trace {
    let answers = Answers::default();
    let doubler = Doubler::new(gpu, 16);
    doubler.run(gpu, 1);
    let target = gpu.buffer(64, U::MAP_READ | U::COPY_DST);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(&doubler.data, 0, &target, 0, None);
    encoder.map_buffer_on_submit(&target, wgpu::MapMode::Read, .., note(&answers, "mapped"));
    gpu.queue.submit([encoder.finish()]);
    gpu.wait();
    let bytes = target.get_mapped_range(..).unwrap().to_vec();
    vec![taken(&answers), line(gpu, "bytes", &bytes)]
}
