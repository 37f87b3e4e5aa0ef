//! How much memory a GPU has: the one question that `wgpu` cannot answer without `unsafe`.

/// Bytes of device-local memory, where the driver says.
#[cfg(not(target_os = "macos"))]
#[allow(unsafe_code, reason = "wgpu lends its back end's objects only so")]
pub fn device_memory(adapter: &wgpu::Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: the adapter is only looked at, within this function.
    let vulkan = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (instance, device) = (vulkan.shared_instance().raw_instance(), vulkan.raw_physical_device());
    // SAFETY: `device` was enumerated from `instance`, and both live as long as `vulkan`.
    let memory = unsafe { instance.get_physical_device_memory_properties(device) };
    let heaps = memory.memory_heaps_as_slice().iter();
    let local = heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0);
    Some(local.map(|heap| heap.size).sum())
}

/// Bytes of device-local memory, where the driver says.
#[cfg(target_os = "macos")]
pub fn device_memory(_: &wgpu::Adapter) -> Option<u64> {
    None
}
