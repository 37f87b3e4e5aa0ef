//! Owns engines: what kinds there are, where they are found, how they are installed and packed.
//!
//! Everything here is for the host's operator; nothing is for clients. Functions block.

mod build;
mod catalog;
mod config;
mod fetch;
mod install;
mod locate;
mod pack;
mod pins;
mod probe;
mod python;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use catalog::{Catalog, Installed};
pub use config::{Custom, EngineConfig};
pub use install::{KNOWN, Release, Wanted};
pub use pack::PACK;

use pontoon_models::Format;

/// What kind of program serves a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `llama-server` of llama.cpp, for GGUF.
    LlamaServer,
    /// `vllm serve`, and vllm-metal, for safetensors.
    Vllm,
    /// `mlx_lm.server`, for safetensors.
    MlxLm,
    /// A command line from `pontoon.toml`.
    Custom,
}

impl Kind {
    /// The kind for a format, best first.
    pub fn for_format(format: Format) -> &'static [Kind] {
        match format {
            Format::Gguf => &[Kind::LlamaServer],
            Format::Safetensors if cfg!(target_os = "macos") => &[Kind::MlxLm, Kind::Vllm],
            Format::Safetensors => &[Kind::Vllm, Kind::MlxLm],
            _ => &[],
        }
    }

    /// The engine's usual name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::LlamaServer => "llama.cpp",
            Kind::Vllm => "vllm",
            Kind::MlxLm => "mlx-lm",
            Kind::Custom => "custom",
        }
    }

    /// The kind that a name stands for; any unknown name is that of a custom engine.
    pub fn named(name: &str) -> Kind {
        match name {
            "llama.cpp" | "llama-server" | "llamacpp" => Kind::LlamaServer,
            "vllm" | "vllm-metal" => Kind::Vllm,
            "mlx-lm" | "mlx" | "mlx_lm" => Kind::MlxLm,
            _ => Kind::Custom,
        }
    }
}

/// An engine that was found and can be started.
#[derive(Clone, Debug)]
pub struct Engine {
    /// `llama.cpp`, `mlx-lm`, or the name of a custom engine.
    pub name: String,
    pub version: String,
    pub kind: Kind,
    /// The ELF program to execute.
    pub program: PathBuf,
    /// Arguments before those that settings make; for a custom engine all of them, with placeholders.
    pub prefix: Vec<String>,
    /// What it reads beyond the system's libraries.
    pub read: Vec<PathBuf>,
    pub environment: Vec<(OsString, OsString)>,
    /// Long and short flags that a `llama-server` knows.
    pub flags: BTreeSet<String>,
    /// The path of its health check.
    pub health: String,
    /// Why this one was taken.
    pub found: String,
}

impl Engine {
    /// Name and version, as shown.
    pub fn label(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}
