//! Owns the named sets of values.

use serde::{Deserialize, Serialize};

use super::{CacheType, Settings, Switch};

/// A named set of values for a kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Programs: nearly deterministic, a context for whole files, earlier pieces used again.
    Code,
    /// Conversation.
    Chat,
    /// Stories: more of the less likely.
    Creative,
    /// Long documents: few slots, a large context, its cache in eight bits.
    LongContext,
}

impl Preset {
    /// All of them.
    pub const ALL: [Preset; 4] = [Preset::Code, Preset::Chat, Preset::Creative, Preset::LongContext];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Code => "code",
            Preset::Chat => "chat",
            Preset::Creative => "creative",
            Preset::LongContext => "long-context",
        }
    }

    /// Its values.
    pub fn settings(self) -> Settings {
        let none = Settings::default();
        match self {
            Preset::Code => Settings {
                temperature: Some(0.2),
                top_p: Some(0.9),
                top_k: Some(40),
                repeat_penalty: Some(1.0),
                context_size: Some(16_384),
                cache_reuse: Some(256),
                ..none
            },
            Preset::Chat => Settings {
                temperature: Some(0.7),
                top_p: Some(0.95),
                min_p: Some(0.05),
                context_size: Some(8192),
                ..none
            },
            Preset::Creative => Settings {
                temperature: Some(1.1),
                top_p: Some(0.98),
                min_p: Some(0.03),
                presence_penalty: Some(0.3),
                context_size: Some(8192),
                ..none
            },
            Preset::LongContext => Settings {
                context_size: Some(131_072),
                parallel: Some(1),
                cache_type_k: Some(CacheType::Q8_0),
                cache_type_v: Some(CacheType::Q8_0),
                // A quantised V cache needs it.
                flash_attention: Some(Switch::On),
                cache_reuse: Some(256),
                ..none
            },
        }
    }
}

impl std::str::FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Preset::ALL.into_iter().find(|preset| preset.name() == text);
        found.ok_or_else(|| {
            let names = Preset::ALL.map(Preset::name).join(", ");
            format!("`{text}` is no preset; there are {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_holds_and_is_spelled_as_in_json() {
        for preset in Preset::ALL {
            preset.settings().check().unwrap();
            assert_eq!(serde_json::to_string(&preset).unwrap(), format!("\"{}\"", preset.name()));
            assert_eq!(preset.name().parse(), Ok(preset));
        }
    }
}
