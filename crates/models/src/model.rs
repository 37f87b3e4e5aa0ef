//! Owns what a model in the store looks like to the rest: its names, config, files and bundle.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Reference,
    config::{Flavour, ModelConfig},
    manifest::{Descriptor, Manifest},
    media::{Format, Role},
};

/// A model that is whole in the store.
#[derive(Clone, Debug)]
pub struct Model {
    /// Of the manifest: the model's id.
    pub digest: Digest,
    /// Sorted; a model may have none.
    pub names: Vec<Reference>,
    /// When it was packaged, if the artifact says so.
    pub created: Option<SystemTime>,
    pub flavour: Flavour,
    pub config: ModelConfig,
    /// Licences as SPDX expressions, if the artifact names them.
    pub licenses: Vec<String>,
    /// One for each layer, in the manifest's order.
    pub files: Vec<ModelFile>,
    pub manifest: Manifest,
}

impl Model {
    /// Bytes of config and layers.
    pub fn size(&self) -> u64 {
        self.manifest.size()
    }

    /// The name to show: the first, else the id.
    pub fn display_name(&self) -> String {
        self.names.first().map_or_else(|| self.digest.to_string(), Reference::familiar)
    }

    /// The files of one role, in the manifest's order.
    pub fn files_of(&self, role: Role) -> impl Iterator<Item = &ModelFile> {
        self.files.iter().filter(move |file| file.role == role)
    }

    /// True if the artifact carries or names a licence.
    pub fn has_license(&self) -> bool {
        !self.licenses.is_empty() || self.files_of(Role::License).next().is_some()
    }
}

/// One file of a model.
#[derive(Clone, Debug)]
pub struct ModelFile {
    pub role: Role,
    pub format: Format,
    pub descriptor: Descriptor,
    /// The blob in the store.
    pub path: PathBuf,
}

/// Any other artifact in the store, such as an engine pack.
#[derive(Clone, Debug)]
pub struct Artifact {
    pub digest: Digest,
    pub names: Vec<Reference>,
    /// The artifact type, or the config's media type if there is none.
    pub kind: String,
    pub manifest: Manifest,
    /// The config's bytes: JSON by the kind's own rules.
    pub config: Vec<u8>,
    /// Each layer and the blob in the store.
    pub files: Vec<(Descriptor, PathBuf)>,
}

/// A folder in which an engine finds the files of a model under names that it understands.
///
/// The files are hard links to the store's blobs (symbolic links where the file system has no hard
/// links), so a bundle costs no space and survives the model's removal while an engine uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Absolute.
    pub dir: PathBuf,
    pub format: Format,
    /// In the order of the shards: `model-00001-of-00003.gguf`, … To llama-server give the first.
    /// For safetensors also give [`Bundle::dir`], where tokenizer and config lie beside them.
    pub weights: Vec<PathBuf>,
    pub mmproj: Option<PathBuf>,
    /// A Jinja template that overrides the one in the weights.
    pub chat_template: Option<PathBuf>,
    pub adapters: Vec<PathBuf>,
    pub draft: Option<PathBuf>,
    pub licenses: Vec<PathBuf>,
    /// What Ollama's artifact says beside the weights.
    #[serde(default)]
    pub defaults: Defaults,
}

impl Bundle {
    /// The file that an engine is given first.
    pub fn main(&self) -> Option<&Path> {
        self.weights.first().map(PathBuf::as_path)
    }

    /// Every GGUF file with what it is: what the launcher checks before the engine sees it.
    pub fn gguf_files(&self) -> Vec<(Role, &Path)> {
        let weights = self.weights.iter().filter(|_| self.format == Format::Gguf).map(|p| (Role::Weights, p));
        weights
            .chain(self.mmproj.iter().map(|p| (Role::Mmproj, p)))
            .chain(self.adapters.iter().map(|p| (Role::Adapter, p)))
            .chain(self.draft.iter().map(|p| (Role::Draft, p)))
            .map(|(role, path)| (role, path.as_path()))
            .collect()
    }
}

/// Defaults that an Ollama artifact carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// The system prompt.
    pub system: Option<String>,
    /// The Go template. No engine of ours reads it; it is shown by `/api/show`.
    pub template: Option<String>,
    /// `temperature`, `stop`, `num_ctx`, …: a JSON object.
    pub parameters: serde_json::Map<String, serde_json::Value>,
}
