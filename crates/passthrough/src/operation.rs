//! What can be done to a device: a fixed set of writes to sysfs, each with one meaning.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Address;

/// The driver that gives devices to virtual machines.
pub const VFIO: &str = "vfio-pci";

/// One step. Nothing else is ever written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operation {
    /// Load the VFIO driver.
    LoadVfio,
    /// Say which driver alone may have a device; nothing lets any have it.
    Override {
        /// The device.
        device: Address,
        /// The driver.
        driver: Option<String>,
    },
    /// Take a device from its driver.
    Unbind {
        /// The device.
        device: Address,
        /// Its driver.
        driver: String,
    },
    /// Let the kernel find a driver for a device.
    Probe {
        /// The device.
        device: Address,
    },
    /// Give a device to a driver.
    Bind {
        /// The device.
        device: Address,
        /// The driver.
        driver: String,
    },
    /// Set whether a device may sleep: `on` or `auto`.
    Power {
        /// The device.
        device: Address,
        /// The word.
        control: String,
    },
    /// Put a device into the state that it has after power-on.
    Reset {
        /// The device.
        device: Address,
    },
    /// Set whether new virtual functions look for drivers.
    Autoprobe {
        /// The physical function.
        device: Address,
        /// Whether they do.
        on: bool,
    },
    /// Set how many virtual functions there are.
    VirtualFunctions {
        /// The physical function.
        device: Address,
        /// How many.
        count: u32,
    },
    /// Make a mediated device.
    CreateMediated {
        /// The device that it is a slice of.
        device: Address,
        /// Its type, such as `nvidia-105`.
        kind: String,
        /// Its name.
        uuid: Uuid,
    },
    /// Remove a mediated device.
    RemoveMediated {
        /// Its name.
        uuid: Uuid,
    },
}

/// The name of a mediated device, in its usual form: 8-4-4-4-12 lower-case hexadecimal digits (RFC 9562).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid(String);

impl Uuid {
    /// A new one, of the kernel's random numbers.
    ///
    /// # Errors
    /// What the system said.
    pub fn random() -> std::io::Result<Self> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        text.trim().to_owned().try_into().map_err(std::io::Error::other)
    }
}

impl TryFrom<String> for Uuid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        let parts: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let digits = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match lengths == [8, 4, 4, 4, 12] && digits {
            true => Ok(Self(text)),
            false => {
                Err(format!("'{text}' is no UUID: it must be like 123e4567-e89b-12d3-a456-426614174000"))
            }
        }
    }
}

impl std::str::FromStr for Uuid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.to_owned().try_into()
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> Self {
        uuid.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text can be the name of a driver or of a type, and nothing else: it becomes a part of a path.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

impl Operation {
    /// Whether its words are what they should be: an order from another process is not believed.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Override { driver, .. } => driver.as_deref().is_none_or(is_name),
            Self::Unbind { driver, .. } | Self::Bind { driver, .. } => is_name(driver),
            Self::Power { control, .. } => ["on", "auto"].contains(&control.as_str()),
            Self::CreateMediated { kind, .. } => is_name(kind),
            _ => true,
        }
    }

    /// The file that it writes, without a slash in front; nothing for loading a driver.
    pub fn file(&self) -> Option<PathBuf> {
        let of_device = |device: &Address, file: &str| format!("sys/bus/pci/devices/{device}/{file}");
        let path = match self {
            Self::LoadVfio => return None,
            Self::Override { device, .. } => of_device(device, "driver_override"),
            Self::Unbind { driver, .. } => format!("sys/bus/pci/drivers/{driver}/unbind"),
            Self::Probe { .. } => "sys/bus/pci/drivers_probe".into(),
            Self::Bind { driver, .. } => format!("sys/bus/pci/drivers/{driver}/bind"),
            Self::Power { device, .. } => of_device(device, "power/control"),
            Self::Reset { device } => of_device(device, "reset"),
            Self::Autoprobe { device, .. } => of_device(device, "sriov_drivers_autoprobe"),
            Self::VirtualFunctions { device, .. } => of_device(device, "sriov_numvfs"),
            Self::CreateMediated { device, kind, .. } => {
                of_device(device, &format!("mdev_supported_types/{kind}/create"))
            }
            Self::RemoveMediated { uuid } => format!("sys/bus/mdev/devices/{uuid}/remove"),
        };
        Some(path.into())
    }

    /// What it writes there.
    pub fn value(&self) -> String {
        match self {
            Self::LoadVfio => String::new(),
            // An empty line is how the kernel wants to hear "none".
            Self::Override { driver, .. } => driver.clone().unwrap_or_else(|| "\n".into()),
            Self::Unbind { device, .. } | Self::Probe { device } | Self::Bind { device, .. } => {
                device.to_string()
            }
            Self::Power { control, .. } => control.clone(),
            Self::Reset { .. } | Self::RemoveMediated { .. } => "1".into(),
            Self::Autoprobe { on, .. } => u8::from(*on).to_string(),
            Self::VirtualFunctions { count, .. } => count.to_string(),
            Self::CreateMediated { uuid, .. } => uuid.to_string(),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file() {
            None => write!(f, "modprobe {VFIO}"),
            Some(file) => write!(f, "write '{}' to /{}", self.value().replace('\n', "\\n"), file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_order_leaves_its_place() {
        let device = "01:00.0".parse().unwrap();
        for driver in ["../../../etc", "a/b", "", ".", "x\ny", &"a".repeat(65)] {
            let driver = driver.to_owned();
            assert!(!Operation::Bind { device, driver: driver.clone() }.is_sound(), "{driver}");
            assert!(!Operation::Override { device, driver: Some(driver) }.is_sound());
        }
        assert!(!Operation::Power { device, control: "off".into() }.is_sound());
        assert!("123e4567-e89b-12d3-a456-42661417400/".parse::<Uuid>().is_err());
        assert!(Uuid::random().is_ok());
        let text = r#"{"operation":"probe","device":"../x"}"#;
        assert!(serde_json::from_str::<Operation>(text).is_err());
    }

    #[test]
    fn steps_say_what_they_write() {
        let device = "01:00.0".parse().unwrap();
        let none = Operation::Override { device, driver: None };
        assert_eq!(none.to_string(), "write '\\n' to /sys/bus/pci/devices/0000:01:00.0/driver_override");
        let unbind = Operation::Unbind { device, driver: "nouveau".into() };
        assert_eq!(unbind.to_string(), "write '0000:01:00.0' to /sys/bus/pci/drivers/nouveau/unbind");
    }
}
