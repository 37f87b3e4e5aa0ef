//! Owns the way to a GPU: through Pontoon or natively, as built and as asked.

use std::sync::Arc;

use crate::{Common, Error};

/// An open GPU.
pub struct Gpu {
    /// Where it came from.
    pub adapter: wgpu::Adapter,
    /// To make things on it.
    pub device: wgpu::Device,
    /// To send it work.
    pub queue: wgpu::Queue,
    /// `"bridge"` or `"native"`.
    pub route: &'static str,
}

impl Gpu {
    /// The fields that the JSON lines of all programs begin with.
    pub fn json(&self, program: &str, seconds: f64) -> serde_json::Value {
        let info = self.adapter.get_info();
        serde_json::json!({
            "program": program,
            "adapter": info.name,
            "backend": info.backend.to_string(),
            "route": self.route,
            "seconds": seconds,
        })
    }
}

/// Opens a GPU as the flags say, and says which.
pub fn open(common: &Common) -> Result<Gpu, Error> {
    let (instance, route) = instance(common.native)?;
    let gpu = pollster::block_on(connect(&instance, route))?;
    let info = gpu.adapter.get_info();
    common.say(format_args!("{} ({}, {route})", info.name, info.backend));
    Ok(gpu)
}

async fn connect(instance: &wgpu::Instance, route: &'static str) -> Result<Gpu, Error> {
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).await?;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("pontoon example"),
        // WebGPU's guaranteed limits are enough.
        ..Default::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await?;
    // wgpu would panic; these programs have nothing to clean up, and one sentence says more.
    device.on_uncaptured_error(Arc::new(|error| {
        crate::complain(&error);
        std::process::exit(1);
    }));
    Ok(Gpu { adapter, device, queue, route })
}

/// Through Pontoon unless `native` is asked for or is all there is.
fn instance(native: bool) -> Result<(wgpu::Instance, &'static str), Error> {
    if native || !cfg!(feature = "bridge") {
        return Ok((native_instance()?, "native"));
    }
    Ok((bridge_instance()?, "bridge"))
}

#[cfg(feature = "bridge")]
fn bridge_instance() -> Result<wgpu::Instance, Error> {
    Ok(pontoon_client::instance()?)
}

#[cfg(not(feature = "bridge"))]
fn bridge_instance() -> Result<wgpu::Instance, Error> {
    Err(Error::NotBuiltIn { what: "Pontoon's client", feature: "bridge" })
}

#[cfg(feature = "native")]
fn native_instance() -> Result<wgpu::Instance, Error> {
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    Ok(wgpu::Instance::new(descriptor))
}

#[cfg(not(feature = "native"))]
fn native_instance() -> Result<wgpu::Instance, Error> {
    Err(Error::NotBuiltIn { what: "support for this machine's own GPU", feature: "native" })
}
