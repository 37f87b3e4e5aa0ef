//! What vendors and devices are called, by the list that distributions ship (<https://pci-ids.ucw.cz>).

use std::collections::HashMap;
use std::path::Path;

use crate::Device;

/// Where distributions put the list.
const PLACES: [&str; 3] = ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids", "usr/share/pci.ids"];

/// Vendors of GPUs and accelerators, for hosts without the list.
const VENDORS: [(u16, &str); 9] = [
    (0x1002, "AMD"),
    (0x106b, "Apple"),
    (0x10de, "NVIDIA"),
    (0x1234, "QEMU"),
    (0x15ad, "VMware"),
    (0x1a03, "ASPEED"),
    (0x1af4, "Red Hat"),
    (0x1b36, "Red Hat"),
    (0x8086, "Intel"),
];

/// The names of some devices.
#[derive(Debug, Clone, Default)]
pub struct Names {
    vendors: HashMap<u16, String>,
    devices: HashMap<(u16, u16), String>,
}

impl Names {
    /// Looks the devices up in the list below `root`; without a list, only vendors that are well known have names.
    pub fn of<'a>(root: &Path, devices: impl IntoIterator<Item = &'a Device>) -> Self {
        let list = PLACES.iter().find_map(|place| std::fs::read(root.join(place)).ok());
        let list = list.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        Self::read(&list, devices)
    }

    /// Reads the lines about these devices out of a list: a vendor's number and name, and below it, behind a tab, its
    /// devices'. Subsystems and, at the end, classes are left out.
    pub fn read<'a>(list: &str, devices: impl IntoIterator<Item = &'a Device>) -> Self {
        let mut names = Self::default();
        let wanted: Vec<(u16, u16)> =
            devices.into_iter().map(|device| (device.vendor, device.device)).collect();
        let mut vendor = None;
        for line in list.lines().take_while(|line| !line.starts_with("C ")) {
            let entry = |text: &str| -> Option<(u16, String)> {
                let (number, name) = text.split_at_checked(4)?;
                Some((u16::from_str_radix(number, 16).ok()?, name.trim().to_owned()))
            };
            match line.strip_prefix('\t') {
                None if line.starts_with('#') || line.is_empty() => {}
                None => {
                    vendor =
                        entry(line).filter(|(number, _)| wanted.iter().any(|(vendor, _)| vendor == number));
                    names.vendors.extend(vendor.clone());
                }
                Some(line) if line.starts_with('\t') => {}
                Some(line) => {
                    let (Some((vendor, _)), Some((device, name))) = (&vendor, entry(line)) else { continue };
                    if wanted.contains(&(*vendor, device)) {
                        names.devices.insert((*vendor, device), name);
                    }
                }
            }
        }
        names
    }

    /// The vendor's name, in short where it is well known, else as listed, else its number.
    pub fn vendor(&self, device: &Device) -> String {
        let known =
            VENDORS.iter().find(|(number, _)| *number == device.vendor).map(|(_, name)| (*name).to_owned());
        known
            .or_else(|| self.vendors.get(&device.vendor).cloned())
            .unwrap_or_else(|| format!("{:04x}", device.vendor))
    }

    /// The device's name, or its numbers.
    pub fn model(&self, device: &Device) -> String {
        let numbers = (device.vendor, device.device);
        self.devices
            .get(&numbers)
            .cloned()
            .unwrap_or_else(|| format!("[{:04x}:{:04x}]", numbers.0, numbers.1))
    }
}
