//! PCI addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Where a function is: `0000:01:00.0`. Domains may have more than four digits (`10000:02:05.0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Domain.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// A text that is no PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no PCI address: it must be like 0000:01:00.0, or 01:00.0 in domain 0")]
pub struct AddressError(String);

impl Address {
    /// Whether another function is of the same card.
    pub fn same_card(&self, other: &Self) -> bool {
        (self.domain, self.bus, self.device) == (other.domain, other.bus, other.device)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let read = || {
            let (place, function) = text.split_once('.')?;
            let parts: Vec<&str> = place.split(':').collect();
            let (domain, bus, device) = match parts[..] {
                [domain, bus, device] => (domain, bus, device),
                [bus, device] => ("0", bus, device),
                _ => return None,
            };
            let digits = |text: &str, most: usize| {
                let fits =
                    (1..=most).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
                if fits { u32::from_str_radix(text, 16).ok() } else { None }
            };
            let small = |value: u32, most: u32| (value <= most).then_some(value as u8);
            Some(Self {
                domain: digits(domain, 8)?,
                bus: small(digits(bus, 2)?, 0xff)?,
                device: small(digits(device, 2)?, 31)?,
                function: small(digits(function, 1)?, 7)?,
            })
        };
        read().ok_or_else(|| AddressError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(domain: u32, bus: u8, device in 0u8..32, function in 0u8..8) {
            let address = Address { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn people_may_leave_the_domain_out_and_nothing_else() {
        assert_eq!("01:00.0".parse::<Address>().unwrap().to_string(), "0000:01:00.0");
        assert_eq!("10000:02:05.0".parse::<Address>().unwrap().to_string(), "10000:02:05.0");
        for wrong in [
            "",
            "0000:01:00",
            "0000:01:20.0",
            "0000:01:00.8",
            "x:01:00.0",
            "0000:001:00.0",
            "+1:00.0",
            "0:0:0:0.0",
        ] {
            assert!(wrong.parse::<Address>().unwrap_err().to_string().contains(&format!("'{wrong}'")));
        }
    }
}
