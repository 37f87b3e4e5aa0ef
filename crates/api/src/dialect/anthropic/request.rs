//! Messages requests, turned into chat completions.

use serde_json::{Map, Value, json};

use super::super::call::{Action, Answer as AnyAnswer, Call, Endpoint, EngineRequest, Mode};
use super::super::duration;
use super::super::error::{DialectError, ErrorKind};
use super::super::grammar;
use super::super::json::{self, Object, Path, missing, wrong};
use super::super::limits;
use super::super::openai::{self, ToolChoice};
use super::{Answer, blocks};

/// Fields that are understood, or that mean nothing here and do no harm.
const KNOWN: &[&str] = &[
    "model",
    "max_tokens",
    "messages",
    "system",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "output_format",
    "metadata",
    "service_tier",
    "cache_control",
    "keep_alive",
    "betas",
    "speed",
    "inference_geo",
    "context_management",
];

/// Understands `POST …/v1/messages` and `…/count_tokens`.
pub fn prepare(endpoint: Endpoint, body: &[u8]) -> Result<Call, DialectError> {
    let map = json::object(body)?;
    let object = Object::root(&map);
    let model = object.get("model").ok_or_else(|| missing(&Path::Key(&Path::Root, "model")))?;
    let model = openai::model_name(model)?;
    let count = endpoint == Endpoint::CountTokens;
    let stream = !count && object.flag("stream")?.unwrap_or(false);
    let mut fields = Map::new();
    fields.insert("messages".into(), conversation(object)?.into());
    tools(object, &mut fields)?;
    thinking(object, &mut fields)?;
    output(object, &mut fields)?;
    grammar::check(&fields)?;
    let (engine, answer) = if count {
        (count_request(&fields), Answer { count, ..Answer::default() })
    } else {
        let (max_tokens, stops) = sampling(object, stream, &mut fields)?;
        let engine = EngineRequest::from_fields("/v1/chat/completions", stream, Some(max_tokens), &fields);
        (engine, Answer { count, stops })
    };
    let mut ignored = Vec::new();
    map.keys().filter(|key| !KNOWN.contains(&key.as_str())).for_each(|key| openai::note(&mut ignored, key));
    Ok(Call {
        endpoint,
        model,
        mode: Mode::Chat,
        stream,
        keep_alive: object.get("keep_alive").map(duration::parse_keep_alive).transpose()?,
        context_size: None,
        action: Action::Run(engine),
        ignored,
        answer: AnyAnswer::Anthropic(answer),
    })
}

/// llama-server counts at a path of its own, vLLM where it tokenises.
fn count_request(fields: &Map<String, Value>) -> EngineRequest {
    let mut request = EngineRequest::from_fields("/v1/chat/completions/input_tokens", false, None, fields);
    request.fallback = Some(Box::new(EngineRequest::from_fields("/tokenize", false, None, fields)));
    request
}

fn conversation(object: Object<'_, '_>) -> Result<Vec<Value>, DialectError> {
    let at = Path::Key(object.at, "messages");
    let messages = object.list("messages", limits::MESSAGES)?.ok_or_else(|| missing(&at))?;
    if messages.is_empty() {
        return Err(DialectError::invalid("messages", "messages is empty, send at least one message"));
    }
    let mut out = Vec::with_capacity(messages.len() + 1);
    if let Some(system) = object.get("system") {
        let text = blocks::plain_text(system, &Path::Key(object.at, "system"))?;
        if !text.is_empty() {
            out.push(json!({"role": "system", "content": text}));
        }
    }
    for (index, message) in messages.iter().enumerate() {
        let at = Path::Index(&at, index);
        blocks::message(Object::new(message, &at)?, &mut out)?;
    }
    Ok(out)
}

fn tools(object: Object<'_, '_>, fields: &mut Map<String, Value>) -> Result<(), DialectError> {
    let at = Path::Key(object.at, "tools");
    let Some(tools) = object.list("tools", limits::TOOLS)?.filter(|tools| !tools.is_empty()) else {
        return Ok(());
    };
    let mut out = Vec::with_capacity(tools.len());
    for (index, tool) in tools.iter().enumerate() {
        out.push(one_tool(Object::new(tool, &Path::Index(&at, index))?)?);
    }
    let choice_at = Path::Key(object.at, "tool_choice");
    let choice = match object.get("tool_choice") {
        None => ToolChoice::Plain("auto"),
        Some(value) => {
            let choice = Object::new(value, &choice_at)?;
            if choice.flag("disable_parallel_tool_use")?.unwrap_or(false) {
                fields.insert("parallel_tool_calls".into(), false.into());
            }
            match choice.need_text("type")? {
                "auto" => ToolChoice::Plain("auto"),
                "any" => ToolChoice::Plain("required"),
                "none" => ToolChoice::Plain("none"),
                "tool" => ToolChoice::Among(vec![choice.need_text("name")?.to_owned()], true),
                other => {
                    let at = Path::Key(&choice_at, "type");
                    return Err(wrong(&at, "auto, any, tool or none", &Value::from(other)));
                }
            }
        }
    };
    fields.insert("tools".into(), choice.narrow(out, openai::tool_name, "tool_choice.name")?.into());
    fields.insert("tool_choice".into(), choice.word().into());
    Ok(())
}

