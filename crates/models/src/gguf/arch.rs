//! Owns what is known of architectures by name: which encode, which are recurrent, which are no
//! language models. An unknown name is a decoder: new families appear every month.

/// Encoders: they make embeddings, never text.
const ENCODERS: &[&str] = &[
    "bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "eurobert",
    "gemma-embedding",
    "t5encoder",
    "distilbert",
    "roberta",
    "xlm-roberta",
    "wavtokenizer-dec",
];

/// Projectors for images and sound, loaded beside a model.
const PROJECTORS: &[&str] = &["clip", "mmproj"];

/// Families whose layers keep a state instead of, or beside, attention.
const RECURRENT: &[&str] = &[
    "mamba",
    "mamba2",
    "rwkv6",
    "rwkv6qwen2",
    "rwkv7",
    "arwkv7",
    "jamba",
    "falcon-h1",
    "plamo2",
    "granitehybrid",
    "nemotron_h",
    "nemotron_h_moe",
    "lfm2",
    "lfm2moe",
    "qwen3next",
    "kimi-linear",
];

/// Without any attention: they have no heads.
const HEADLESS: &[&str] = &["mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "wavtokenizer-dec"];

pub(super) fn is_encoder(name: &str) -> bool {
    ENCODERS.contains(&name)
}

pub(super) fn is_projector(name: &str) -> bool {
    PROJECTORS.contains(&name)
}

pub(super) fn is_recurrent(name: &str) -> bool {
    RECURRENT.contains(&name)
}

pub(super) fn has_no_heads(name: &str) -> bool {
    HEADLESS.contains(&name)
}

/// The rows of `token_embd` are as wide as the model, except where it embeds sound.
pub(super) fn embeds_tokens(name: &str) -> bool {
    name != "wavtokenizer-dec"
}
