//! Owns the making of GGUF files for tests: small ones that are right, and any damage to them.

use std::{collections::BTreeMap, path::Path};

use super::tensor_type;

/// A value as it is written.
#[derive(Clone, Debug)]
pub(crate) enum V {
    U8(u8),
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    U8s(Vec<u8>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

/// A file before it is written.
#[derive(Clone, Debug)]
pub(crate) struct Forge {
    pub(crate) version: u32,
    pub(crate) keys: BTreeMap<String, V>,
    /// Name, shape, type and, if it is not to be zero, the byte to fill it with.
    pub(crate) tensors: Vec<(String, Vec<u64>, u32, u8)>,
}

pub(crate) const VOCAB: usize = 32;
pub(crate) const WIDTH: u64 = 64;
pub(crate) const LAYERS: u32 = 2;

impl Forge {
    /// A small chat model of the llama family.
    pub(crate) fn chat() -> Self {
        let mut keys = BTreeMap::new();
        let mut put = |key: &str, value: V| drop(keys.insert(key.to_owned(), value));
        put("general.architecture", V::Str("llama".into()));
        put("general.name", V::Str("forged".into()));
        put("general.file_type", V::U32(7));
        for (key, value) in [
            ("context_length", 512),
            ("embedding_length", WIDTH as u32),
            ("block_count", LAYERS),
            ("feed_forward_length", 128),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
            ("rope.dimension_count", 16),
            ("vocab_size", VOCAB as u32),
        ] {
            put(&format!("llama.{key}"), V::U32(value));
        }
        put("llama.attention.layer_norm_rms_epsilon", V::F32(1e-5));
        put("llama.rope.freq_base", V::F32(10_000.0));
        put("tokenizer.ggml.model", V::Str("gpt2".into()));
        put("tokenizer.ggml.pre", V::Str("gpt-2".into()));
        put("tokenizer.ggml.tokens", V::Strs((0..VOCAB).map(|number| format!("t{number}")).collect()));
        put("tokenizer.ggml.token_type", V::I32s(vec![1; VOCAB]));
        put("tokenizer.ggml.merges", V::Strs(vec!["t 1".into(), "t 2".into()]));
        put("tokenizer.ggml.bos_token_id", V::U32(1));
        put("tokenizer.ggml.eos_token_id", V::U32(2));
        put("tokenizer.chat_template", V::Str("{% for m in messages %}{{ m.content }}{% endfor %}".into()));
        let mut tensors = vec![("token_embd.weight".to_owned(), vec![WIDTH, VOCAB as u64], 8, 0)];
        for layer in 0..LAYERS {
            tensors.push((format!("blk.{layer}.attn_norm.weight"), vec![WIDTH], 0, 0));
            tensors.push((format!("blk.{layer}.attn_q.weight"), vec![WIDTH, WIDTH], 8, 0));
            tensors.push((format!("blk.{layer}.ffn_up.weight"), vec![WIDTH, 128], 1, 0));
        }
        tensors.push(("output_norm.weight".to_owned(), vec![WIDTH], 0, 0));
        Self { version: 3, keys, tensors }
    }

    pub(crate) fn set(mut self, key: &str, value: V) -> Self {
        self.keys.insert(key.to_owned(), value);
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.keys.remove(key).expect("the key is there");
        self
    }

    /// Changes the first tensor whose name ends so.
    pub(crate) fn tensor(
        mut self,
        name: &str,
        change: impl FnOnce(&mut (String, Vec<u64>, u32, u8)),
    ) -> Self {
        change(self.tensors.iter_mut().find(|tensor| tensor.0.ends_with(name)).expect("the tensor is there"));
        self
    }

    /// An adapter for [`Forge::chat`].
    pub(crate) fn adapter() -> Self {
        let mut forge = Self::chat()
            .set("general.type", V::Str("adapter".into()))
            .set("adapter.type", V::Str("lora".into()))
            .set("adapter.lora.alpha", V::F32(16.0));
        let half = |half, shape: [u64; 2]| (format!("blk.0.attn_q.weight.lora_{half}"), shape.to_vec(), 0, 0);
        forge.tensors = vec![half("a", [WIDTH, 8]), half("b", [8, WIDTH])];
        forge
    }

    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            string(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for (name, shape, kind, _) in &self.tensors {
            string(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + size_of(shape, *kind)).next_multiple_of(32);
        }
        for (_, shape, kind, fill) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.resize(out.len() + size_of(shape, *kind) as usize, *fill);
        }
        out
    }
}

fn size_of(shape: &[u64], kind: u32) -> u64 {
    let kind = tensor_type(kind).expect("a known type");
    shape.iter().product::<u64>().div_ceil(kind.block) * kind.bytes
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &V) {
    let mut list = |kind: u32, count: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match value {
        V::Strs(values) => list(8, values.len()),
        V::U8s(values) => list(0, values.len()),
        V::I32s(values) => list(5, values.len()),
        V::F32s(values) => list(6, values.len()),
        V::U8(_) => out.extend(0u32.to_le_bytes()),
        V::U32(_) => out.extend(4u32.to_le_bytes()),
        V::I32(_) => out.extend(5u32.to_le_bytes()),
        V::F32(_) => out.extend(6u32.to_le_bytes()),
        V::Bool(_) => out.extend(7u32.to_le_bytes()),
        V::Str(_) => out.extend(8u32.to_le_bytes()),
        V::U64(_) => out.extend(10u32.to_le_bytes()),
    }
    match value {
        V::U8(value) => out.push(*value),
        V::U32(value) => out.extend(value.to_le_bytes()),
        V::I32(value) => out.extend(value.to_le_bytes()),
        V::U64(value) => out.extend(value.to_le_bytes()),
        V::F32(value) => out.extend(value.to_le_bytes()),
        V::Bool(value) => out.push(u8::from(*value)),
        V::Str(text) => string(out, text),
        V::Strs(texts) => texts.iter().for_each(|text| string(out, text)),
        V::U8s(values) => out.extend(values),
        V::I32s(values) => values.iter().for_each(|value| out.extend(value.to_le_bytes())),
        V::F32s(values) => values.iter().for_each(|value| out.extend(value.to_le_bytes())),
    }
}
