//! Owns the last look at a model before an engine gets it: every file, by its own format's rules.

use std::{fs, path::Path};

use serde_json::Value;

pub use crate::gguf::{Facts, Mode, Pooling};
use crate::{
    Bundle, Error, Format, Result, Role, dduf,
    gguf::{self, CheckError, template},
    safetensors,
};

/// The largest config of a safetensors model that is read, in bytes.
const MAX_JSON: u64 = 16 << 20;

/// Checks all files of a bundle as [`facts`] does, and tries its chat template.
///
/// A template can use up memory as well as time, so this is for the process that becomes the
/// engine, where limits are in force, not for the daemon.
pub fn bundle(bundle: &Bundle) -> Result<Facts> {
    let (facts, template_in_weights) = look(bundle)?;
    if let Some(reason) = template_in_weights.as_deref().and_then(template::fault) {
        return Err(CheckError::new(bundle.main().unwrap_or(&bundle.dir), reason).into());
    }
    if let Some(path) = &bundle.chat_template {
        let text = fs::read(path).map_err(Error::io("cannot read", path))?;
        if let Some(reason) = template::fault(&String::from_utf8_lossy(&text)) {
            return Err(CheckError::new(path, reason).into());
        }
    }
    Ok(facts)
}

/// Checks the headers of all files of a bundle and tells what the weights say of the model.
pub fn facts(bundle: &Bundle) -> Result<Facts> {
    look(bundle).map(|(facts, _)| facts)
}

fn look(bundle: &Bundle) -> Result<(Facts, Option<String>)> {
    let (mut facts, weights) = match bundle.format {
        Format::Gguf => {
            let checked = gguf::check_shards(&bundle.weights)?;
            (checked.facts, Some(checked.header))
        }
        Format::Safetensors => (safetensors_facts(bundle)?, None),
        Format::Dduf => (dduf_facts(bundle)?, None),
        Format::Unknown => {
            return Err(Error::malformed(
                bundle.dir.display().to_string(),
                "its weights are in no known format",
            ));
        }
    };
    for (role, path) in bundle.gguf_files() {
        match role {
            Role::Mmproj => drop(gguf::check_projector(path)?),
            Role::Adapter => drop(gguf::check_adapter(path, weights.as_ref())?),
            Role::Draft => drop(gguf::check(path)?),
            _ => {}
        }
    }
    facts.has_chat_template |= bundle.chat_template.is_some();
    let template =
        weights.and_then(|header| header.metadata.str("tokenizer.chat_template").map(str::to_owned));
    Ok((facts, template))
}

fn dduf_facts(bundle: &Bundle) -> Result<Facts> {
    let mut facts = Facts { mode: Mode::Other, architecture: "diffusers".to_owned(), ..Facts::default() };
    for path in &bundle.weights {
        let contents = dduf::check(path)?;
        facts.weights_bytes += contents.entries.iter().map(|(_, size)| size).sum::<u64>();
    }
    Ok(facts)
}

fn safetensors_facts(bundle: &Bundle) -> Result<Facts> {
    let mut facts = Facts::default();
    for path in &bundle.weights {
        let header = safetensors::check(path)?;
        facts.parameters += header.parameters();
        facts.weights_bytes += header.data_bytes;
        if facts.quantization.is_empty() {
            facts.quantization = header.main_dtype().unwrap_or_default().to_owned();
        }
    }
    let config = read_json(&bundle.dir.join("config.json"))?;
    refuse_code(&bundle.dir.join("config.json"), &config)?;
    fill_from_config(&mut facts, &config);
    let tokenizer = read_json(&bundle.dir.join("tokenizer_config.json"))?;
    facts.has_chat_template |=
        tokenizer.get("chat_template").is_some() || bundle.dir.join("chat_template.json").exists();
    if bundle.dir.join("modules.json").exists() && facts.mode == Mode::Chat {
        facts.mode = Mode::Embedding;
    }
    Ok(facts)
}

/// A missing file is an empty object: not every model has each.
fn read_json(path: &Path) -> Result<Value> {
    let size = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(_) => return Ok(Value::Object(Default::default())),
    };
    if size > MAX_JSON {
        return Err(CheckError::new(path, format!("it has {size} bytes, the limit is {MAX_JSON}")).into());
    }
    let bytes = fs::read(path).map_err(Error::io("cannot read", path))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| CheckError::new(path, format!("it is no valid JSON: {error}")).into())
}

/// `model_file` names Python code that mlx-lm would run from the model's folder.
fn refuse_code(path: &Path, config: &Value) -> Result<()> {
    match config.get("model_file") {
        None | Some(Value::Null) => Ok(()),
        Some(file) => {
            Err(CheckError::new(path, format!("it wants the engine to run code of its own ({file})")).into())
        }
    }
}

fn fill_from_config(facts: &mut Facts, config: &Value) {
    // Multimodal models keep the language model's part below.
    let text = config.get("text_config").filter(|it| it.is_object()).unwrap_or(config);
    let number =
        |key: &str| text.get(key).and_then(Value::as_u64).and_then(|it| u32::try_from(it).ok()).unwrap_or(0);
    let architecture = config.pointer("/architectures/0").and_then(Value::as_str).unwrap_or_default();
    facts.mode = mode_of(architecture);
    facts.architecture = config.get("model_type").and_then(Value::as_str).unwrap_or(architecture).to_owned();
    facts.layers = number("num_hidden_layers").min(4096);
    facts.heads = number("num_attention_heads");
    let kv = if number("num_key_value_heads") == 0 { facts.heads } else { number("num_key_value_heads") };
    facts.heads_kv = vec![kv; facts.layers as usize];
    facts.embedding_length = number("hidden_size");
    let head = facts.embedding_length.checked_div(facts.heads).unwrap_or(0);
    facts.key_length = if number("head_dim") == 0 { head } else { number("head_dim") };
    facts.value_length = facts.key_length;
    facts.vocab = number("vocab_size");
    facts.context_length = number("max_position_embeddings");
    facts.sliding_window = number("sliding_window");
    facts.experts = number("num_experts").max(number("num_local_experts"));
    facts.experts_used = number("num_experts_per_tok");
}

fn mode_of(architecture: &str) -> Mode {
    if architecture.ends_with("ForSequenceClassification") {
        return Mode::Rerank;
    }
    let encoder =
        ["BertModel", "RobertaModel", "MPNetModel", "ModernBertModel", "ForMaskedLM", "T5EncoderModel"];
    match encoder.iter().any(|ending| architecture.ends_with(ending)) {
        true => Mode::Embedding,
        false => Mode::Chat,
    }
}
