//! A kernel that does to a tree what the real one would: binds, unbinds, probes. The real one is met by the machine that
//! `cli/tests/passthrough.rs` boots.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use pontoon_passthrough::{Address, Operation, StepError, VFIO};

use super::Tree;

/// The drivers that match devices by their numbers.
pub struct Kernel<'a> {
    pub tree: &'a Tree,
    pub natural: BTreeMap<Address, String>,
}

impl Kernel<'_> {
    fn driver(&self, device: Address) -> Option<String> {
        let link = fs::read_link(self.tree.path(&device.to_string()).join("driver")).ok()?;
        Some(link.file_name()?.to_str()?.to_owned())
    }

    fn only(&self, device: Address) -> Option<String> {
        let text = fs::read_to_string(self.tree.path(&device.to_string()).join("driver_override")).ok()?;
        let text = text.trim().to_owned();
        (text != "(null)" && !text.is_empty()).then_some(text)
    }

    /// Whether a driver may have a device: by what was said, else by its numbers.
    fn matches(&self, device: Address, driver: &str) -> bool {
        match self.only(device) {
            Some(only) => only == driver,
            None => self.natural.get(&device).is_some_and(|natural| natural == driver),
        }
    }

    fn attach(&self, device: Address, driver: &str) -> io::Result<()> {
        if self.driver(device).is_some() || !self.matches(device, driver) {
            return Err(io::Error::from_raw_os_error(19));
        }
        self.tree.link(&device.to_string(), "driver", &format!("../../../bus/pci/drivers/{driver}"));
        Ok(())
    }

    /// Does what a step says.
    pub fn perform(&self, operation: &Operation) -> Result<(), StepError> {
        self.act(operation).map_err(|source| StepError::Refused { step: operation.to_string(), source })
    }

    fn act(&self, operation: &Operation) -> io::Result<()> {
        match operation {
            Operation::Override { device, driver } => {
                let word = driver.as_deref().unwrap_or("(null)");
                self.tree.write(&device.to_string(), "driver_override", word);
            }
            Operation::Unbind { device, driver } => {
                if self.driver(*device).as_ref() != Some(driver) {
                    return Err(io::Error::from_raw_os_error(19));
                }
                fs::remove_file(self.tree.path(&device.to_string()).join("driver"))?;
                // Drivers leave devices awake.
                self.tree.write(&device.to_string(), "power/control", "on");
            }
            Operation::Probe { device } => {
                let driver = self.only(*device).or_else(|| self.natural.get(device).cloned());
                if let Some(driver) = driver.filter(|_| self.driver(*device).is_none()) {
                    self.attach(*device, &driver)?;
                }
            }
            Operation::Bind { device, driver } => self.attach(*device, driver)?,
            Operation::Power { device, control } => {
                self.tree.write(&device.to_string(), "power/control", control);
            }
            Operation::VirtualFunctions { device, count } => {
                self.tree.write(&device.to_string(), "sriov_numvfs", &count.to_string());
            }
            Operation::Autoprobe { device, on } => {
                let word = u8::from(*on).to_string();
                self.tree.write(&device.to_string(), "sriov_drivers_autoprobe", &word);
            }
            Operation::CreateMediated { uuid, .. } => {
                fs::create_dir_all(self.tree.0.join(format!("sys/bus/mdev/devices/{uuid}")))?;
            }
            Operation::RemoveMediated { uuid } => {
                fs::remove_dir_all(self.tree.0.join(format!("sys/bus/mdev/devices/{uuid}")))?;
            }
            Operation::LoadVfio => {
                fs::create_dir_all(self.tree.0.join("sys/bus/pci/drivers").join(VFIO))?;
            }
            Operation::Reset { .. } => {}
        }
        Ok(())
    }
}
