//! Memory that this virtual machine shares with its host: QEMU's `ivshmem-plain`, a PCI device whose third region is
//! the memory (<https://www.qemu.org/docs/master/specs/ivshmem-spec.html>).

use std::fs::File;
use std::path::{Path, PathBuf};

/// Vendor and device of `ivshmem`, as sysfs writes them.
const IVSHMEM: [(&str, &str); 2] = [("vendor", "0x1af4"), ("device", "0x1110")];

/// The folders of such devices. Elsewhere than on x86 the kernel maps their memory as a device's, which plain copies must
/// not touch.
fn found() -> Vec<PathBuf> {
    if !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    let Ok(folder) = std::fs::read_dir("/sys/bus/pci/devices") else { return Vec::new() };
    folder.flatten().map(|device| device.path()).filter(|device| is_ivshmem(device)).collect()
}

fn is_ivshmem(device: &Path) -> bool {
    IVSHMEM.into_iter().all(|(file, value)| {
        std::fs::read_to_string(device.join(file)).is_ok_and(|text: String| text.trim() == value)
    })
}

/// Whether there is such memory that this process may map; that takes root.
pub(crate) fn is_there() -> bool {
    found().iter().any(|device| memory(device).is_some())
}

/// The memory of each such device, once a host has said that it shares some.
pub(crate) fn devices() -> Vec<File> {
    let enabled = found().into_iter().filter_map(|device| {
        // Without this, the device does not answer for its memory.
        if std::fs::read_to_string(device.join("enable")).is_ok_and(|text| text.trim() == "0") {
            let _ = std::fs::write(device.join("enable"), "1");
        }
        memory(&device)
    });
    enabled.collect()
}

fn memory(device: &Path) -> Option<File> {
    File::options().read(true).write(true).open(device.join("resource2")).ok()
}
