//! Owns the model's config: one type for what Docker, the CNCF's ModelPack and Ollama each write
//! in their own way.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Error, Result, manifest::Manifest, media, media::Format};

/// Which artifact format a model is in, or shall be written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// Docker's v0.1: the media type of a layer says what it is.
    #[default]
    DockerV01,
    /// Docker's v0.2: a layer per file, each with its path.
    DockerV02,
    /// The CNCF's ModelPack.
    Modelpack,
    /// Ollama's: read, never written.
    Ollama,
}

impl Flavour {
    /// The flavour of a manifest, if it is a model.
    pub fn of(manifest: &Manifest) -> Option<Self> {
        match manifest.config.media_type.as_str() {
            media::DOCKER_CONFIG_V01 => Some(Self::DockerV01),
            media::DOCKER_CONFIG_V02 => Some(Self::DockerV02),
            media::MODELPACK_CONFIG => Some(Self::Modelpack),
            _ if manifest.artifact_type.as_deref() == Some(media::MODELPACK_ARTIFACT) => {
                Some(Self::Modelpack)
            }
            _ if manifest.is_ollama() => Some(Self::Ollama),
            _ => None,
        }
    }

    /// The media type of the config.
    pub fn config_type(self) -> &'static str {
        match self {
            Self::DockerV01 => media::DOCKER_CONFIG_V01,
            Self::DockerV02 => media::DOCKER_CONFIG_V02,
            Self::Modelpack => media::MODELPACK_CONFIG,
            Self::Ollama => media::OLLAMA_CONFIG,
        }
    }
}

/// What the artifact says of the model. Texts are as its packager wrote them and may be empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    pub format: Format,
    /// `Q4_K_M`, `F16`, `MOSTLY_Q8_0`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub quantization: String,
    /// Number of parameters: `361.82M`, `7B`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parameters: String,
    /// `llama`, `bert`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// Size of the weights for people: `256.35MiB`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub size: String,
    /// The metadata of the GGUF file, long arrays left out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gguf: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub safetensors: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub diffusers: BTreeMap<String, String>,
    /// The context to load the model with, in tokens, if the packager chose one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_size: Option<u32>,
}

