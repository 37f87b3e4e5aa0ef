//! Shared memory as memory of the GPU: what a guest wrote is read in place by the GPU's own copies, and
//! what the GPU copies for a guest to map lands where the guest reads it. One of this crate's two modules
//! with `unsafe` (the other is `memory`), because only `wgpu`'s back end can import memory.
//!
//! Uses `VK_EXT_external_memory_host`. Where a driver lacks it, or refuses this memory, everything goes
//! on by copies.

#![allow(unsafe_code, reason = "wgpu offers memory import through its back end only")]

use std::sync::atomic::AtomicU8;

#[cfg(not(target_os = "macos"))]
pub(crate) use vulkan::{Importer, open_device};

/// Shared memory that stays mapped until the process ends. Whoever writes it meanwhile, GPU and guest
/// included, writes bytes that steer nothing.
pub type SharedBytes = &'static [AtomicU8];

/// What an imported buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Source of uploads.
    Upload,
    /// Where the guest maps it to read.
    ReadBack,
}

#[cfg(not(target_os = "macos"))]
mod vulkan {
    use ash::{ext::external_memory_host, vk};
    use wgpu::hal::{api::Vulkan, vulkan};

    use super::{Purpose, SharedBytes};

    const HANDLE: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;

    /// Opens a device as `request_device` would, with memory import besides where the driver has it.
    /// Nothing where this way does not apply: then `request_device` does it, or says why not.
    pub(crate) fn open_device(
        adapter: &wgpu::Adapter,
        desc: &wgpu::DeviceDescriptor<'_>,
    ) -> Option<(wgpu::Device, wgpu::Queue)> {
        let valid = adapter.features().contains(desc.required_features)
            && desc.required_limits.check_limits(&adapter.limits());
        if !valid {
            return None;
        }
        let open = {
            // SAFETY: the adapter is only looked at and asked to open a device.
            let hal = unsafe { adapter.as_hal::<Vulkan>() }?;
            if !hal.physical_device_capabilities().supports_extension(external_memory_host::NAME) {
                return None;
            }
            let add = |args: vulkan::CreateDeviceCallbackArgs<'_, '_, '_>| {
                args.extensions.push(external_memory_host::NAME);
            };
            // SAFETY: features and limits were checked against the adapter's, as `request_device` does;
            // the callback adds one extension that the device supports and removes nothing.
            unsafe {
                hal.open_with_callback(
                    desc.required_features,
                    &desc.required_limits,
                    &desc.memory_hints,
                    Some(Box::new(add)),
                )
            }
            .ok()?
        };
        // SAFETY: the device was opened from this adapter with this description's features and limits.
        unsafe { adapter.create_device_from_hal::<Vulkan>(open, desc) }.ok()
    }

    /// Imports memory for one device.
    pub(crate) struct Importer {
        loader: external_memory_host::Device,
        /// What imported memory must be aligned to, in bytes.
        alignment: u64,
        types: vk::PhysicalDeviceMemoryProperties,
    }

    impl Importer {
        /// For `device`, where it was opened with memory import.
        pub(crate) fn new(device: &wgpu::Device) -> Option<Self> {
            // SAFETY: the device is only looked at, within this function.
            let hal = unsafe { device.as_hal::<Vulkan>() }?;
            if !hal.enabled_device_extensions().contains(&external_memory_host::NAME) {
                return None;
            }
            let (instance, physical) = (hal.shared_instance().raw_instance(), hal.raw_physical_device());
            let mut host = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
            let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut host);
            // SAFETY: `physical` was enumerated from `instance`; Vulkan 1.1 is what `wgpu` asks for, and
            // the extension whose structure is chained is supported, since it is enabled.
            unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
            // SAFETY: as above.
            let types = unsafe { instance.get_physical_device_memory_properties(physical) };
            let loader = external_memory_host::Device::new(instance, hal.raw_device());
            Some(Self { loader, alignment: host.min_imported_host_pointer_alignment.max(1), types })
        }

        /// `memory` as a buffer of `device`, or nothing where the driver does not take it.
        pub(crate) fn import(
            &self,
            device: &wgpu::Device,
            memory: SharedBytes,
            purpose: Purpose,
            desc: &wgpu::BufferDescriptor<'_>,
        ) -> Option<wgpu::Buffer> {
            let (size, start) = (memory.len() as u64, memory.as_ptr() as u64);
            let aligned = size.is_multiple_of(self.alignment) && start.is_multiple_of(self.alignment);
            if !aligned || desc.size == 0 || desc.size > size {
                return None;
            }
            let usage = match purpose {
                Purpose::Upload => vk::BufferUsageFlags::TRANSFER_SRC,
                Purpose::ReadBack => vk::BufferUsageFlags::TRANSFER_DST,
            };
            let buffer = {
                // SAFETY: the device is used within this block only, to make objects of its own.
                let hal = unsafe { device.as_hal::<Vulkan>() }?;
                let (raw, bound) = self.bind(hal.raw_device(), memory, usage)?;
                // SAFETY: both are the device's, made just now and nobody else's; `wgpu` frees them. It
                // never maps them: `Session::map` asks for no bytes of such buffers.
                unsafe { vulkan::Buffer::from_raw_managed(raw, bound, 0, size) }
            };
            // SAFETY: the buffer was made from this device, for what `desc` says, and is as large at least;
            // its bytes are initialised, since shared memory is.
            Some(unsafe { device.create_buffer_from_hal::<Vulkan>(buffer, desc) })
        }

        fn bind(
            &self,
            device: &ash::Device,
            memory: SharedBytes,
            usage: vk::BufferUsageFlags,
        ) -> Option<(vk::Buffer, vk::DeviceMemory)> {
            let (pointer, size) = (memory.as_ptr().cast_mut().cast(), memory.len() as u64);
            let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
            // SAFETY: the pointer is to mapped memory that lives as long as the process.
            unsafe {
                let get = self.loader.fp().get_memory_host_pointer_properties_ext;
                get(device.handle(), HANDLE, pointer, &mut properties)
            }
            .result()
            .ok()?;
            let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(HANDLE);
            let info = vk::BufferCreateInfo::default().size(size).usage(usage).push_next(&mut external);
            // SAFETY: a plain buffer of this device.
            let buffer = unsafe { device.create_buffer(&info, None) }.ok()?;
            // SAFETY: the buffer is this device's.
            let needs = unsafe { device.get_buffer_memory_requirements(buffer) };
            let bound = self
                .memory_type(needs.memory_type_bits & properties.memory_type_bits)
                .filter(|_| needs.size <= size)
                .and_then(|memory_type| {
                    let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
                        .handle_type(HANDLE)
                        .host_pointer(pointer);
                    let info = vk::MemoryAllocateInfo::default()
                        .allocation_size(size)
                        .memory_type_index(memory_type)
                        .push_next(&mut import);
                    // SAFETY: pointer and size are aligned as the device wants them, mapped for as long
                    // as the process lives, and of a type that the device named for them.
                    let memory = unsafe { device.allocate_memory(&info, None) }.ok()?;
                    // SAFETY: both are this device's, neither is bound, and the memory is large enough.
                    match unsafe { device.bind_buffer_memory(buffer, memory, 0) } {
                        Ok(()) => Some(memory),
                        Err(_) => {
                            // SAFETY: nothing uses it.
                            unsafe { device.free_memory(memory, None) };
                            None
                        }
                    }
                });
            if bound.is_none() {
                // SAFETY: nothing uses it.
                unsafe { device.destroy_buffer(buffer, None) };
            }
            Some((buffer, bound?))
        }

        /// A type among `bits` that needs no flushing.
        fn memory_type(&self, bits: u32) -> Option<u32> {
            let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
            let types = self.types.memory_types_as_slice().iter().zip(0u32..);
            types
                .filter(|(kind, index)| bits & (1 << index) != 0 && kind.property_flags.contains(wanted))
                .map(|(_, index)| index)
                .next()
        }
    }
}

/// Metal's `newBufferWithBytesNoCopy` would do the same; it was not built, since it could not be run.
#[cfg(target_os = "macos")]
mod metal {
    use super::{Purpose, SharedBytes};

    pub(crate) fn open_device(
        _: &wgpu::Adapter,
        _: &wgpu::DeviceDescriptor<'_>,
    ) -> Option<(wgpu::Device, wgpu::Queue)> {
        None
    }

    pub(crate) struct Importer;

    impl Importer {
        pub(crate) fn new(_: &wgpu::Device) -> Option<Self> {
            None
        }

        pub(crate) fn import(
            &self,
            _: &wgpu::Device,
            _: SharedBytes,
            _: Purpose,
            _: &wgpu::BufferDescriptor<'_>,
        ) -> Option<wgpu::Buffer> {
            None
        }
    }
}
#[cfg(target_os = "macos")]
pub(crate) use metal::{Importer, open_device};
