//! Whether a virtual machine could have a device now.

use std::fmt;

use serde::Serialize;

use crate::{Device, Owner};

/// What stands between a device and a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", content = "by", rename_all = "kebab-case")]
pub enum Status {
    /// Nothing.
    Available,
    /// It is on a VFIO driver already.
    VfioReady,
    /// The firmware shows its screen on it: the console goes with it.
    BootVga,
    /// It is used, by these.
    InUse(Vec<String>),
    /// The host has no IOMMU for it: a machine that had it could reach all memory.
    NoIommu,
    /// It was taken by Pontoon, for this owner.
    OwnedBy(String),
}

impl Status {
    /// The status of a GPU, and who has it by the journals. What nobody has and is on a VFIO driver is ready, or in use by
    /// a machine; of the others the first that holds: the boot display, in use, no IOMMU.
    pub fn of(device: &Device, owner: Option<&Owner>) -> Self {
        let on_vfio = device.on_vfio();
        if let Some(owner) = owner {
            Self::OwnedBy(owner.to_string())
        } else if on_vfio && device.uses.is_empty() {
            Self::VfioReady
        } else if device.boot_display && !on_vfio {
            Self::BootVga
        } else if !device.uses.is_empty() {
            Self::InUse(device.uses.clone())
        } else if device.group.is_none() {
            Self::NoIommu
        } else {
            Self::Available
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available => f.write_str("available"),
            Self::VfioReady => f.write_str("vfio-ready"),
            Self::BootVga => f.write_str("boot-vga"),
            Self::InUse(by) => write!(f, "in-use by {}", by.join(", ")),
            Self::NoIommu => f.write_str("no-iommu"),
            Self::OwnedBy(owner) => write!(f, "owned by {owner}"),
        }
    }
}
