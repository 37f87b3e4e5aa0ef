//! Owns the semantic check: what an engine takes on trust is made sure of here.
//!
//! The rules are those that engines do not check themselves and die of, and a few that they answer
//! with an obscure message. A rule must never refuse a model that works: where families differ,
//! it asks only for what all of them have.

use std::path::{Path, PathBuf};

use super::{CheckError, Facts, Header, List, Metadata, Value, arch, read, tensor_type::F32, tokenizer};

/// The most layers that llama.cpp's fixed tables hold.
pub(super) const MAX_LAYERS: u32 = 512;
const MAX_EXPERTS: u64 = 512;
pub(super) const MAX_EMBEDDING: u64 = 1 << 20;
pub(super) const MAX_FEED_FORWARD: u64 = 1 << 24;
pub(super) const MAX_HEADS: u64 = 1 << 14;
const MAX_HEAD_SIZE: u64 = 1 << 16;
const MAX_CONTEXT: u64 = 1 << 27;
const MAX_VOCAB: u64 = 1 << 22;

/// A file, or all shards of one model, that an engine may see.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Of the first shard, with the tensors of all.
    pub header: Header,
    pub facts: Facts,
}

/// Checks a model in one file.
pub fn check(path: &Path) -> Result<Checked, CheckError> {
    check_shards(std::slice::from_ref(&path.to_owned()))
}

/// Checks a model in shards, given in order.
pub fn check_shards(paths: &[PathBuf]) -> Result<Checked, CheckError> {
    let Some((first, others)) = paths.split_first() else {
        return Err(CheckError::new(Path::new("(none)"), "the model has no weights"));
    };
    let mut header = read(first)?;
    check_split(first, &header, 0, paths.len())?;
    for (index, path) in others.iter().enumerate() {
        let next = read(path)?;
        check_split(path, &next, index + 1, paths.len())?;
        header.tensors.extend(next.tensors);
        header.file_length = header.file_length.saturating_add(next.file_length);
    }
    let refuse = |reason| CheckError::new(first, reason);
    check_tensors(&header).map_err(refuse)?;
    check_model(&header).map_err(refuse)?;
    Ok(Checked { facts: Facts::of(&header), header })
}

fn check_split(path: &Path, header: &Header, index: usize, count: usize) -> Result<(), CheckError> {
    let said_count = header.metadata.u64("split.count").unwrap_or(0).max(1);
    let said_index = header.metadata.u64("split.no").unwrap_or(0);
    if said_count == count as u64 && said_index == index as u64 {
        return Ok(());
    }
    Err(CheckError::new(
        path,
        format!(
            "it says it is shard {} of {said_count}, but was given as shard {} of {count}",
            said_index.saturating_add(1),
            index + 1
        ),
    ))
}

/// What holds for the tensors of every kind of file.
pub(super) fn check_tensors(header: &Header) -> Result<(), String> {
    if header.tensors.is_empty() {
        return Err("it has no tensors".to_owned());
    }
    for tensor in &header.tensors {
        let name = &tensor.name;
        if !tensor.kind.weights && !name.contains("tid2eid") {
            return Err(format!(
                "the tensor `{name}` is stored as {}, which weights cannot be",
                tensor.kind.name
            ));
        }
        let vector = tensor.shape[1..].iter().all(|size| *size == 1);
        if vector && tensor.kind.id != F32 && (name.contains("norm") || name.ends_with(".bias")) {
            return Err(format!(
                "the tensor `{name}` is stored as {}; norms and biases must be F32",
                tensor.kind.name
            ));
        }
        if name.contains('\0') || name.is_empty() {
            return Err("a tensor has an impossible name".to_owned());
        }
    }
    Ok(())
}

fn check_model(header: &Header) -> Result<(), String> {
    let meta = &header.metadata;
    check_kinds(meta)?;
    let arch = header.architecture();
    if arch.is_empty() {
        return Err("it lacks `general.architecture`".to_owned());
    }
    if arch::is_projector(arch) || meta.str("general.type") == Some("adapter") {
        return Err(format!("it is no model of its own but a part of one (`{arch}`)"));
    }
    check_sizes(meta, arch)?;
    check_heads(meta, arch)?;
    check_experts(meta, arch)?;
    check_numbers(meta, arch)?;
    check_layers(header, arch)?;
    tokenizer::check(header)
}

/// What a well-known key must hold.
#[derive(Clone, Copy)]
enum Kind {
    Count,
    /// One for all layers or a list of one for each.
    CountPerLayer,
    Number,
    Text,
}

