//! What stands against taking a device, each with its remedy.

use crate::Address;

/// One reason why a device cannot be taken. All of them are found at once, before anything is touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is no such device.
    #[error(
        "{0}: there is no such PCI device; `pontoon gpu list` shows the GPUs, `ls /sys/bus/pci/devices` all"
    )]
    NoDevice(Address),
    /// A bridge.
    #[error("{0} is a bridge: name the device behind it")]
    Bridge(Address),
    /// There is no IOMMU for it.
    #[error(
        "{device} has no IOMMU group: a machine that had it could write to all of this host's memory; switch on VT-d or AMD-Vi in the firmware's settings and boot with {parameter}"
    )]
    NoIommu {
        /// The device.
        device: Address,
        /// What to boot with.
        parameter: String,
    },
    /// The firmware's screen is on it.
    #[error(
        "{device} ({driver}) is the boot display: this host's console goes dark with it and may not come back before a reboot; use another GPU, or add --force (group {group}{others})"
    )]
    BootDisplay {
        /// The device.
        device: Address,
        /// Its driver, or that it has none.
        driver: String,
        /// Its group.
        group: u32,
        /// The group's other members, `; with …`, or nothing.
        others: String,
    },
    /// It is used.
    #[error("{device} is in use by {by}: end that first (group {group}{others})")]
    InUse {
        /// The device.
        device: Address,
        /// Who uses it.
        by: String,
        /// Its group.
        group: u32,
        /// The group's other members, `; with …`, or nothing.
        others: String,
    },
    /// Its group holds devices of other cards.
    #[error(
        "{device} shares IOMMU group {group} with {others}, which would leave this host with it: name them too, or put the card into another slot, one whose port isolates it (ACS)"
    )]
    Shared {
        /// The device.
        device: Address,
        /// The group.
        group: u32,
        /// What else is in it.
        others: String,
    },
    /// Somebody has it.
    #[error("{device} is owned by {owner}: {remedy} (group {group}{others})")]
    Owned {
        /// The device.
        device: Address,
        /// Who.
        owner: String,
        /// How to end that.
        remedy: String,
        /// Its group.
        group: u32,
        /// The group's other members, `; with …`, or nothing.
        others: String,
    },
    /// It has virtual functions.
    #[error(
        "{device} has {active} virtual functions, which would vanish with it: `pontoon sriov set {device} 0`, or pass one of them (group {group}{others})"
    )]
    HasFunctions {
        /// The physical function.
        device: Address,
        /// How many.
        active: u32,
        /// Its group.
        group: u32,
        /// The group's other members, `; with …`, or nothing.
        others: String,
    },
    /// The kernel has no VFIO.
    #[error(
        "this kernel ({release}) has no vfio-pci, neither loaded nor as a module in /lib/modules/{release}: install the kernel's modules, or a kernel with CONFIG_VFIO_PCI"
    )]
    NoVfio {
        /// The kernel.
        release: String,
    },
    /// It can have no virtual functions.
    #[error("{device} has no SR-IOV: it can have no virtual functions{hint}")]
    NoFunctions {
        /// The device.
        device: Address,
        /// More about it, or nothing.
        hint: String,
    },
    /// Too many are asked for.
    #[error("{device} can have {total} virtual functions, not {asked}")]
    TooManyFunctions {
        /// The device.
        device: Address,
        /// How many are asked for.
        asked: u32,
        /// How many it can have.
        total: u32,
    },
    /// Nobody could make them.
    #[error(
        "{device} has no driver that could make virtual functions ({driver}): bind its own first, `echo {device} > /sys/bus/pci/drivers_probe`"
    )]
    NoDriver {
        /// The device.
        device: Address,
        /// What it has.
        driver: String,
    },
    /// There is no such mediated type.
    #[error("{device} offers no mediated type '{kind}': {offered}")]
    NoType {
        /// The device.
        device: Address,
        /// What is asked for.
        kind: String,
        /// What there is.
        offered: String,
    },
    /// All of a type are taken.
    #[error("{device} has no '{kind}' left: remove one (`pontoon vfio status`), or take another type")]
    NoneLeft {
        /// The device.
        device: Address,
        /// The type.
        kind: String,
    },
    /// A journal cannot be read.
    #[error("{0}")]
    Journal(String),
    /// It has virtual functions that we did not make.
    #[error(
        "{device} has {active} virtual functions that Pontoon did not make, and that would vanish: if nobody needs them, `echo 0 > /sys/bus/pci/devices/{device}/sriov_numvfs` first"
    )]
    ForeignFunctions {
        /// The physical function.
        device: Address,
        /// How many.
        active: u32,
    },
    /// The name of a mediated device is taken.
    #[error("there is a mediated device {0} already: choose another name with --uuid, or none")]
    NameTaken(crate::Uuid),
    /// The same device is named twice.
    #[error("{0} is named twice: name it once")]
    Twice(Address),
    /// There is no such mediated device.
    #[error("{0}: there is no such mediated device; `pontoon mdev create BDF TYPE` makes one")]
    NoSlice(crate::Uuid),
    /// The same mediated device is named twice.
    #[error("{0} is named twice: name it once")]
    SliceTwice(crate::Uuid),
    /// A mediated device's node is somebody else's.
    #[error(
        "you may not open {node}, the mediated device {uuid}: make it as the user who runs the machine (`pontoon mdev create`, without sudo), or run the machine as root"
    )]
    SliceForeign {
        /// The mediated device.
        uuid: crate::Uuid,
        /// Its group's node.
        node: String,
    },
    /// A mediated device is used.
    #[error("the mediated device {uuid} is in use by {by}: end that first, or make another one")]
    SliceInUse {
        /// The mediated device.
        uuid: crate::Uuid,
        /// Who uses it.
        by: String,
    },
}
