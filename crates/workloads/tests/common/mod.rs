//! Owns the native adapter that the integration tests run on.

use pontoon_workloads::report::Image;

/// Opens the first Vulkan or Metal adapter; Mesa's lavapipe will do.
pub fn open() -> (wgpu::Adapter, wgpu::Device, wgpu::Queue) {
    pollster::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = instance
            .request_adapter(&wgpu::RequestAdapterOptions::default())
            .await
            .expect("these tests need a Vulkan or Metal adapter (Mesa's lavapipe will do)");
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor::default())
            .await
            .expect("the adapter gives a device with default limits");
        (adapter, device, queue)
    })
}

/// Writes `image` where `PONTOON_TEST_PICTURES` says, for a person to look at.
#[allow(dead_code, reason = "not every test file has pictures")]
pub fn keep(image: &Image, name: &str) {
    if let Some(folder) = std::env::var_os("PONTOON_TEST_PICTURES") {
        let path = std::path::Path::new(&folder).join(name);
        std::fs::write(path, image.to_png().unwrap()).unwrap();
    }
}
