//! Owns the few lines of wgpu every workload repeats: buffers, compute pipelines, read-back, limits.

use std::sync::mpsc;

use wgpu::{Buffer, BufferUsages, Device, Queue};

use crate::{Error, report::Image};

/// A storage buffer which can be written to and copied from.
pub(crate) fn storage(device: &Device, label: &str, bytes: u64) -> Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes,
        usage: BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    })
}

/// A buffer for `usage` with `contents` in it; the upload rides on the next submission.
pub(crate) fn filled<T: bytemuck::NoUninit>(
    device: &Device,
    queue: &Queue,
    label: &str,
    usage: BufferUsages,
    contents: &[T],
) -> Buffer {
    let bytes: &[u8] = bytemuck::cast_slice(contents);
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.len() as u64,
        usage: usage | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&buffer, 0, bytes);
    buffer
}

/// A buffer that the host can map to read what was copied into it.
pub(crate) fn landing(device: &Device, label: &str, bytes: u64) -> Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes,
        usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

/// Waits for the device and copies out what a [`landing`] buffer holds.
pub(crate) fn fetch(device: &Device, buffer: &Buffer) -> Result<Vec<u8>, Error> {
    let failed = |problem: &dyn std::fmt::Display| Error::ReadBack(problem.to_string());
    let (sender, receiver) = mpsc::channel();
    buffer.map_async(wgpu::MapMode::Read, .., move |result| {
        // The receiver is gone only when the wait below failed, and then nobody asks.
        let _ = sender.send(result);
    });
    device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| failed(&e))?;
    receiver.recv().map_err(|_| failed(&"the device dropped the request"))?.map_err(|e| failed(&e))?;
    let bytes = buffer.get_mapped_range(..).map_err(|e| failed(&e))?.to_vec();
    buffer.unmap();
    Ok(bytes)
}

/// Copies `bytes` of `source` to the host, in a submission of its own.
pub(crate) fn read_buffer<T: bytemuck::Pod>(
    device: &Device,
    queue: &Queue,
    source: &Buffer,
    bytes: u64,
) -> Result<Vec<T>, Error> {
    let target = landing(device, "read-back", bytes);
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(source, 0, &target, 0, bytes);
    queue.submit([encoder.finish()]);
    Ok(bytemuck::pod_collect_to_vec(&fetch(device, &target)?))
}

/// Compiles WGSL.
pub(crate) fn shader(device: &Device, label: &str, source: &str) -> wgpu::ShaderModule {
    device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(label),
        source: wgpu::ShaderSource::Wgsl(source.into()),
    })
}

/// A compute pipeline for one entry point of `module`.
pub(crate) fn compute_pipeline(
    device: &Device,
    module: &wgpu::ShaderModule,
    layout: &wgpu::PipelineLayout,
    entry_point: &str,
) -> wgpu::ComputePipeline {
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry_point),
        layout: Some(layout),
        module,
        entry_point: Some(entry_point),
        compilation_options: Default::default(),
        cache: None,
    })
}

/// What stands at one binding number of a compute bind group.
#[derive(Clone, Copy)]
pub(crate) enum Slot {
    Uniform,
    ReadOnly,
    ReadWrite,
}

/// The layout of a compute bind group made of buffers; binding numbers are positions in `slots`.
pub(crate) fn buffer_layout(
    device: &Device,
    label: &str,
    slots: &[Slot],
) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
    let entry = |(binding, slot): (usize, &Slot)| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: match slot {
                Slot::Uniform => wgpu::BufferBindingType::Uniform,
                Slot::ReadOnly => wgpu::BufferBindingType::Storage { read_only: true },
                Slot::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
            },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let entries: Vec<_> = slots.iter().enumerate().map(entry).collect();
    let group = device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries });
    let pipeline = pipeline_layout(device, label, &group);
    (group, pipeline)
}

/// A pipeline layout with a single bind group.
pub(crate) fn pipeline_layout(
    device: &Device,
    label: &str,
    group: &wgpu::BindGroupLayout,
) -> wgpu::PipelineLayout {
    device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(label),
        bind_group_layouts: &[Some(group)],
        immediate_size: 0,
    })
}

/// A bind group whose binding numbers are positions in `resources`.
pub(crate) fn bind(
    device: &Device,
    label: &str,
    layout: &wgpu::BindGroupLayout,
    resources: &[wgpu::BindingResource<'_>],
) -> wgpu::BindGroup {
    let entries: Vec<_> = resources
        .iter()
        .enumerate()
        .map(|(binding, resource)| wgpu::BindGroupEntry {
            binding: binding as u32,
            resource: resource.clone(),
        })
        .collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(label), layout, entries: &entries })
}

/// Fails with a clear sentence when the device's limit is below what the workload needs.
pub(crate) fn require(limit: &'static str, have: u64, need: u64) -> Result<(), Error> {
    if have < need {
        return Err(Error::Limit { limit, need, have });
    }
    Ok(())
}

/// Fails unless `ok`, naming the field and the rule it breaks.
pub(crate) fn check(
    ok: bool,
    what: &'static str,
    got: impl Into<u64>,
    rule: &'static str,
) -> Result<(), Error> {
    if ok {
        return Ok(());
    }
    Err(Error::Config { what, got: got.into(), rule })
}

/// Copies a four-byte-per-pixel 2D texture to the host, in a submission of its own.
pub(crate) fn read_texture(device: &Device, queue: &Queue, texture: &wgpu::Texture) -> Result<Image, Error> {
    let (width, height) = (texture.width(), texture.height());
    let row = 4 * width;
    let padded = row.next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT);
    let target = landing(device, "read-back", u64::from(padded) * u64::from(height));
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_texture_to_buffer(
        texture.as_image_copy(),
        wgpu::TexelCopyBufferInfo {
            buffer: &target,
            layout: wgpu::TexelCopyBufferLayout {
                offset: 0,
                bytes_per_row: Some(padded),
                rows_per_image: None,
            },
        },
        texture.size(),
    );
    queue.submit([encoder.finish()]);
    let bytes = fetch(device, &target)?;
    let rows = bytes.chunks_exact(padded as usize);
    Ok(Image { width, height, pixels: rows.flat_map(|r| &r[..row as usize]).copied().collect() })
}
