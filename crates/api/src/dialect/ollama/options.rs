//! `options`, `format`, `think` and tools, in the engine's terms.

use serde_json::{Map, Value, json};

use super::super::error::DialectError;
use super::super::json::{Object, Path, missing, whole, wrong};
use super::super::limits;
use super::super::openai;

/// What `options` holds.
#[derive(Debug, Default)]
pub struct Options {
    /// Samplers, under the engine's names.
    pub fields: Map<String, Value>,
    /// `num_predict`
    pub max_tokens: Option<u32>,
    /// `num_ctx`
    pub context_size: Option<u32>,
}

/// Options that belong to the host, which decides them itself, or to old versions.
const HOST: &[&str] = &[
    "numa",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mmap",
    "use_mlock",
    "embedding_only",
    "num_thread",
    "num_keep",
    "tfs_z",
    "penalize_newline",
    "draft_num_predict",
];

/// Parses `options`; what the host decides is noted as ignored.
pub fn parse(object: Object<'_, '_>, ignored: &mut Vec<String>) -> Result<Options, DialectError> {
    let mut out = Options::default();
    let at = Path::Key(object.at, "options");
    let Some(value) = object.get("options") else { return Ok(out) };
    let options = Object::new(value, &at)?;
    for (key, value) in options.map() {
        if value.is_null() {
            continue;
        }
        if !one(options, key, value, &mut out)? {
            let name = if HOST.contains(&key.as_str()) { format!("options.{key}") } else { key.clone() };
            openai::note(ignored, &name);
        }
    }
    Ok(out)
}

/// Takes one option over; `false` where it is not known or the host's own.
fn one(options: Object<'_, '_>, key: &str, value: &Value, out: &mut Options) -> Result<bool, DialectError> {
    let int = |min, max| options.integer(key, min, max).map(|number| number.map(Value::from));
    let num = |min, max| options.number(key, min, max).map(|number| number.map(Value::from));
    let parsed = match key {
        "temperature" | "repeat_penalty" => num(0.0, 10.0)?,
        "typical_p" => num(0.0, 10.0)?,
        "top_p" | "min_p" => num(0.0, 1.0)?,
        "presence_penalty" | "frequency_penalty" => num(-10.0, 10.0)?,
        "mirostat_tau" | "mirostat_eta" => num(0.0, 1000.0)?,
        "top_k" => int(-1, 1_000_000)?,
        "mirostat" => int(0, 2)?,
        "seed" => int(i64::MIN, i64::MAX)?,
        // -1 stands for the whole context.
        "repeat_last_n" => match options.integer(key, -1, limits::LOOK_BACK)? {
            Some(-1) => Some(limits::LOOK_BACK.into()),
            other => other.map(Value::from),
        },
        "stop" => {
            openai::check_stop(&Path::Key(options.at, key), value)?;
            Some(value.clone()).filter(|value| value.as_array().is_none_or(|items| !items.is_empty()))
        }
        // -1 and -2 stand for no limit and for the whole context.
        "num_predict" => {
            let number = options.integer(key, -2, i64::from(i32::MAX))?;
            out.max_tokens = number.and_then(|number| u32::try_from(number).ok());
            if let Some(max) = out.max_tokens {
                out.fields.insert("max_tokens".into(), max.into());
            }
            return Ok(true);
        }
        "num_ctx" => {
            let number = options.integer(key, 0, i64::from(i32::MAX))?;
            out.context_size = number.and_then(|number| u32::try_from(number).ok()).filter(|size| *size > 0);
            return Ok(true);
        }
        _ => return Ok(false),
    };
    if let Some(parsed) = parsed {
        out.fields.insert(key.to_owned(), parsed);
    }
    Ok(true)
}

enum Format {
    Free,
    Json,
    Schema(Value),
}

