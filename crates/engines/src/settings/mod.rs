//! Owns the settings of a model: every option an engine may be given, typed and bounded.
//!
//! Nothing else ever becomes an engine's command line: not a client's string, not a model's. A layer of
//! settings says only what it wants to say; [`effective`] merges layers and keeps each value's origin.

mod argv;
mod check;
mod flags;
mod kinds;
mod layers;
mod presets;
mod saved;

pub use argv::{Files, argv};
pub use kinds::{
    CacheType, GpuLayers, KeepAlive, Loading, Pooling, ReasoningFormat, RopeScaling, SplitMode, Switch,
};
pub use layers::{Effective, Origin, Value, effective};
pub use presets::Preset;
pub use saved::Saved;

use serde::{Deserialize, Serialize};

/// One layer of settings. What is `None` is left to the layers below, in the end to the engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[serde(rename_all = "snake_case")]
pub struct Settings {
    /// `llama.cpp`, `llama.cpp@0.3.36`, `mlx-lm`, `vllm` or the name of a custom engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// A named set of values below this layer's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,

    /// Tokens of context of **each** slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_size: Option<u32>,
    /// Requests that are served at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// Tokens of a logical batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Tokens of a physical batch: what one pass through the model computes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ubatch: Option<u32>,
    /// Threads for generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Threads for prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads_batch: Option<u32>,

    /// Layers in GPU memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_layers: Option<GpuLayers>,
    /// Index of the GPU for small tensors, or for everything if the model is not split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main_gpu: Option<u32>,
    /// How a model is split over GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_mode: Option<SplitMode>,
    /// Share of each GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor_split: Option<Vec<f64>>,
    /// Layers whose experts stay in main memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_moe_layers: Option<u32>,

    /// Type of the cached keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_type_k: Option<CacheType>,
    /// Type of the cached values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_type_v: Option<CacheType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flash_attention: Option<Switch>,
    /// Whether the KV cache is in GPU memory where the layers are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_offload: Option<bool>,
    /// One KV buffer for all slots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_unified: Option<bool>,
    /// How weights come into memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loading: Option<Loading>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_freq_base: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_freq_scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yarn_orig_ctx: Option<u32>,

    /// Whether the draft model of the artifact is used. Default: if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<bool>,
    /// Reference of another model in the store that drafts for this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_model: Option<String>,
    /// Tokens drafted at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_max: Option<u32>,
    /// Tokens drafted at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_min: Option<u32>,
    /// Probability below which drafting stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_p_min: Option<f64>,
    /// Scale of each LoRA adapter of the artifact for requests that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_scale: Option<Vec<f64>>,

    /// Whether the engine embeds, beside chat where it can do both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<bool>,
    /// Whether the engine ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reranking: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,

    /// Whether the model's chat template is executed (else only well-known ones are recognised).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jinja: Option<bool>,
    /// What becomes of thoughts in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_format: Option<ReasoningFormat>,
    /// Whether the model is told to think.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Switch>,
    /// Tokens of thought at most; -1 without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_budget: Option<i32>,

    /// Tokens of the smallest piece of an earlier prompt that is used again at another position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_reuse: Option<u32>,
    /// MiB of main memory for prompts that lost their slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_mib: Option<u32>,
    /// Share of a prompt that must match a slot's for that slot to be preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_similarity: Option<f64>,
    /// Whether slots are written to disk at eviction and read at the next load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_slots: Option<bool>,

    /// How long the model stays loaded when nobody asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
    /// A pinned model is never evicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<bool>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// Tokens of an answer at most, for requests that say nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}
