//! What lists of models show, in every dialect.

use std::time::SystemTime;

use serde_json::{Map, Value};

/// What a model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Write text.
    Completion,
    /// Turn text into vectors.
    Embedding,
    /// Call tools.
    Tools,
    /// Reason before it answers.
    Thinking,
    /// See images.
    Vision,
    /// Fill a gap between two texts.
    Insert,
    /// Score texts against a query.
    Rerank,
}

impl Capability {
    /// Ollama's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::Embedding => "embedding",
            Self::Tools => "tools",
            Self::Thinking => "thinking",
            Self::Vision => "vision",
            Self::Insert => "insert",
            Self::Rerank => "rerank",
        }
    }
}

/// A model of the store.
#[derive(Debug, Clone, Default)]
pub struct ModelCard {
    /// The name that clients use.
    pub name: String,
    /// `sha256:…`
    pub digest: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Bytes on disk.
    pub size: u64,
    /// `gguf`, `safetensors`, …
    pub format: String,
    /// The architecture, as in `llama`.
    pub family: String,
    /// As in `7.2B`.
    pub parameters: String,
    /// As in `Q4_K_M`.
    pub quantization: String,
    /// Tokens the model was trained for.
    pub context_length: Option<u64>,
    /// Numbers per vector.
    pub embedding_length: Option<u64>,
    /// What it can do.
    pub capabilities: Vec<Capability>,
}

/// A loaded model.
#[derive(Debug, Clone)]
pub struct Running {
    /// The model.
    pub card: ModelCard,
    /// Bytes of memory in use, wherever they are.
    pub memory: u64,
    /// Bytes of those that are on a GPU.
    pub device_memory: u64,
    /// When it will be unloaded unless somebody asks again; `None` for never.
    pub expires: Option<SystemTime>,
    /// Tokens of context it was loaded with.
    pub context_size: u32,
}

/// Everything about one model.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// The model.
    pub card: ModelCard,
    /// Texts of its licences.
    pub license: String,
    /// Its chat template.
    pub template: String,
    /// Its system prompt.
    pub system: String,
    /// Its default parameters.
    pub parameters: Vec<(String, String)>,
    /// Metadata of its file, as in `general.architecture`.
    pub info: Map<String, Value>,
}