/// Keys that engines read as one type must have it; integers may have any width.
pub(super) fn check_kinds(meta: &Metadata) -> Result<(), String> {
    for (key, value) in meta.iter() {
        let Some(kind) = kind_of(key) else { continue };
        let (fits, expected) = match (kind, value) {
            (Kind::Count | Kind::CountPerLayer, Value::Signed(value)) => (*value >= 0, "a count"),
            (Kind::Count, value) => (matches!(value, Value::Unsigned(_)), "a count"),
            (Kind::CountPerLayer, value) => (
                matches!(value, Value::Unsigned(_) | Value::List(List::Integers { .. })),
                "a count or a list of counts",
            ),
            (Kind::Number, value) => (matches!(value, Value::Float(_)), "a number"),
            (Kind::Text, value) => (matches!(value, Value::Text(_)), "a text"),
        };
        if !fits {
            return Err(format!("its `{}` is not {expected}", super::metadata::shorten(key)));
        }
    }
    Ok(())
}

fn kind_of(key: &str) -> Option<Kind> {
    match key {
        "general.architecture"
        | "general.name"
        | "general.type"
        | "tokenizer.ggml.model"
        | "tokenizer.ggml.pre"
        | "tokenizer.chat_template" => return Some(Kind::Text),
        "general.file_type" | "general.quantization_version" | "split.count" | "split.no" => {
            return Some(Kind::Count);
        }
        _ => {}
    }
    let (_, suffix) = key.split_once('.')?;
    Some(match suffix {
        "attention.head_count" | "attention.head_count_kv" | "feed_forward_length" => Kind::CountPerLayer,
        "block_count"
        | "context_length"
        | "embedding_length"
        | "expert_count"
        | "expert_used_count"
        | "attention.key_length"
        | "attention.value_length"
        | "rope.dimension_count"
        | "vocab_size"
        | "attention.sliding_window"
        | "pooling_type" => Kind::Count,
        "attention.layer_norm_epsilon"
        | "attention.layer_norm_rms_epsilon"
        | "rope.freq_base"
        | "rope.scaling.factor"
        | "lora.alpha" => Kind::Number,
        "rope.scaling.type" => Kind::Text,
        _ => return None,
    })
}

/// Holds a key, if it is there, to a range; each element if it is a list.
pub(super) fn range(meta: &Metadata, key: &str, low: u64, high: u64) -> Result<(), String> {
    let wrong = |value: String| Err(format!("its `{key}` is {value}; {low} to {high} is possible"));
    match meta.get(key) {
        None => Ok(()),
        Some(Value::List(List::Integers { values, .. })) => {
            match values.iter().find(|value| !u64::try_from(**value).is_ok_and(|v| v <= high)) {
                Some(value) => wrong(value.to_string()),
                None => Ok(()),
            }
        }
        Some(_) => match meta.u64(key) {
            Some(value) if (low..=high).contains(&value) => Ok(()),
            Some(value) => wrong(value.to_string()),
            None => wrong("no integer".to_owned()),
        },
    }
}

fn require(meta: &Metadata, key: &str) -> Result<(), String> {
    meta.get(key).map(|_| ()).ok_or_else(|| format!("it lacks `{key}`"))
}

fn check_sizes(meta: &Metadata, arch: &str) -> Result<(), String> {
    let key = |suffix: &str| format!("{arch}.{suffix}");
    for needed in ["block_count", "context_length", "embedding_length"] {
        require(meta, &key(needed))?;
    }
    range(meta, &key("block_count"), 1, u64::from(MAX_LAYERS))?;
    range(meta, &key("context_length"), 1, MAX_CONTEXT)?;
    range(meta, &key("embedding_length"), 1, MAX_EMBEDDING)?;
    range(meta, &key("feed_forward_length"), 0, MAX_FEED_FORWARD)?;
    range(meta, &key("expert_feed_forward_length"), 0, MAX_FEED_FORWARD)?;
    range(meta, &key("vocab_size"), 1, MAX_VOCAB)?;
    range(meta, &key("attention.sliding_window"), 0, MAX_CONTEXT)?;
    range(meta, &key("ssm.state_size"), 0, 1 << 16)?;
    range(meta, &key("ssm.inner_size"), 0, MAX_FEED_FORWARD)?;
    range(meta, &key("ssm.conv_kernel"), 0, 1 << 10)?;
    range(meta, &key("pooling_type"), 0, 4)
}

fn check_heads(meta: &Metadata, arch: &str) -> Result<(), String> {
    let key = |suffix: &str| format!("{arch}.{suffix}");
    let least = u64::from(!arch::has_no_heads(arch));
    if least == 1 {
        require(meta, &key("attention.head_count"))?;
    }
    range(meta, &key("attention.head_count"), least, MAX_HEADS)?;
    range(meta, &key("attention.head_count_kv"), least, MAX_HEADS)?;
    range(meta, &key("attention.key_length"), least, MAX_HEAD_SIZE)?;
    range(meta, &key("attention.value_length"), least, MAX_HEAD_SIZE)?;
    range(meta, &key("rope.dimension_count"), 0, MAX_HEAD_SIZE)?;
    check_groups(meta, &key("attention.head_count"), &key("attention.head_count_kv"))?;
    check_lists(meta, arch)?;
    check_rope(meta, arch)
}

