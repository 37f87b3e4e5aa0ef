//! Memory that this virtual machine shares with its host: QEMU's `ivshmem-plain`, a PCI device whose third region is
//! the memory (<https://www.qemu.org/docs/master/specs/ivshmem-spec.html>).

use std::fs::File;
use std::path::Path;

/// Vendor and device of `ivshmem`, as sysfs writes them.
const IVSHMEM: [(&str, &str); 2] = [("vendor", "0x1af4"), ("device", "0x1110")];

/// The memory of each such device that this process may map; that takes root.
pub(crate) fn devices() -> Vec<File> {
    let Ok(folder) = std::fs::read_dir("/sys/bus/pci/devices") else { return Vec::new() };
    folder.flatten().filter_map(|device| memory(&device.path())).collect()
}

fn memory(device: &Path) -> Option<File> {
    let says = |(file, value)| {
        std::fs::read_to_string(device.join(file)).is_ok_and(|text: String| text.trim() == value)
    };
    if !IVSHMEM.into_iter().all(says) {
        return None;
    }
    // Without this, the device does not answer for its memory.
    if std::fs::read_to_string(device.join("enable")).is_ok_and(|text| text.trim() == "0") {
        let _ = std::fs::write(device.join("enable"), "1");
    }
    File::options().read(true).write(true).open(device.join("resource2")).ok()
}
