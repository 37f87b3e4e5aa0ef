//! Owns the facts of a model that decide how it is run: mode, layers, heads, memory.

use serde::{Deserialize, Serialize};

use super::{Header, List, Metadata, Value, arch, file_type_name};

/// What a model can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Text: completions, and chat if it has a template.
    #[default]
    Chat,
    /// Vectors.
    Embedding,
    /// Scores for pairs of query and text.
    Rerank,
    /// Pictures, or anything no text engine answers.
    Other,
}

/// How token vectors become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    None,
    Mean,
    Cls,
    Last,
    Rank,
}

impl Pooling {
    fn from_id(id: u64) -> Option<Self> {
        [Self::None, Self::Mean, Self::Cls, Self::Last, Self::Rank].get(usize::try_from(id).ok()?).copied()
    }
}

/// What is known of a model before an engine has loaded it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    pub mode: Mode,
    pub architecture: String,
    /// `general.name`.
    pub name: String,
    /// What people call the quantisation: `Q4_K_M`.
    pub quantization: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub weights_bytes: u64,
    /// Bytes of the tensors that belong to layers, which can be placed on a GPU one by one.
    pub layer_bytes: u64,
    pub layers: u32,
    pub heads: u32,
    /// One for each layer; 0 where a layer has no attention cache.
    pub heads_kv: Vec<u32>,
    /// Values per key and per value of a head.
    pub key_length: u32,
    pub value_length: u32,
    pub embedding_length: u32,
    pub vocab: u32,
    /// The longest context the model was trained for, in tokens.
    pub context_length: u32,
    pub experts: u32,
    pub experts_used: u32,
    /// Tokens that windowed layers look back, 0 if none do.
    pub sliding_window: u32,
    pub has_chat_template: bool,
    pub pooling: Option<Pooling>,
    /// Some layers keep a state: a cache cannot be cut back to a prefix.
    pub recurrent: bool,
    /// Bytes of that state for one sequence.
    pub state_bytes: u64,
}

impl Facts {
    pub(super) fn of(header: &Header) -> Self {
        let meta = &header.metadata;
        let name = header.architecture().to_owned();
        let key = |suffix: &str| format!("{name}.{suffix}");
        let number = |suffix: &str| meta.u64(&key(suffix)).map_or(0, clamp);
        let layers = number("block_count");
        let heads_list = per_layer(meta, &key("attention.head_count"), layers, 0);
        let heads = heads_list.iter().copied().max().unwrap_or(0);
        let heads_kv = per_layer(meta, &key("attention.head_count_kv"), layers, heads);
        let embedding_length = number("embedding_length");
        let head_size = embedding_length.checked_div(heads).unwrap_or(0);
        let or_head_size = |value: u32| if value == 0 { head_size } else { value };
        let pooling = meta.u64(&key("pooling_type")).and_then(Pooling::from_id);
        let vocab = meta.get("tokenizer.ggml.tokens").map_or(number("vocab_size"), |value| match value {
            Value::List(list) => clamp(list.len() as u64),
            _ => 0,
        });
        Self {
            mode: mode_of(header, pooling),
            name: meta.str("general.name").unwrap_or_default().to_owned(),
            quantization: quantization_of(header),
            parameters: header.tensors.iter().map(super::Tensor::elements).fold(0, u64::saturating_add),
            weights_bytes: bytes_of(header, |_| true),
            layer_bytes: bytes_of(header, |name| name.starts_with("blk.")),
            layers,
            heads,
            heads_kv,
            key_length: or_head_size(number("attention.key_length")),
            value_length: or_head_size(number("attention.value_length")),
            embedding_length,
            vocab,
            context_length: number("context_length"),
            experts: number("expert_count"),
            experts_used: number("expert_used_count"),
            sliding_window: number("attention.sliding_window"),
            has_chat_template: meta.str("tokenizer.chat_template").is_some_and(|text| !text.is_empty()),
            pooling,
            recurrent: arch::is_recurrent(&name) || meta.get(&key("ssm.state_size")).is_some(),
            state_bytes: state_bytes(meta, &name, layers),
            architecture: name,
        }
    }

    /// Bytes of the attention cache for so many tokens, with the given bits per stored value (16
    /// for f16, 8.5 for q8_0, 4.5 for q4_0). An upper bound: layers with a sliding window need less.
    pub fn kv_bytes(&self, context: u32, key_bits: f64, value_bits: f64) -> u64 {
        let heads: u64 = self.heads_kv.iter().copied().map(u64::from).sum();
        let keys = heads as f64 * f64::from(self.key_length) * key_bits;
        let values = heads as f64 * f64::from(self.value_length) * value_bits;
        ((keys + values) / 8.0 * f64::from(context)) as u64
    }
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn bytes_of(header: &Header, wanted: impl Fn(&str) -> bool) -> u64 {
    header.tensors.iter().filter(|t| wanted(&t.name)).map(|t| t.bytes).fold(0, u64::saturating_add)
}

/// A value that is the same for all layers, or a list of one for each.
fn per_layer(meta: &Metadata, key: &str, layers: u32, default: u32) -> Vec<u32> {
    // The check has its own limit; facts are also read of files that were not checked.
    let layers = layers.min(super::check::MAX_LAYERS) as usize;
    match meta.get(key) {
        Some(Value::List(List::Integers { values, .. })) => {
            values.iter().take(layers).map(|value| u32::try_from(*value).unwrap_or(0)).collect()
        }
        _ => vec![meta.u64(key).map_or(default, clamp); layers],
    }
}

fn mode_of(header: &Header, pooling: Option<Pooling>) -> Mode {
    let name = header.architecture();
    let scores = || header.tensor("cls.weight").is_some() || header.tensor("cls.output.weight").is_some();
    let kind = header.metadata.str("general.type").unwrap_or("model");
    if arch::is_projector(name) || matches!(kind, "adapter" | "mmproj" | "imatrix") {
        return Mode::Other;
    }
    let causal = header.metadata.bool(&format!("{name}.attention.causal")).unwrap_or(true);
    match pooling {
        Some(Pooling::Rank) => Mode::Rerank,
        None | Some(Pooling::None) if scores() => Mode::Rerank,
        Some(Pooling::Mean | Pooling::Cls | Pooling::Last) => Mode::Embedding,
        _ if arch::is_encoder(name) || !causal => Mode::Embedding,
        _ => Mode::Chat,
    }
}

/// What the file says of itself, else the type that holds most bytes.
fn quantization_of(header: &Header) -> String {
    let said = header.metadata.u64("general.file_type").and_then(file_type_name);
    let most = || {
        let of_kind =
            |id: u32| header.tensors.iter().filter(move |t| t.kind.id == id).map(|t| t.bytes).sum::<u64>();
        header.tensors.iter().map(|t| t.kind).max_by_key(|kind| of_kind(kind.id)).map(|kind| kind.name)
    };
    said.or_else(most).unwrap_or_default().to_owned()
}

/// Convolution and scan states are kept in f32.
fn state_bytes(meta: &Metadata, arch: &str, layers: u32) -> u64 {
    let number = |suffix: &str| meta.u64(&format!("{arch}.{suffix}")).unwrap_or(0);
    let inner = number("ssm.inner_size");
    let per_layer = inner.saturating_mul(number("ssm.state_size").saturating_add(number("ssm.conv_kernel")));
    per_layer.saturating_mul(4).saturating_mul(u64::from(layers))
}
