//! The model's file: writing it as llama.cpp wants it, and reading it back.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Content, Value},
    },
};

use crate::{
    Error, chat,
    model::{Config, Model},
    tokenizer::{TokenKind, Tokenizer, Vocabulary},
    training::Trained,
};

/// How the matrices are stored; norms are always 32-bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoding {
    /// Blocks of 32 bytes with a 16-bit scale.
    #[value(name = "q8_0")]
    Q8_0,
    /// 16-bit floats.
    #[value(name = "f16")]
    F16,
}

impl Encoding {
    fn tensor_type(self) -> GgmlDType {
        match self {
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::F16 => GgmlDType::F16,
        }
    }

    /// llama.cpp's `general.file_type`.
    fn file_type(self) -> u32 {
        match self {
            Self::Q8_0 => 7,
            Self::F16 => 1,
        }
    }
}

/// Writes the model to `path`: whole, or not at all. `context` is the context length that the file announces.
pub fn write(path: &Path, trained: &Trained, encoding: Encoding, context: u32) -> Result<(), Error> {
    let tensors: Vec<(&str, QTensor)> = trained
        .parameters
        .iter()
        .map(|(name, var)| {
            let kind = if name.contains("norm") { GgmlDType::F32 } else { encoding.tensor_type() };
            Ok((name.as_str(), QTensor::quantize(var, kind)?))
        })
        .collect::<candle_core::Result<_>>()?;
    let mut metadata = description(encoding);
    metadata.extend(architecture(&trained.config, context));
    metadata.extend(tokenizer(&trained.tokenizer));
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();

    let unfinished = path.with_added_extension("part");
    let file = |source| Error::File { path: path.to_owned(), source };
    let mut out = BufWriter::new(File::create(&unfinished).map_err(file)?);
    gguf_file::write(&mut out, &metadata, &tensors)?;
    out.flush().map_err(file)?;
    std::fs::rename(&unfinished, path).map_err(file)
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

fn number(value: usize) -> Value {
    Value::U32(u32::try_from(value).expect("the model is small"))
}

fn description(encoding: Encoding) -> Vec<(&'static str, Value)> {
    vec![
        ("general.architecture", text("llama")),
        ("general.name", text("toy-chat")),
        ("general.description", text("A very small chat model, trained for tests")),
        ("general.license", text("MIT OR Apache-2.0")),
        ("general.file_type", Value::U32(encoding.file_type())),
    ]
}

fn architecture(config: &Config, context: u32) -> Vec<(&'static str, Value)> {
    vec![
        ("llama.context_length", Value::U32(context)),
        ("llama.embedding_length", number(config.width)),
        ("llama.block_count", number(config.blocks)),
        ("llama.feed_forward_length", number(config.feed_forward)),
        ("llama.attention.head_count", number(config.heads)),
        ("llama.attention.head_count_kv", number(config.kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.norm_epsilon)),
        ("llama.rope.freq_base", Value::F32(config.rope_base)),
        ("llama.rope.dimension_count", number(config.head_width())),
        ("llama.vocab_size", number(config.vocabulary)),
    ]
}

fn tokenizer(tokenizer: &Tokenizer) -> Vec<(&'static str, Value)> {
    let Vocabulary { tokens, merges } = tokenizer.vocabulary();
    let kinds = tokens.iter().map(|token| Value::I32(kind_number(Vocabulary::kind(token))));
    let merges = merges.iter().map(|(left, right)| text(&format!("{left} {right}")));
    vec![
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", Value::Array(tokens.iter().map(|token| text(token)).collect())),
        ("tokenizer.ggml.token_type", Value::Array(kinds.collect())),
        ("tokenizer.ggml.merges", Value::Array(merges.collect())),
        ("tokenizer.ggml.bos_token_id", Value::U32(tokenizer.end_of_text())),
        ("tokenizer.ggml.eos_token_id", Value::U32(tokenizer.turn_end())),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.chat_template", text(chat::template())),
    ]
}

/// llama.cpp's numbers for the kinds of tokens.
fn kind_number(kind: TokenKind) -> i32 {
    match kind {
        TokenKind::Normal => 1,
        TokenKind::Control => 3,
        TokenKind::UserDefined => 4,
    }
}

/// Reads a file that [`write`] wrote.
pub fn read(path: &Path) -> Result<(Tokenizer, Model), Error> {
    let open = File::open(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let mut file = BufReader::new(open);
    let content = Content::read(&mut file).map_err(|error| not_ours(path, error.to_string()))?;
    let keys = Keys { path, content: &content };
    let tokenizer =
        Tokenizer::new(Vocabulary { tokens: keys.texts("tokenizer.ggml.tokens")?, merges: keys.merges()? })?;
    let config = keys.config(tokenizer.vocabulary().tokens.len())?;
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for name in content.tensor_infos.keys() {
        let tensor = content.tensor(&mut file, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
        tensors.insert(name.clone(), tensor);
    }
    Ok((tokenizer, Model::new(config, &tensors)?))
}

fn not_ours(path: &Path, reason: String) -> Error {
    Error::NotOurs { path: PathBuf::from(path), reason }
}

/// The metadata of a file, and its name for complaints.
struct Keys<'a> {
    path: &'a Path,
    content: &'a Content,
}

impl Keys<'_> {
    fn value<'a, T>(
        &'a self,
        key: &str,
        read: impl Fn(&'a Value) -> candle_core::Result<T>,
    ) -> Result<T, Error> {
        let value = self.content.metadata.get(key);
        value
            .and_then(|value| read(value).ok())
            .ok_or_else(|| not_ours(self.path, format!("{key} is missing or of another type")))
    }

    fn number(&self, key: &str) -> Result<usize, Error> {
        self.value(key, |value| Ok(value.to_u32()? as usize))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, Error> {
        self.value(key, |value| value.to_vec()?.iter().map(|text| text.to_string().cloned()).collect())
    }

    fn merges(&self) -> Result<Vec<(String, String)>, Error> {
        let split = |merge: &String| {
            let (left, right) = merge.split_once(' ')?;
            Some((left.to_owned(), right.to_owned()))
        };
        let merges = self.texts("tokenizer.ggml.merges")?;
        let pairs: Option<Vec<_>> = merges.iter().map(split).collect();
        pairs.ok_or_else(|| not_ours(self.path, "a merge in it is no pair".to_owned()))
    }

    fn config(&self, vocabulary: usize) -> Result<Config, Error> {
        Ok(Config {
            vocabulary,
            width: self.number("llama.embedding_length")?,
            blocks: self.number("llama.block_count")?,
            heads: self.number("llama.attention.head_count")?,
            kv_heads: self.number("llama.attention.head_count_kv")?,
            feed_forward: self.number("llama.feed_forward_length")?,
            rope_base: self.value("llama.rope.freq_base", Value::to_f32)?,
            norm_epsilon: self.value("llama.attention.layer_norm_rms_epsilon", Value::to_f32)?,
        })
    }
}
