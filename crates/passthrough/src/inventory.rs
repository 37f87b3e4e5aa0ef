//! PCI devices as sysfs shows them
//! (<https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-pci>).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Address, Uuid, uses};

/// One function of a PCI device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where it is.
    pub address: Address,
    /// Vendor's number.
    pub vendor: u16,
    /// Device's number.
    pub device: u16,
    /// Class, subclass and interface: 0x030000 is a VGA controller.
    pub class: u32,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The only driver that may have it, where somebody has said so.
    pub driver_override: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// Its NUMA node.
    pub numa: Option<u32>,
    /// Whether the firmware shows its screen on it.
    pub boot_display: bool,
    /// Whether the kernel may put it to sleep: `on` or `auto`.
    pub power: Option<String>,
    /// Bytes of its own memory, where the driver says.
    pub memory: Option<u64>,
    /// Bytes of its largest window into that memory: what there is to go by without a driver.
    pub largest_bar: u64,
    /// Virtual functions, for a physical one that can have some.
    pub sriov: Option<Sriov>,
    /// The physical function of a virtual one.
    pub physical: Option<Address>,
    /// Mediated types that it offers, by their ids.
    pub mdev: BTreeMap<String, Slices>,
    /// Whether the kernel is at it and does not come back: a driver waits for programs to let go of it. Its override, and
    /// how many virtual functions it has, are not known then.
    pub stuck: bool,
    /// Whether it can be reset by itself.
    pub can_reset: bool,
    /// Types of virtual GPUs that NVIDIA's driver offers on it, by number and name.
    pub vgpu: Vec<String>,
    /// What uses it now: programs that have it open, displays that it drives.
    pub uses: Vec<String>,
}

/// Virtual functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sriov {
    /// How many there are now.
    pub active: u32,
    /// How many there may be.
    pub total: u32,
    /// Whether new ones look for drivers of this host.
    pub autoprobe: Option<bool>,
}

/// A type of mediated devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slices {
    /// What the driver calls it.
    pub name: Option<String>,
    /// How many more there may be.
    pub left: u32,
}

impl Device {
    /// Whether it is a display controller or an accelerator.
    pub fn is_gpu(&self) -> bool {
        matches!(self.class >> 8, 0x0300 | 0x0302 | 0x0380) || self.class >> 16 == 0x12
    }

    /// Whether it is a bridge that VFIO does not mind in a group: one without a driver, or with that of PCI Express's ports.
    pub fn is_bridge(&self) -> bool {
        self.class >> 16 == 0x06 && self.driver.as_deref().is_none_or(|driver| driver == "pcieport")
    }

    /// Whether a VFIO driver has it.
    pub fn on_vfio(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| driver.contains("vfio"))
    }
}

/// All PCI devices of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// By address.
    pub devices: Vec<Device>,
    /// The mediated devices that there are.
    pub mediated: Vec<Uuid>,
}

/// The words of a file of sysfs; nothing where there is none, or it cannot be read, or it says `(null)`.
fn word(device: &Path, file: &str) -> Option<String> {
    let text = std::fs::read_to_string(device.join(file)).ok()?;
    let text = text.trim();
    (!text.is_empty() && text != "(null)").then(|| text.to_owned())
}

