//! Owns which installed version is in use, and which was before, for a way back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Catalog;
use crate::{Error, files};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pins {
    engines: BTreeMap<String, Pin>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    version: Option<String>,
    previous: Option<String>,
}

impl Catalog {
    fn pins(&self) -> Result<Pins, Error> {
        Ok(files::read_json(&self.folder.join("pins.json"))?.unwrap_or_default())
    }

    /// The version of `name` that is pinned.
    pub fn pinned(&self, name: &str) -> Option<String> {
        self.pins().ok()?.engines.get(name)?.version.clone()
    }

    /// Pins an installed version, or with `None` lets the order of [`Catalog::locate`] decide again.
    ///
    /// # Errors
    /// [`Error::NoEngine`] if that version is not installed.
    pub fn pin(&self, name: &str, version: Option<&str>) -> Result<(), Error> {
        if let Some(version) = version
            && self.installed(name, version).is_none()
        {
            let reason = format!("{name} {version} is not installed; `pontoon engine ls` shows what is");
            return Err(Error::NoEngine { reason });
        }
        let mut pins = self.pins()?;
        let pin = pins.engines.entry(name.to_owned()).or_default();
        if pin.version.as_deref() != version {
            pin.previous = std::mem::replace(&mut pin.version, version.map(str::to_owned));
        }
        files::write_json(&self.folder.join("pins.json"), &pins)
    }

    /// Pins the version that was pinned before the present one, and returns it.
    ///
    /// # Errors
    /// [`Error::NoEngine`] if there is no way back.
    pub fn rollback(&self, name: &str) -> Result<String, Error> {
        let previous = self.pins()?.engines.get(name).and_then(|pin| pin.previous.clone());
        let previous = previous.ok_or_else(|| Error::NoEngine {
            reason: format!("no version of {name} was pinned before; pin one with `pontoon engine pin`"),
        })?;
        self.pin(name, Some(&previous))?;
        Ok(previous)
    }
}
