//! What else decides whether a device can be taken: the kernel's VFIO, the processor, what is taken already.

use std::fs;
use std::path::Path;

use crate::operation::VFIO;
use crate::{Address, Journal, Journals, Owner, Taken};

/// Whether there is the VFIO driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// It is loaded.
    Loaded,
    /// It can be.
    Loadable,
    /// It is not there.
    Missing,
}

/// What holds for the whole host.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// The VFIO driver.
    pub vfio: Driver,
    /// The kernel's release.
    pub release: String,
    /// The kernel's parameter that switches the IOMMU on.
    pub parameter: String,
    /// What is taken, for those who live; what dead ones have is put back before anything is taken.
    pub journals: Vec<Journal>,
    /// Journals that cannot be read, and why.
    pub unreadable: Vec<String>,
}

impl Conditions {
    /// Reads them below a root.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let release = text("proc/sys/kernel/osrelease").trim().to_owned();
        let listed =
            |file: &str| text(&format!("lib/modules/{release}/{file}")).contains(&format!("/{VFIO}.ko"));
        let vfio = match root.join("sys/bus/pci/drivers").join(VFIO).exists() {
            true => Driver::Loaded,
            false if listed("modules.dep") || listed("modules.builtin") => Driver::Loadable,
            false => Driver::Missing,
        };
        let (mut journals, errors) = Journals::below(root).list();
        journals.retain(|journal| journal.holds(root));
        let unreadable = errors.iter().map(ToString::to_string).collect();
        Self { vfio, release, parameter: parameter(root), journals, unreadable }
    }

    /// Who has a device, where somebody has.
    pub fn owner(&self, device: Address) -> Option<&Owner> {
        self.whole_owner(device).map(|journal| &journal.owner)
    }

    /// What tells that somebody has a device itself, not only functions or slices of it.
    pub(crate) fn whole_owner(&self, device: Address) -> Option<&Journal> {
        let whole = |journal: &&Journal| matches!(journal.taken, Taken::Group { .. });
        self.journals.iter().filter(whole).find(|journal| journal.taken.devices().contains(&device))
    }
}

/// The kernel's parameter that switches the IOMMU on, by the processor's maker.
pub(crate) fn parameter(root: &Path) -> String {
    let processor = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let maker = processor.lines().find(|line| line.starts_with("vendor_id")).unwrap_or_default();
    match (maker.contains("GenuineIntel"), maker.contains("AMD") || maker.contains("Hygon")) {
        (true, _) => "intel_iommu=on",
        (_, true) => "amd_iommu=on",
        _ => "intel_iommu=on or amd_iommu=on",
    }
    .to_owned()
}
