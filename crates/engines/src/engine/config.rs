//! Owns the engines' part of `pontoon.toml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where engines are and how others are started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Path of a `llama-server`. Before everything else.
    pub llama_server: Option<PathBuf>,
    /// Path of the Python interpreter of the environment that has mlx-lm.
    pub mlx_python: Option<PathBuf>,
    /// Path of the Python interpreter of the environment that has vLLM.
    pub vllm_python: Option<PathBuf>,
    /// Package index for `pontoon engine install`. Default: pip's own, else the public one.
    pub index_url: Option<String>,
    /// The user that engines become where the daemon is root; 0 = they stay root, without capabilities. It
    /// must be able to reach the store of models and the engine's program.
    pub uid: u32,
    /// Its group; 0 = the number of the user.
    pub gid: u32,
    /// Other engines, by name.
    pub custom: BTreeMap<String, Custom>,
}

/// Any other command line that speaks OpenAI-compatible HTTP on a unix socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custom {
    /// Program (an absolute path of an ELF file) and arguments. `{model}` is the first weights file,
    /// `{folder}` its folder, `{socket}` the socket to listen on, `{context}` the context size, `{name}`
    /// the model's name.
    pub command: Vec<String>,
    /// What it reads beyond the system's libraries and the model.
    #[serde(default)]
    pub read: Vec<PathBuf>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Path of its health check; answers 200 when the model is loaded.
    #[serde(default = "default_health")]
    pub health: String,
}

fn default_health() -> String {
    "/health".to_owned()
}