/// Heads are shared evenly between the key-value heads of a layer.
fn check_groups(meta: &Metadata, heads_key: &str, kv_key: &str) -> Result<(), String> {
    let (Some(heads), Some(kv)) = (meta.u64(heads_key), meta.u64(kv_key)) else { return Ok(()) };
    match kv == 0 || (kv <= heads && heads.is_multiple_of(kv)) {
        true => Ok(()),
        false => Err(format!("its {heads} heads cannot share {kv} key-value heads evenly (`{kv_key}`)")),
    }
}

/// Lists with a value for each layer have as many as there are layers.
fn check_lists(meta: &Metadata, arch: &str) -> Result<(), String> {
    let layers = meta.u64(&format!("{arch}.block_count")).unwrap_or(0);
    for suffix in ["attention.head_count", "attention.head_count_kv", "feed_forward_length"] {
        let key = format!("{arch}.{suffix}");
        match meta.get(&key) {
            Some(Value::List(list)) if (list.len() as u64) < layers => {
                return Err(format!("its `{key}` has {} elements for {layers} layers", list.len()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Rotated are pairs of values inside a head.
fn check_rope(meta: &Metadata, arch: &str) -> Result<(), String> {
    let key = format!("{arch}.rope.dimension_count");
    let Some(rotated) = meta.u64(&key) else { return Ok(()) };
    let heads = meta.u64(&format!("{arch}.attention.head_count"));
    let width = meta.u64(&format!("{arch}.embedding_length"));
    let from_heads = heads.zip(width).and_then(|(heads, width)| width.checked_div(heads));
    let head = meta.u64(&format!("{arch}.attention.key_length")).or(from_heads);
    if !rotated.is_multiple_of(2) || head.is_some_and(|head| rotated > head) {
        return Err(format!(
            "its `{key}` is {rotated}; an even number up to the head's size of {} is possible",
            head.unwrap_or(0)
        ));
    }
    Ok(())
}

fn check_experts(meta: &Metadata, arch: &str) -> Result<(), String> {
    let (all_key, used_key) = (format!("{arch}.expert_count"), format!("{arch}.expert_used_count"));
    range(meta, &all_key, 0, MAX_EXPERTS)?;
    range(meta, &used_key, 0, MAX_EXPERTS)?;
    let (all, used) = (meta.u64(&all_key).unwrap_or(0), meta.u64(&used_key).unwrap_or(0));
    match (all, used) {
        (0, 0) => Ok(()),
        (0, _) => Err(format!("it uses {used} experts and has none")),
        (_, 0) => Err(format!("it has {all} experts and uses none")),
        _ if used > all => Err(format!("it uses {used} experts and has {all}")),
        _ => Ok(()),
    }
}

fn check_numbers(meta: &Metadata, arch: &str) -> Result<(), String> {
    let within = |suffix: &str, low: f64, high: f64| {
        let key = format!("{arch}.{suffix}");
        match meta.f64(&key) {
            Some(value) if !(low..=high).contains(&value) => {
                Err(format!("its `{key}` is {value}; {low} to {high} is possible"))
            }
            _ => Ok(()),
        }
    };
    within("attention.layer_norm_rms_epsilon", 0.0, 1.0)?;
    within("attention.layer_norm_epsilon", 0.0, 1.0)?;
    within("rope.freq_base", f64::MIN_POSITIVE, 1e15)?;
    within("rope.freq_base_swa", f64::MIN_POSITIVE, 1e15)?;
    within("rope.scaling.factor", 0.0, 1e6)?;
    within("rope.scaling.attn_factor", -1e6, 1e6)?;
    within("attention.clamp_kqv", 0.0, 1e6)?;
    within("attention.max_alibi_bias", 0.0, 1e6)?;
    within("logit_scale", -1e9, 1e9)?;
    within("final_logit_softcapping", 0.0, 1e9)?;
    within("attn_logit_softcapping", 0.0, 1e9)
}

/// Every layer that is announced has tensors, and no tensor belongs to a layer beyond.
fn check_layers(header: &Header, arch: &str) -> Result<(), String> {
    let layers = header.metadata.u64(&format!("{arch}.block_count")).unwrap_or(0);
    let mut seen = vec![false; layers as usize];
    for tensor in &header.tensors {
        let Some(number) = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()) else {
            continue;
        };
        let slot = number.parse::<usize>().ok().and_then(|number| seen.get_mut(number));
        *slot.ok_or_else(|| {
            format!("the tensor `{}` belongs to none of the {layers} layers", tensor.name)
        })? = true;
    }
    // Models whose layers are named otherwise are left to the engine.
    let named = seen.iter().any(|seen| *seen);
    match seen.iter().position(|seen| !seen) {
        Some(missing) if named => {
            Err(format!("it announces {layers} layers, but layer {missing} has no tensors"))
        }
        _ => Ok(()),
    }
}
