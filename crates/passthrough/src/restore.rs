//! What puts a device back, decided from its journal and what is there now.

use std::fmt;
use std::path::Path;

use crate::operation::VFIO;
use crate::{Address, Device, Inventory, Journal, Operation, Saved, Taken, Uuid};

/// What is not put back: left alone, since it is not as we left it, or not yet, since somebody uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// The device has gone.
    Gone(Address),
    /// Another device is in its place.
    Replaced(Address),
    /// Somebody else has given it to another driver, or says that another one may have it.
    Changed {
        /// The device.
        device: Address,
        /// What was found.
        found: String,
        /// What was to be found.
        wanted: String,
    },
}

/// Who uses a device that is to be put back; its journal stays until nobody does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// A device is used.
    #[error("{device} is not put back: it is in use by {by}; end that, then `pontoon vfio restore {device}`")]
    Device {
        /// The device.
        device: Address,
        /// By whom.
        by: String,
    },
    /// A mediated device is used.
    #[error(
        "the mediated device {uuid} is not removed: it is in use by {by}; end that, then `pontoon mdev rm {uuid}`"
    )]
    Slice {
        /// The mediated device.
        uuid: Uuid,
        /// By whom.
        by: String,
    },
}

/// Who uses what a journal tells of, as far as putting it back would disturb them.
pub fn busy(taken: &Taken, inventory: &Inventory, root: &Path, others: &[Journal]) -> Option<Busy> {
    match taken {
        Taken::Group { devices, .. } => devices.iter().find_map(|saved| {
            let device = inventory.at(saved.address)?;
            let used = device.stuck || device.on_vfio() && !device.uses.is_empty();
            used.then(|| Busy::Device { device: device.address, by: device.uses.join(", ") })
        }),
        Taken::VirtualFunctions { device, .. } => {
            let functions = inventory.devices.iter().filter(|other| other.physical == Some(*device));
            functions.into_iter().find_map(|function| {
                let owner = others.iter().find(|journal| journal.taken.devices().contains(&function.address));
                let by = match (function.uses.is_empty(), owner) {
                    (false, _) => function.uses.join(", "),
                    (true, Some(journal)) => journal.owner.to_string(),
                    (true, None) => return None,
                };
                Some(Busy::Device { device: function.address, by })
            })
        }
        Taken::Mediated { uuid, .. } => {
            let by = crate::uses::of_mediated(root, uuid);
            (!by.is_empty()).then(|| Busy::Slice { uuid: uuid.clone(), by: by.join(", ") })
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(device) => write!(f, "{device} has gone: there is nothing to put back"),
            Self::Replaced(device) => write!(f, "{device} is another device now: left alone"),
            Self::Changed { device, found, wanted } => {
                write!(f, "{device} was changed by somebody else ({found}, not {wanted}): left alone")
            }
        }
    }
}

/// The steps that free a device of VFIO and of what was said about its driver. `used` devices are reset.
///
/// # Errors
/// [`Left`], where it is not ours any more.
pub fn release(saved: &Saved, now: Option<&Device>, used: bool) -> Result<Vec<Operation>, Left> {
    let address = saved.address;
    let Some(now) = now else { return Err(Left::Gone(address)) };
    if (now.vendor, now.device) != (saved.vendor, saved.device) {
        return Err(Left::Replaced(address));
    }
    let ours = |driver: &Option<String>, before: &Option<String>| {
        driver.as_deref() == Some(VFIO) || driver == before
    };
    let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".into());
    if now.driver.is_some() && !ours(&now.driver, &saved.driver) {
        let wanted = format!("{VFIO} or {}", or_none(&saved.driver));
        return Err(Left::Changed {
            device: address,
            found: format!("its driver is {}", or_none(&now.driver)),
            wanted,
        });
    }
    // The third is what a restore that was cut off has said.
    if !ours(&now.driver_override, &saved.driver_override) && now.driver_override != saved.driver {
        let wanted = format!("{VFIO} or {}", or_none(&saved.driver_override));
        let found = format!("its driver_override is {}", or_none(&now.driver_override));
        return Err(Left::Changed { device: address, found, wanted });
    }
    let mut steps = Vec::new();
    let on_vfio = now.driver.as_deref() == Some(VFIO);
    if used && on_vfio && now.can_reset {
        steps.push(Operation::Reset { device: address });
    }
    // Until it is back no other driver may have it, also not one that its numbers match.
    let only = saved.driver.as_ref().or(saved.driver_override.as_ref());
    if now.driver_override.as_ref() != only {
        steps.push(Operation::Override { device: address, driver: only.cloned() });
    }
    if on_vfio && saved.driver.as_deref() != Some(VFIO) {
        steps.push(Operation::Unbind { device: address, driver: VFIO.into() });
    }
    Ok(steps)
}

/// The steps that are left until a released device is as it was; nothing when it is.
///
/// # Errors
/// [`Left`], where somebody else has given it to a driver meanwhile.
pub fn give_back(saved: &Saved, now: &Device, tries: u32) -> Result<Vec<Operation>, Left> {
    let device = saved.address;
    let mut steps = Vec::new();
    if now.driver != saved.driver {
        match (&now.driver, &saved.driver) {
            (Some(driver), _) if driver == VFIO => {
                steps.push(Operation::Unbind { device, driver: driver.clone() });
            }
            (Some(driver), wanted) => {
                let wanted = wanted.clone().unwrap_or_else(|| "none".into());
                return Err(Left::Changed { device, found: format!("its driver is {driver}"), wanted });
            }
            (None, _) => {}
        }
        if let Some(driver) = &saved.driver {
            if now.driver_override.as_ref() != Some(driver) {
                steps.push(Operation::Override { device, driver: Some(driver.clone()) });
            }
            steps.push(match tries % 2 {
                0 => Operation::Probe { device },
                _ => Operation::Bind { device, driver: driver.clone() },
            });
        }
    } else if now.driver_override != saved.driver_override {
        steps.push(Operation::Override { device, driver: saved.driver_override.clone() });
    } else if now.power != saved.power
        && let Some(control) = &saved.power
    {
        steps.push(Operation::Power { device, control: control.clone() });
    }
    Ok(steps)
}

/// The steps that undo virtual functions or a mediated device.
///
/// # Errors
/// [`Left`], where somebody else has changed them.
pub fn slices(taken: &Taken, inventory: &Inventory, root: &Path) -> Result<Vec<Operation>, Left> {
    let mut steps = Vec::new();
    match taken {
        Taken::Group { .. } => {}
        Taken::VirtualFunctions { device, before, counts, autoprobe } => {
            let Some(now) = inventory.at(*device).and_then(|now| now.sriov) else {
                return Err(Left::Gone(*device));
            };
            if ![0, *before].contains(&now.active) && !counts.contains(&now.active) {
                let found = format!("it has {} virtual functions", now.active);
                let wanted = counts.last().copied().unwrap_or_default().to_string();
                return Err(Left::Changed { device: *device, found, wanted });
            }
            if now.active != *before && now.active > 0 {
                steps.push(Operation::VirtualFunctions { device: *device, count: 0 });
            }
            if let Some(on) = autoprobe.filter(|_| now.autoprobe != *autoprobe) {
                steps.push(Operation::Autoprobe { device: *device, on });
            }
            if now.active != *before && *before > 0 {
                steps.push(Operation::VirtualFunctions { device: *device, count: *before });
            }
        }
        Taken::Mediated { uuid, .. } => {
            if root.join(format!("sys/bus/mdev/devices/{uuid}")).exists() {
                steps.push(Operation::RemoveMediated { uuid: uuid.clone() });
            }
        }
    }
    Ok(steps)
}
