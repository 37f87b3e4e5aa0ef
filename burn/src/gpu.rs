//! Owns the way to a GPU, through Pontoon or natively, and its hand-over to Burn.
//!
//! Nothing but [`instance`] differs between the two: Burn is given a wgpu instance, adapter, device and
//! queue, and does not know that the GPU is elsewhere.

use burn::tensor::Device;
use burn::tensor::wgpu::WgpuSetup;

use crate::Error;

/// An open GPU.
pub struct Gpu {
    /// What it is.
    pub info: wgpu::AdapterInfo,
    /// To make tensors on it.
    pub device: Device,
}

/// Opens a GPU and registers it with Burn.
pub fn open(native: bool) -> Result<Gpu, Error> {
    let instance = if native { native_instance()? } else { pontoon_client::instance()? };
    let setup = pollster::block_on(setup(instance))?;
    let info = setup.adapter.get_info();
    let device = Device::wgpu_options().setup(setup).init()?;
    Ok(Gpu { info, device })
}

async fn setup(instance: wgpu::Instance) -> Result<WgpuSetup, Error> {
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).await?;
    // Burn's runtime chooses kernels by what the adapter has, so the device must have it too; mappable
    // primary buffers it leaves out itself.
    let stable = adapter.features().difference(wgpu::Features::all_experimental_mask());
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("pontoon burn-digits"),
        required_features: stable.difference(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await?;
    let backend = adapter.get_info().backend;
    Ok(WgpuSetup { instance, adapter, device, queue, backend })
}

#[cfg(feature = "native")]
fn native_instance() -> Result<wgpu::Instance, Error> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    // Back ends that could not run Burn's kernels are not worth starting.
    descriptor.backends &= wgpu::Backends::PRIMARY;
    Ok(wgpu::Instance::new(descriptor))
}

#[cfg(not(feature = "native"))]
fn native_instance() -> Result<wgpu::Instance, Error> {
    Err(Error::NotBuiltIn)
}
