//! Owns the media types of model artifacts and what each kind of layer is for.
//!
//! At run time a file is found by its role, which comes from the media type, never from its path:
//! paths come from whoever packaged the model.

use serde::{Deserialize, Serialize};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's older manifest: what Ollama's registry and some others answer.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The config of an artifact that needs none.
pub const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";

pub const DOCKER_CONFIG_V01: &str = "application/vnd.docker.ai.model.config.v0.1+json";
pub const DOCKER_CONFIG_V02: &str = "application/vnd.docker.ai.model.config.v0.2+json";
pub const GGUF: &str = "application/vnd.docker.ai.gguf.v3";
pub const SAFETENSORS: &str = "application/vnd.docker.ai.safetensors";
pub const DDUF: &str = "application/vnd.docker.ai.dduf";
pub const MMPROJ: &str = "application/vnd.docker.ai.mmproj";
pub const LICENSE: &str = "application/vnd.docker.ai.license";
pub const CHAT_TEMPLATE: &str = "application/vnd.docker.ai.chat.template.jinja";
pub const MODEL_FILE: &str = "application/vnd.docker.ai.model.file";
pub const DIR_TAR: &str = "application/vnd.docker.ai.dir.tar";
pub const VLLM_CONFIG_TAR: &str = "application/vnd.docker.ai.vllm.config.tar";
/// Ours, since Docker has none: a LoRA adapter in GGUF.
pub const ADAPTER: &str = "application/vnd.pontoon.adapter.gguf.v1";
/// Ours: a small model of the same vocabulary that drafts tokens for the large one.
pub const DRAFT: &str = "application/vnd.pontoon.draft.gguf.v1";

pub const MODELPACK_ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
pub const MODELPACK_CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
pub const MODELPACK_WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
/// Written by older releases of Docker's model runner.
pub const MODELPACK_WEIGHT_GGUF: &str = "application/vnd.cncf.model.weight.v1.gguf";
pub const MODELPACK_WEIGHT_SAFETENSORS: &str = "application/vnd.cncf.model.weight.v1.safetensors";
pub const MODELPACK_WEIGHT_CONFIG: &str = "application/vnd.cncf.model.weight.config.v1.raw";
pub const MODELPACK_DOC: &str = "application/vnd.cncf.model.doc.v1.raw";
pub const MODELPACK_PREFIX: &str = "application/vnd.cncf.model.";

/// Ollama's config, which is Docker's image config by media type.
pub const OLLAMA_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const OLLAMA_PREFIX: &str = "application/vnd.ollama.image.";

/// The path of a layer's file inside the model.
pub const FILE_PATH: &str = "org.cncf.model.filepath";
/// Name, mode and size of a layer's file, as JSON.
pub const FILE_METADATA: &str = "org.cncf.model.file.metadata+json";
/// Ours: the [`Role`] of a layer whose media type does not tell it.
pub const FILE_ROLE: &str = "dev.pontoon.model.role";
/// The licences of an artifact, as an SPDX expression.
pub const LICENSES: &str = "org.opencontainers.image.licenses";
/// The name of a manifest in an index.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Docker's and containerd's name for the same.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What a file of a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Weights, or one shard of them.
    Weights,
    /// The projector of a vision or audio model.
    Mmproj,
    /// A LoRA adapter.
    Adapter,
    /// A draft model for speculative decoding.
    Draft,
    /// A Jinja chat template.
    Template,
    /// A licence text.
    License,
    /// Any other file that belongs beside the weights: tokenizer, config.
    File,
    /// A tar of such files.
    Archive,
    /// Documentation: nothing an engine reads.
    Doc,
    /// Ollama's Go template, which no engine of ours reads.
    OllamaTemplate,
    /// Ollama's system prompt.
    System,
    /// Ollama's default parameters, as JSON.
    Params,
    /// Ollama's conversation to begin with.
    Messages,
    /// A layer we know nothing about: kept, pushed and exported, never given to an engine.
    Unknown,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Gguf,
    Safetensors,
    #[serde(alias = "diffusers")]
    Dduf,
    /// None that we know: it can be stored and moved, not run.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Format {
    /// As it is written in a config.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::Safetensors => "safetensors",
            Self::Dduf => "dduf",
            Self::Unknown => "",
        }
    }

    /// Reads a config's word for it, in any case.
    pub fn from_name(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "gguf" => Self::Gguf,
            "safetensors" => Self::Safetensors,
            "dduf" | "diffusers" => Self::Dduf,
            _ => Self::Unknown,
        }
    }
}

/// What a layer of this media type is for, and its format if the type tells it.
///
/// ModelPack's weights are all of one type: their role is refined by looking into the file.
pub fn role_of(media_type: &str) -> (Role, Format) {
    let role = match media_type {
        GGUF | MODELPACK_WEIGHT_GGUF => return (Role::Weights, Format::Gguf),
        SAFETENSORS | MODELPACK_WEIGHT_SAFETENSORS => return (Role::Weights, Format::Safetensors),
        DDUF => return (Role::Weights, Format::Dduf),
        MODELPACK_WEIGHT => Role::Weights,
        MMPROJ => Role::Mmproj,
        ADAPTER => Role::Adapter,
        DRAFT => Role::Draft,
        LICENSE => Role::License,
        CHAT_TEMPLATE => Role::Template,
        MODEL_FILE | MODELPACK_WEIGHT_CONFIG => Role::File,
        DIR_TAR | VLLM_CONFIG_TAR => Role::Archive,
        MODELPACK_DOC => Role::Doc,
        _ => return ollama_role(media_type),
    };
    (role, Format::Unknown)
}

fn ollama_role(media_type: &str) -> (Role, Format) {
    match media_type.strip_prefix(OLLAMA_PREFIX) {
        Some("model") => (Role::Weights, Format::Gguf),
        Some("projector") => (Role::Mmproj, Format::Gguf),
        Some("adapter") => (Role::Adapter, Format::Gguf),
        Some("template") => (Role::OllamaTemplate, Format::Unknown),
        Some("system") => (Role::System, Format::Unknown),
        Some("params") => (Role::Params, Format::Unknown),
        Some("messages") => (Role::Messages, Format::Unknown),
        Some("license") => (Role::License, Format::Unknown),
        _ => (Role::Unknown, Format::Unknown),
    }
}