fn one_tool(tool: Object<'_, '_>) -> Result<Value, DialectError> {
    if let Some(kind) = tool.text("type")?.filter(|kind| *kind != "custom") {
        let text = format!(
            "{}.type {kind:?} is a tool of Anthropic's own service: describe it as a custom tool with an input_schema",
            tool.at
        );
        return Err(DialectError::new(ErrorKind::NotSupported, text).with_param(format!("{}.type", tool.at)));
    }
    let name = tool_name(tool)?;
    let schema_at = Path::Key(tool.at, "input_schema");
    let schema = tool.get("input_schema").ok_or_else(|| missing(&schema_at))?;
    Object::new(schema, &schema_at)?;
    let mut function = Map::new();
    function.insert("name".into(), name.into());
    if let Some(text) = tool.text("description")? {
        function.insert("description".into(), text.into());
    }
    function.insert("parameters".into(), schema.clone());
    Ok(json!({"type": "function", "function": function}))
}

fn tool_name<'v>(tool: Object<'v, '_>) -> Result<&'v str, DialectError> {
    let name = tool.need_text("name")?;
    if name.is_empty() || name.len() > limits::TOOL_NAME {
        let at = Path::Key(tool.at, "name");
        return Err(wrong(&at, &format!("of 1 to {} bytes", limits::TOOL_NAME), &Value::from(name)));
    }
    Ok(name)
}

fn thinking(object: Object<'_, '_>, fields: &mut Map<String, Value>) -> Result<(), DialectError> {
    let Some(value) = object.get("thinking") else { return Ok(()) };
    let at = Path::Key(object.at, "thinking");
    let thinking = Object::new(value, &at)?;
    let on = match thinking.need_text("type")? {
        "enabled" => {
            let budget = thinking.integer("budget_tokens", 1, i64::from(i32::MAX))?;
            let budget = budget.ok_or_else(|| missing(&Path::Key(&at, "budget_tokens")))?;
            fields.insert("thinking_budget_tokens".into(), budget.into());
            true
        }
        "adaptive" | "between_tools" => true,
        "disabled" => false,
        other => {
            return Err(wrong(&Path::Key(&at, "type"), "enabled, adaptive or disabled", &Value::from(other)));
        }
    };
    fields.insert("chat_template_kwargs".into(), json!({"enable_thinking": on}));
    Ok(())
}

/// `output_config`: a schema for the answer, and how hard to think.
fn output(object: Object<'_, '_>, fields: &mut Map<String, Value>) -> Result<(), DialectError> {
    let config_at = Path::Key(object.at, "output_config");
    let mut format = object.get("output_format");
    let mut format_at = Path::Key(object.at, "output_format");
    if let Some(value) = object.get("output_config") {
        let config = Object::new(value, &config_at)?;
        if let Some(effort) = config.text("effort")? {
            let effort = match effort {
                "low" | "medium" | "high" => effort,
                "xhigh" | "max" => "high",
                other => {
                    let at = Path::Key(&config_at, "effort");
                    return Err(wrong(&at, "low, medium, high, xhigh or max", &Value::from(other)));
                }
            };
            fields.insert("reasoning_effort".into(), effort.into());
        }
        if config.get("format").is_some() {
            format = config.get("format");
            format_at = Path::Key(&config_at, "format");
        }
    }
    let Some(value) = format else { return Ok(()) };
    let format = Object::new(value, &format_at)?;
    let kind = format.need_text("type")?;
    if kind != "json_schema" {
        return Err(wrong(&Path::Key(&format_at, "type"), "json_schema", &Value::from(kind)));
    }
    let schema_at = Path::Key(&format_at, "schema");
    let schema = format.get("schema").ok_or_else(|| missing(&schema_at))?;
    Object::new(schema, &schema_at)?;
    let wrapped = json!({"name": "answer", "strict": true, "schema": schema});
    fields.insert("response_format".into(), json!({"type": "json_schema", "json_schema": wrapped}));
    Ok(())
}

/// Samplers and limits. Returns the most tokens, and the stop sequences.
fn sampling(
    object: Object<'_, '_>,
    stream: bool,
    fields: &mut Map<String, Value>,
) -> Result<(u32, Vec<String>), DialectError> {
    let max = object.integer("max_tokens", 1, i64::from(i32::MAX))?;
    let max = max.ok_or_else(|| missing(&Path::Key(object.at, "max_tokens")))?;
    fields.insert("max_tokens".into(), max.into());
    if let Some(temperature) = object.number("temperature", 0.0, 10.0)? {
        fields.insert("temperature".into(), temperature.into());
    }
    if let Some(top_p) = object.number("top_p", 0.0, 1.0)? {
        fields.insert("top_p".into(), top_p.into());
    }
    if let Some(top_k) = object.integer("top_k", -1, 1_000_000)? {
        fields.insert("top_k".into(), top_k.into());
    }
    let stops = object.list("stop_sequences", limits::STOPS)?.unwrap_or_default();
    if let Some(value) = object.get("stop_sequences").filter(|_| !stops.is_empty()) {
        openai::check_stop(&Path::Key(object.at, "stop_sequences"), value)?;
        fields.insert("stop".into(), value.clone());
        // llama-server tells which one it was only in its verbose part, here cut down to that one word.
        fields.insert("verbose".into(), true.into());
        fields.insert("response_fields".into(), json!(["stopping_word"]));
    }
    if stream {
        fields.insert("stream".into(), true.into());
        fields.insert("stream_options".into(), json!({"include_usage": true}));
        // message_start tells the prompt's tokens: llama-server sends them ahead of the answer with its progress.
        fields.insert("return_progress".into(), true.into());
    }
    let stops = stops.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok((u32::try_from(max).unwrap_or(u32::MAX), stops))
}
