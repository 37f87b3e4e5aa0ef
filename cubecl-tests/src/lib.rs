//! Owns the runtime that CubeCL's tests run on: CubeCL's own for wgpu, on a device that is the host's,
//! through Pontoon, where `PONTOON_HOST` is set, and this machine's where it is not.
//!
//! CubeCL's runtime opens its default device itself. It also takes a device that is already open, under
//! a name of its own; [`TestRuntime`] says that name for whatever device a test asks for. Everything
//! else is `WgpuRuntime`: compiler, memory, streams, and the server that talks to wgpu.

#![forbid(unsafe_code)]

use std::sync::OnceLock;

use cubecl_common::device::{Device, DeviceId};
use cubecl_ir::TargetProperties;
use cubecl_server::client::Client;
use cubecl_server::runtime::Runtime;
use cubecl_wgpu::{RuntimeOptions, WgpuDevice, WgpuRuntime, WgpuSetup};
use cubecl_zspace::{Shape, Strides};

/// CubeCL's wgpu runtime on one device, that of [`device`].
#[derive(Debug, Clone)]
pub struct TestRuntime;

impl Runtime for TestRuntime {
    type Server = <WgpuRuntime as Runtime>::Server;
    type Device = WgpuDevice;

    fn client(_: &WgpuDevice) -> Client {
        <WgpuRuntime as Runtime>::client(device())
    }

    fn can_read_tensor(shape: &Shape, strides: &Strides) -> bool {
        <WgpuRuntime as Runtime>::can_read_tensor(shape, strides)
    }

    fn target_properties() -> TargetProperties {
        <WgpuRuntime as Runtime>::target_properties()
    }

    fn enumerate_devices(_: u16) -> Vec<DeviceId> {
        vec![device().to_id()]
    }
}

/// The device that all tests of a process share; opened by the first.
pub fn device() -> &'static WgpuDevice {
    static DEVICE: OnceLock<WgpuDevice> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let setup = pollster::block_on(setup(instance()));
        cubecl_wgpu::init_device(setup, RuntimeOptions::default())
    })
}

fn instance() -> wgpu::Instance {
    if std::env::var_os("PONTOON_HOST").is_some() {
        return pontoon_client::instance().expect("PONTOON_HOST names a host that answers");
    }
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    descriptor.backends &= wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor)
}

/// Opens the device as CubeCL opens its own: everything that the adapter has, but no experiments.
async fn setup(instance: wgpu::Instance) -> WgpuSetup {
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).await.expect("the instance has an adapter");
    let left_out = wgpu::Features::all_experimental_mask() | wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("cubecl tests"),
        required_features: adapter.features().difference(left_out),
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await.expect("the adapter gives a device");
    let backend = adapter.get_info().backend;
    WgpuSetup { instance, adapter, device, queue, backend }
}
