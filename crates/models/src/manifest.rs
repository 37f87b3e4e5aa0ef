//! Owns the OCI documents we read and write: descriptor, manifest, index, with their limits.
//!
//! Types of our own rather than a library's: they are four structs, they must keep what they do not
//! know (annotations, artifact types), and hostile sizes are refused while reading.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Result, media};

/// The largest manifest that is read, in bytes: registries themselves refuse larger ones.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// The largest config that is read, in bytes.
pub const MAX_CONFIG: u64 = 8 << 20;
/// The most layers that a manifest may have: a large safetensors model has some hundred files.
pub const MAX_LAYERS: usize = 4096;
/// The largest blob that is accepted, in bytes: 4 TiB.
pub const MAX_BLOB: u64 = 4 << 40;

/// Names a blob: what it is, its digest and its exact size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The descriptor of bytes in memory.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// The same with an annotation.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// The path of the layer's file inside the model, if the packager named one.
    pub fn file_path(&self) -> Option<&str> {
        self.annotations.get(media::FILE_PATH).map(String::as_str)
    }
}

/// One artifact: a config and layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default = "default_manifest_type")]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn default_manifest_type() -> String {
    media::MANIFEST.to_owned()
}

impl Manifest {
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: default_manifest_type(),
            artifact_type: None,
            config,
            layers,
            annotations: BTreeMap::new(),
        }
    }

    /// Reads a manifest and holds it to the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::malformed("the manifest", reason);
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(wrong(format!("it has {} bytes, the limit is {MAX_MANIFEST}", bytes.len())));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if manifest.schema_version != 2 {
            return Err(wrong(format!("its schema version is {}, not 2", manifest.schema_version)));
        }
        if manifest.layers.len() > MAX_LAYERS {
            return Err(wrong(format!("it has {} layers, the limit is {MAX_LAYERS}", manifest.layers.len())));
        }
        if manifest.config.size > MAX_CONFIG {
            return Err(wrong(format!(
                "its config has {} bytes, the limit is {MAX_CONFIG}",
                manifest.config.size
            )));
        }
        match manifest.layers.iter().find(|layer| layer.size > MAX_BLOB) {
            Some(layer) => Err(wrong(format!("a layer has {} bytes, the limit is {MAX_BLOB}", layer.size))),
            None => Ok(manifest),
        }
    }

    /// The bytes whose digest names the artifact.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has no keys that JSON cannot have")
    }

    /// Config and layers: every blob but the manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Bytes of config and layers together; a blob that is named twice counts once.
    pub fn size(&self) -> u64 {
        let blobs: BTreeMap<Digest, u64> = self.blobs().map(|blob| (blob.digest, blob.size)).collect();
        blobs.values().fold(0, |sum, size| sum.saturating_add(*size))
    }

    /// What kind of artifact it is: its artifact type, else its config's media type.
    pub fn kind(&self) -> &str {
        self.artifact_type.as_deref().unwrap_or(&self.config.media_type)
    }

    /// True if it is a model in one of the formats that we read.
    pub fn is_model(&self) -> bool {
        matches!(
            self.config.media_type.as_str(),
            media::DOCKER_CONFIG_V01 | media::DOCKER_CONFIG_V02 | media::MODELPACK_CONFIG
        ) || self.artifact_type.as_deref() == Some(media::MODELPACK_ARTIFACT)
            || self.is_ollama()
    }

    /// True for Ollama's artifacts, whose config says no more than "image".
    pub fn is_ollama(&self) -> bool {
        self.layers.iter().any(|layer| layer.media_type.starts_with(media::OLLAMA_PREFIX))
    }
}

/// The list of artifacts in a layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

impl Default for Index {
    fn default() -> Self {
        Self { schema_version: 2, media_type: Some(media::INDEX.to_owned()), manifests: Vec::new() }
    }
}