/// What a config file holds beside the [`ModelConfig`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigFile {
    pub config: ModelConfig,
    pub created: Option<SystemTime>,
    /// Licences as SPDX expressions; only ModelPack has them here.
    pub licenses: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct DockerFile {
    config: ModelConfig,
    descriptor: DockerDescriptor,
    rootfs: RootFs,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct DockerDescriptor {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct RootFs {
    r#type: String,
    diff_ids: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PackFile {
    descriptor: PackDescriptor,
    modelfs: PackFs,
    config: PackConfig,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PackDescriptor {
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    family: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PackFs {
    r#type: String,
    diff_ids: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PackConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    format: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    param_size: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    quantization: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_size: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OllamaFile {
    model_format: String,
    model_family: String,
    model_type: String,
    file_type: String,
}

impl ConfigFile {
    /// Reads a config in the given flavour.
    pub fn parse(flavour: Flavour, bytes: &[u8]) -> Result<Self> {
        let wrong = |error: serde_json::Error| Error::malformed("the model's config", error.to_string());
        // A config is what its content says: ModelPack configs are found under Docker's media type
        // and the other way round, written by releases that converted half.
        let value: Value = serde_json::from_slice(bytes).map_err(wrong)?;
        match flavour {
            Flavour::Ollama => serde_json::from_value(value).map(Self::from_ollama).map_err(wrong),
            _ if looks_like_modelpack(&value) => {
                serde_json::from_value(value).map(Self::from_pack).map_err(wrong)
            }
            _ => serde_json::from_value(value).map(Self::from_docker).map_err(wrong),
        }
    }

    fn from_docker(file: DockerFile) -> Self {
        Self { config: file.config, created: parse_time(file.descriptor.created), licenses: Vec::new() }
    }

    fn from_pack(file: PackFile) -> Self {
        let config = ModelConfig {
            format: Format::from_name(&file.config.format),
            quantization: file.config.quantization,
            parameters: file.config.param_size,
            architecture: file.config.architecture,
            context_size: file.config.context_size,
            ..ModelConfig::default()
        };
        Self { config, created: parse_time(file.descriptor.created_at), licenses: file.descriptor.licenses }
    }

    fn from_ollama(file: OllamaFile) -> Self {
        let format = if file.model_format.is_empty() { "gguf" } else { &file.model_format };
        let config = ModelConfig {
            format: Format::from_name(format),
            quantization: file.file_type,
            parameters: file.model_type,
            architecture: file.model_family,
            ..ModelConfig::default()
        };
        Self { config, created: None, licenses: Vec::new() }
    }

    /// The config's bytes in a flavour. Layers are uncompressed, so their digests are the diff ids.
    pub fn to_bytes(&self, flavour: Flavour, layers: &[Digest]) -> Vec<u8> {
        let created = self.created.map(|time| humantime::format_rfc3339_seconds(time).to_string());
        let diff_ids: Vec<String> = layers.iter().map(Digest::to_string).collect();
        let bytes = match flavour {
            Flavour::Modelpack => serde_json::to_vec(&self.pack(created, diff_ids)),
            _ => serde_json::to_vec(&DockerFile {
                config: self.config.clone(),
                descriptor: DockerDescriptor { created },
                rootfs: RootFs { r#type: "rootfs".to_owned(), diff_ids },
            }),
        };
        bytes.expect("a config has no keys that JSON cannot have")
    }

    fn pack(&self, created_at: Option<String>, diff_ids: Vec<String>) -> PackFile {
        let config = &self.config;
        PackFile {
            descriptor: PackDescriptor {
                created_at,
                family: config.architecture.clone(),
                name: config.gguf.get("general.name").cloned().unwrap_or_default(),
                licenses: self.licenses.clone(),
            },
            modelfs: PackFs { r#type: "layers".to_owned(), diff_ids },
            config: PackConfig {
                architecture: config.architecture.clone(),
                format: config.format.name().to_owned(),
                param_size: config.parameters.clone(),
                quantization: config.quantization.clone(),
                context_size: config.context_size,
            },
        }
    }
}

/// Fields that only ModelPack's configs have.
fn looks_like_modelpack(value: &Value) -> bool {
    value.get("modelfs").is_some()
        || value.pointer("/config/paramSize").is_some()
        || value.pointer("/descriptor/createdAt").is_some()
}

/// Times that make no sense are left out: a date is no reason to refuse a model.
fn parse_time(text: Option<String>) -> Option<SystemTime> {
    let text = text?;
    humantime::parse_rfc3339(&text).or_else(|_| parse_with_offset(&text)).ok()
}

/// `…+02:00`, which `humantime` does not read.
fn parse_with_offset(text: &str) -> std::result::Result<SystemTime, humantime::TimestampError> {
    let unreadable = humantime::TimestampError::InvalidFormat;
    let split = text.len().checked_sub(6).filter(|_| text.is_ascii()).ok_or(unreadable)?;
    let (local, offset) = text.split_at(split);
    let (hours, minutes) = offset[1..].split_once(':').ok_or(unreadable)?;
    let (hours, minutes): (u64, u64) =
        (hours.parse().map_err(|_| unreadable)?, minutes.parse().map_err(|_| unreadable)?);
    let offset_by = Duration::from_secs(hours.min(24) * 3600 + minutes.min(60) * 60);
    let local = humantime::parse_rfc3339(&format!("{local}Z"))?;
    match offset.as_bytes()[0] {
        b'+' => local.checked_sub(offset_by).ok_or(unreadable),
        b'-' => local.checked_add(offset_by).ok_or(unreadable),
        _ => Err(unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ConfigFile {
        ConfigFile {
            config: ModelConfig {
                format: Format::Gguf,
                quantization: "Q4_K_M".into(),
                parameters: "361.82M".into(),
                architecture: "llama".into(),
                size: "256.35MiB".into(),
                context_size: Some(4096),
                ..ModelConfig::default()
            },
            created: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
            licenses: Vec::new(),
        }
    }

    #[test]
    fn both_flavours_read_what_they_write() {
        let file = sample();
        let layer = Digest::of(b"layer");
        for flavour in [Flavour::DockerV01, Flavour::DockerV02] {
            assert_eq!(ConfigFile::parse(flavour, &file.to_bytes(flavour, &[layer])).unwrap(), file);
        }
        let read =
            ConfigFile::parse(Flavour::Modelpack, &file.to_bytes(Flavour::Modelpack, &[layer])).unwrap();
        assert_eq!((read.config.parameters, read.config.format), ("361.82M".into(), Format::Gguf));
        assert_eq!((read.config.context_size, read.created), (Some(4096), file.created));
    }

    #[test]
    fn docker_json_has_dockers_field_names() {
        let value: Value =
            serde_json::from_slice(&sample().to_bytes(Flavour::DockerV01, &[Digest::of(b"l")])).unwrap();
        assert_eq!(value["config"]["format"], "gguf");
        assert_eq!(value["config"]["context_size"], 4096);
        assert_eq!(value["descriptor"]["created"], "2023-11-14T22:13:20Z");
        assert_eq!(value["rootfs"]["type"], "rootfs");
        assert_eq!(value["rootfs"]["diff_ids"][0], Digest::of(b"l").to_string());
    }

    #[test]
    fn reads_what_others_wrote() {
        let docker = br#"{"config":{"format":"gguf","quantization":"IQ2_XXS/Q4_K_M","parameters":"361.82 M",
            "architecture":"llama","size":"256.35 MiB","gguf":{"general.name":"x"},"x":1},
            "descriptor":{"created":"2025-04-01T12:00:00.123456789+02:00"},"rootfs":{"type":"rootfs","diff_ids":[]}}"#;
        let read = ConfigFile::parse(Flavour::DockerV01, docker).unwrap();
        assert_eq!(read.config.gguf["general.name"], "x");
        let created = humantime::format_rfc3339_seconds(read.created.unwrap()).to_string();
        assert_eq!(created, "2025-04-01T10:00:00Z");

        let ollama =
            br#"{"model_format":"gguf","model_family":"qwen2","model_type":"494.03M","file_type":"Q4_K_M",
            "architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let read = ConfigFile::parse(Flavour::Ollama, ollama).unwrap().config;
        assert_eq!((read.architecture.as_str(), read.format), ("qwen2", Format::Gguf));

        let pack = br#"{"descriptor":{"createdAt":"2025-01-01T00:00:00Z","licenses":["MIT"]},"config":{"format":"GGUF",
            "paramSize":"8b"},"modelfs":{"type":"layers","diffIds":[]}}"#;
        let read = ConfigFile::parse(Flavour::DockerV01, pack).unwrap();
        assert_eq!((read.config.parameters.as_str(), read.licenses), ("8b", vec!["MIT".to_owned()]));
    }

    #[test]
    fn odd_times_are_left_out() {
        for text in ["", "yesterday", "2025-13-45T00:00:00Z", "+02:00", "€€", "2025-01-01T00:00:00+99:99"]
        {
            let _ = parse_time(Some(text.to_owned()));
        }
        assert_eq!(parse_time(Some("never".into())), None);
    }
}