fn number(device: &Path, file: &str) -> Option<u64> {
    let text = word(device, file)?;
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The last part of where a link leads.
fn link(device: &Path, file: &str) -> Option<String> {
    let target = std::fs::read_link(device.join(file)).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

impl Inventory {
    /// Reads a host's devices below `root`. A device that vanishes meanwhile is left out. On a real host this may not come
    /// back: [`crate::look`].
    ///
    /// # Errors
    /// What the system said of the list itself; a host without PCI has an empty one.
    pub fn read(root: &Path) -> io::Result<Self> {
        Self::read_but(root, &[], &mut |_| ())
    }

    /// The same, without what takes the locks of the `stuck` devices, and telling each that is read before it is.
    pub(crate) fn read_but(
        root: &Path,
        stuck: &[Address],
        reading: &mut dyn FnMut(Address),
    ) -> io::Result<Self> {
        let folder = root.join("sys/bus/pci/devices");
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            entries => entries?,
        };
        let mut devices: Vec<Device> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let address = entry.file_name().to_str()?.parse().ok()?;
                reading(address);
                read_device(&entry.path(), address, stuck.contains(&address))
            })
            .collect();
        devices.sort_by_key(|device| device.address);
        uses::find(root, &mut devices);
        let names = std::fs::read_dir(root.join("sys/bus/mdev/devices")).into_iter().flatten().flatten();
        let mediated = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        Ok(Self { devices, mediated })
    }

    /// The device at an address.
    pub fn at(&self, address: Address) -> Option<&Device> {
        self.devices.iter().find(|device| device.address == address)
    }

    /// GPUs and accelerators.
    pub fn gpus(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.is_gpu())
    }

    /// All others of a device's group, bridges left out.
    pub fn companions<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = &'a Device> {
        self.devices.iter().filter(|other| {
            device.group.is_some()
                && other.group == device.group
                && other.address != device.address
                && !other.is_bridge()
        })
    }
}

fn read_device(path: &Path, address: Address, stuck: bool) -> Option<Device> {
    // These take the device's lock, which a driver that waits keeps.
    let locked = |file: &str| if stuck { None } else { word(path, file) };
    let sriov = number(path, "sriov_totalvfs").filter(|total| *total > 0).map(|total| Sriov {
        active: locked("sriov_numvfs").and_then(|count| count.parse().ok()).unwrap_or_default(),
        total: total as u32,
        autoprobe: number(path, "sriov_drivers_autoprobe").map(|autoprobe| autoprobe != 0),
    });
    Some(Device {
        address,
        vendor: number(path, "vendor")? as u16,
        device: number(path, "device")? as u16,
        class: number(path, "class")? as u32,
        driver: link(path, "driver"),
        driver_override: locked("driver_override"),
        group: link(path, "iommu_group").and_then(|group| group.parse().ok()),
        numa: number(path, "numa_node").map(|node| node as u32),
        boot_display: number(path, "boot_vga") == Some(1),
        power: word(path, "power/control"),
        memory: number(path, "mem_info_vram_total"),
        largest_bar: largest_bar(path),
        sriov,
        physical: link(path, "physfn").and_then(|address| address.parse().ok()),
        vgpu: vgpu_types(path),
        mdev: if stuck { BTreeMap::new() } else { mdev_types(path) },
        stuck,
        can_reset: path.join("reset").exists(),
        uses: Vec::new(),
    })
}

/// The largest of its six regions (`resource`: a line for each, first and last address and flags).
fn largest_bar(path: &Path) -> u64 {
    let text = std::fs::read_to_string(path.join("resource")).unwrap_or_default();
    let size = |line: &str| {
        let mut numbers = line
            .split_whitespace()
            .map(|word| word.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()));
        let (first, last) = (numbers.next()??, numbers.next()??);
        (last > first).then(|| last - first + 1)
    };
    text.lines().take(6).filter_map(size).max().unwrap_or_default()
}

/// Below a heading, a line for each type: `700 : NVIDIA A16-1B`.
fn vgpu_types(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path.join("nvidia/creatable_vgpu_types")).unwrap_or_default();
    let named = |line: &str| {
        let (number, name) = line.split_once(':')?;
        number.trim().parse::<u32>().ok()?;
        Some(format!("{} {}", number.trim(), name.trim()))
    };
    text.lines().filter_map(named).collect()
}

fn mdev_types(path: &Path) -> BTreeMap<String, Slices> {
    let Ok(types) = std::fs::read_dir(path.join("mdev_supported_types")) else { return BTreeMap::new() };
    let one = |entry: std::fs::DirEntry| {
        let left = number(&entry.path(), "available_instances")? as u32;
        let id = entry.file_name().to_string_lossy().into_owned();
        Some((id, Slices { name: word(&entry.path(), "name"), left }))
    };
    types.flatten().filter_map(one).collect()
}