fn read_format(object: Object<'_, '_>) -> Result<Format, DialectError> {
    let at = Path::Key(object.at, "format");
    match object.get("format") {
        None => Ok(Format::Free),
        Some(Value::String(text)) if text.is_empty() => Ok(Format::Free),
        Some(Value::String(text)) if text == "json" => Ok(Format::Json),
        Some(schema @ Value::Object(_)) => Ok(Format::Schema(schema.clone())),
        Some(other) => Err(wrong(&at, "\"json\" or a JSON schema", other)),
    }
}

/// `format` of a conversation.
pub fn format(object: Object<'_, '_>, fields: &mut Map<String, Value>) -> Result<(), DialectError> {
    let format = match read_format(object)? {
        Format::Free => return Ok(()),
        Format::Json => json!({"type": "json_object"}),
        Format::Schema(schema) => {
            json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}})
        }
    };
    fields.insert("response_format".into(), format);
    Ok(())
}

/// `format` of a raw prompt: llama-server takes a bare schema there, vLLM a response format.
pub fn raw_format(object: Object<'_, '_>, fields: &mut Map<String, Value>) -> Result<(), DialectError> {
    format(object, fields)?;
    match read_format(object)? {
        Format::Free => {}
        Format::Json => {
            fields.insert("json_schema".into(), json!({"type": "object"}));
        }
        Format::Schema(schema) => {
            fields.insert("json_schema".into(), schema);
        }
    }
    Ok(())
}

/// `think`: on, off, or how hard.
pub fn think(object: Object<'_, '_>, fields: &mut Map<String, Value>) -> Result<(), DialectError> {
    let at = Path::Key(object.at, "think");
    let on = match object.get("think") {
        None => return Ok(()),
        Some(Value::Bool(on)) => *on,
        Some(Value::String(level)) if ["low", "medium", "high", "max"].contains(&level.as_str()) => {
            let level = if level == "max" { "high" } else { level };
            fields.insert("reasoning_effort".into(), level.into());
            true
        }
        Some(other) => {
            return Err(wrong(&at, "true, false, \"low\", \"medium\", \"high\" or \"max\"", other));
        }
    };
    fields.insert("chat_template_kwargs".into(), json!({"enable_thinking": on}));
    Ok(())
}

/// A tool; Ollama's shape is OpenAI's, but its SDK also sends empty fields.
pub fn tool(tool: Object<'_, '_>) -> Result<Value, DialectError> {
    let at = Path::Key(tool.at, "function");
    let function = Object::new(tool.get("function").ok_or_else(|| missing(&at))?, &at)?;
    let name = function.need_text("name")?;
    if name.is_empty() || name.len() > limits::TOOL_NAME {
        let at = Path::Key(&at, "name");
        return Err(wrong(&at, &format!("of 1 to {} bytes", limits::TOOL_NAME), &Value::from(name)));
    }
    let mut out = Map::new();
    out.insert("name".into(), name.into());
    if let Some(text) = function.text("description")? {
        out.insert("description".into(), text.into());
    }
    let parameters_at = Path::Key(&at, "parameters");
    match function.get("parameters") {
        None => {
            out.insert("parameters".into(), json!({"type": "object", "properties": {}}));
        }
        Some(value) => {
            Object::new(value, &parameters_at)?;
            out.insert("parameters".into(), without_nulls(value));
        }
    }
    Ok(json!({"type": "function", "function": out}))
}

/// A schema without the `null` fields that the SDK's typed tools are sent with.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        // `enum` may name null, so arrays stay as they are but for the objects in them.
        Value::Array(items) => items.iter().map(without_nulls).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}

/// A list of integers.
pub fn integers(value: &Value, at: &Path<'_>, max: usize) -> Result<Vec<i64>, DialectError> {
    super::super::json::list(value, at, max)?
        .iter()
        .enumerate()
        .map(|(index, item)| {
            whole(item).ok_or_else(|| wrong(&Path::Index(at, index), "a whole number", item))
        })
        .collect()
}
