//! Owns the merging of layers, in which every value keeps where it came from.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::Error;

/// Where a value came from, least binding first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// What Pontoon does unless somebody says otherwise.
    Default,
    /// The model's own artifact.
    Artifact,
    /// A named preset.
    Preset,
    /// The host's configuration: `pontoon.toml`, then `pontoon model configure`.
    Host,
    /// The request.
    Request,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Default => "default",
            Origin::Artifact => "artifact",
            Origin::Preset => "preset",
            Origin::Host => "host",
            Origin::Request => "request",
        })
    }
}

/// One setting in force and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    pub value: serde_json::Value,
    pub origin: Origin,
}

/// All layers merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effective {
    pub settings: Settings,
    /// By the setting's name; a setting that nobody made is missing.
    pub values: BTreeMap<String, Value>,
}

/// Merges `layers`, in which a later one of the same or a more binding origin wins. A preset named by
/// any layer comes between artifact and host, so that what the host says in so many words holds.
///
/// # Errors
/// [`Error::Setting`] if the result contradicts itself.
pub fn effective(layers: &[(Origin, Settings)]) -> Result<Effective, Error> {
    let mut layers: Vec<(Origin, &Settings)> =
        layers.iter().map(|(origin, layer)| (*origin, layer)).collect();
    layers.sort_by_key(|(origin, _)| *origin);
    let preset = layers.iter().rev().find_map(|(_, layer)| layer.preset);
    let preset = preset.map(|name| name.settings());
    if let Some(preset) = &preset {
        layers.push((Origin::Preset, preset));
        layers.sort_by_key(|(origin, _)| *origin);
    }
    let mut values = BTreeMap::new();
    for (origin, layer) in layers {
        for (name, value) in object(layer) {
            values.insert(name, Value { value, origin });
        }
    }
    let plain = values.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect();
    let settings: Settings = serde_json::from_value(serde_json::Value::Object(plain))
        .map_err(|e| Error::Setting { reason: e.to_string() })?;
    settings.check()?;
    Ok(Effective { settings, values })
}

impl Effective {
    /// Puts values in place that follow from others. One that replaces another keeps its origin.
    #[must_use]
    pub fn adjusted(mut self, derived: &Settings) -> Effective {
        for (name, value) in object(derived) {
            let origin = self.values.get(&name).map_or(Origin::Default, |before| before.origin);
            self.values.insert(name, Value { value, origin });
        }
        self.settings = self.settings.overlaid(derived);
        self
    }
}

impl Settings {
    /// This layer with every value that `other` has in place of its own.
    pub fn overlaid(&self, other: &Settings) -> Settings {
        let mut values = object(self);
        values.extend(object(other));
        // Both came from settings, so their union is one.
        serde_json::from_value(serde_json::Value::Object(values)).unwrap_or_else(|_| other.clone())
    }

    /// This layer without the settings of these names.
    ///
    /// # Errors
    /// [`Error::Setting`] for a name that no setting has.
    pub fn unset(&self, names: &[String]) -> Result<Settings, Error> {
        let mut values = object(self);
        for name in names {
            values.insert(name.clone(), serde_json::Value::Null);
        }
        serde_json::from_value(serde_json::Value::Object(values))
            .map_err(|error| Error::Setting { reason: error.to_string() })
    }

    /// True if this layer says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Settings::default()
    }
}

fn object(settings: &Settings) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(settings) {
        Ok(serde_json::Value::Object(values)) => values,
        // Numbers that JSON lacks (NaN) become null, and nothing else can go wrong.
        _ => serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CacheType, Preset};
    use super::*;

    fn with(context_size: Option<u32>, parallel: Option<u32>) -> Settings {
        Settings { context_size, parallel, ..Settings::default() }
    }

    #[test]
    fn the_more_binding_layer_wins_value_by_value() {
        let layers = [
            (Origin::Request, with(Some(512), None)),
            (Origin::Default, with(Some(4096), Some(4))),
            (Origin::Host, with(Some(2048), Some(2))),
        ];
        let merged = effective(&layers).unwrap();
        assert_eq!((merged.settings.context_size, merged.settings.parallel), (Some(512), Some(2)));
        assert_eq!(merged.values["context_size"].origin, Origin::Request);
        assert_eq!(merged.values["parallel"].origin, Origin::Host);
        assert_eq!(merged.values.len(), 2);
    }

    #[test]
    fn a_preset_beats_the_artifact_and_yields_to_the_host() {
        let host = Settings { preset: Some(Preset::Code), temperature: Some(0.9), ..Settings::default() };
        let artifact = Settings { temperature: Some(0.5), top_p: Some(0.5), ..Settings::default() };
        let merged = effective(&[(Origin::Artifact, artifact), (Origin::Host, host)]).unwrap();
        assert_eq!(merged.settings.temperature, Some(0.9));
        assert_eq!(merged.values["top_p"].origin, Origin::Preset);
    }

    #[test]
    fn what_is_taken_back_is_gone_and_a_name_that_is_none_is_an_error() {
        let layer = with(Some(512), Some(2));
        assert_eq!(layer.unset(&["parallel".into()]).unwrap(), with(Some(512), None));
        let error = layer.unset(&["paralell".into()]).unwrap_err().to_string();
        assert!(error.contains("paralell") && error.contains("parallel"), "{error}");
    }

    #[test]
    fn later_layers_of_one_origin_add_up() {
        let first = with(Some(512), Some(2));
        let second = Settings { cache_type_k: Some(CacheType::Q8_0), ..with(Some(1024), None) };
        assert_eq!(first.overlaid(&second).parallel, Some(2));
        let merged = effective(&[(Origin::Host, first), (Origin::Host, second)]).unwrap();
        assert_eq!(merged.settings.context_size, Some(1024));
        assert_eq!(merged.settings.parallel, Some(2));
        assert_eq!(merged.settings.cache_type_k, Some(CacheType::Q8_0));
    }
}
