//! Requests for responses, turned into chat completions.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::call::{Action, Answer as AnyAnswer, Call, Endpoint, EngineRequest, History, Mode};
use super::super::duration;
use super::super::error::{DialectError, ErrorKind};
use super::super::grammar;
use super::super::json::{self, Object, Path, missing, wrong};
use super::super::limits;
use super::super::openai::{self, ToolChoice};
use super::input::Messages;
use super::{Answer, Stored};

/// Fields that are understood, or that mean nothing here and do no harm.
const KNOWN: &[&str] = &[
    "model",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "previous_response_id",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "top_logprobs",
    "include",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "user",
    "truncation",
    "background",
    "conversation",
    "prompt",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "keep_alive",
];

/// Understands `POST …/responses`.
pub fn prepare(body: &[u8], history: History<'_>) -> Result<Call, DialectError> {
    let map = json::object(body)?;
    let object = Object::root(&map);
    let model = object.get("model").ok_or_else(|| missing(&Path::Key(&Path::Root, "model")))?;
    let model = openai::model_name(model)?;
    refuse(object)?;
    let stream = object.flag("stream")?.unwrap_or(false);
    let mut fields = Map::new();
    let previous = previous(object, history)?;
    let input = input(object)?;
    fields.insert("messages".into(), messages(object, previous.as_deref(), &input)?.into());
    tools(object, &mut fields)?;
    format(object, &mut fields)?;
    grammar::check(&fields)?;
    let max_tokens = sampling(object, &mut fields)?;
    if stream {
        fields.insert("stream".into(), true.into());
        fields.insert("stream_options".into(), json!({"include_usage": true}));
    }
    let store = object.flag("store")?.unwrap_or(true);
    let answer = Answer { echo: echo(object, store)?, input, previous, store };
    let mut ignored = Vec::new();
    map.keys().filter(|key| !KNOWN.contains(&key.as_str())).for_each(|key| openai::note(&mut ignored, key));
    Ok(Call {
        endpoint: Endpoint::Responses,
        model,
        mode: Mode::Chat,
        stream,
        keep_alive: object.get("keep_alive").map(duration::parse_keep_alive).transpose()?,
        context_size: None,
        action: Action::Run(EngineRequest::from_fields("/v1/chat/completions", stream, max_tokens, &fields)),
        ignored,
        answer: AnyAnswer::Responses(Box::new(answer)),
    })
}

/// What belongs to OpenAI's own service.
fn refuse(object: Object<'_, '_>) -> Result<(), DialectError> {
    if object.flag("background")?.unwrap_or(false) {
        let text = "background responses are not supported: leave background out and stream instead";
        return Err(DialectError::new(ErrorKind::NotSupported, text).with_param("background"));
    }
    for (key, instead) in [("conversation", "previous_response_id"), ("prompt", "instructions and input")] {
        if object.get(key).is_some() {
            let text = format!("{key} is not supported: use {instead}");
            return Err(DialectError::new(ErrorKind::NotSupported, text).with_param(key));
        }
    }
    Ok(())
}

fn previous(object: Object<'_, '_>, history: History<'_>) -> Result<Option<Arc<Stored>>, DialectError> {
    let Some(id) = object.text("previous_response_id")? else { return Ok(None) };
    let shown = json::short(&Value::from(id));
    let Some(stored) = history(id) else {
        let text = format!(
            "previous_response_id {shown} is not known: it was never stored, was deleted, or has made room for newer ones"
        );
        return Err(DialectError::new(ErrorKind::NotFound, text).with_param("previous_response_id"));
    };
    if stored.turns() >= limits::TURNS {
        let text = format!(
            "the conversation behind previous_response_id {shown} has {} turns, the limit is {}",
            stored.turns(),
            limits::TURNS
        );
        return Err(DialectError::invalid("previous_response_id", text));
    }
    Ok(Some(stored))
}

/// The items of this turn, each with an id.
fn input(object: Object<'_, '_>) -> Result<Vec<Value>, DialectError> {
    let at = Path::Key(object.at, "input");
    let mut items = match object.get("input") {
        None => return Err(missing(&at)),
        Some(Value::String(text)) => {
            vec![
                json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}),
            ]
        }
        Some(value @ Value::Array(_)) => json::list(value, &at, limits::MESSAGES)?.to_vec(),
        Some(other) => return Err(wrong(&at, "a string or an array of items", other)),
    };
    if items.is_empty() {
        return Err(DialectError::invalid("input", "input is empty, send at least one item"));
    }
    for (index, item) in items.iter_mut().enumerate() {
        if let Value::Object(map) = item {
            map.entry("id").or_insert_with(|| format!("item_{index}").into());
            map.entry("type").or_insert_with(|| "message".into());
        }
    }
    Ok(items)
}

fn messages(
    object: Object<'_, '_>,
    previous: Option<&Stored>,
    input: &[Value],
) -> Result<Vec<Value>, DialectError> {
    let mut messages = Messages::default();
    if let Some(text) = object.text("instructions")?.filter(|text| !text.is_empty()) {
        messages.system(text);
    }
    let before = previous.map(Stored::conversation).unwrap_or_default();
    let at = Path::Key(object.at, "input");
    let before_at = Path::Key(object.at, "previous_response_id");
    for (index, item) in before.iter().enumerate() {
        messages.item(Object::new(item, &Path::Index(&before_at, index))?)?;
    }
    for (index, item) in input.iter().enumerate() {
        let item_at = Path::Index(&at, index);
        let item = Object::new(item, &item_at)?;
        if item.text("type")? == Some("item_reference") {
            let id = item.need_text("id")?;
            let found = before.iter().copied().chain(input).find(|other| {
                other.get("id").is_some_and(|has| has == id)
                    && other.get("type").is_some_and(|kind| kind != "item_reference")
            });
            let found = found.ok_or_else(|| {
                let text = format!(
                    "{item_at} refers to the item {}, which is not known",
                    json::short(&Value::from(id))
                );
                DialectError::invalid(item_at.to_string(), text)
            })?;
            messages.item(Object::new(found, &item_at)?)?;
        } else {
            messages.item(item)?;
        }
    }
    Ok(messages.finish())
}

fn tools(object: Object<'_, '_>, fields: &mut Map<String, Value>) -> Result<(), DialectError> {
    let at = Path::Key(object.at, "tools");
    if let Some(parallel) = object.flag("parallel_tool_calls")? {
        fields.insert("parallel_tool_calls".into(), parallel.into());
    }
    let choice = choice(object)?;
    let Some(tools) = object.list("tools", limits::TOOLS)?.filter(|tools| !tools.is_empty()) else {
        fields.remove("parallel_tool_calls");
        return Ok(());
    };
    let mut out = Vec::with_capacity(tools.len());
    for (index, item) in tools.iter().enumerate() {
        let at = Path::Index(&at, index);
        let tool = Object::new(item, &at)?;
        let kind = tool.need_text("type")?;
        if kind != "function" {
            let shown = json::short(&Value::from(kind));
            let text = format!(
                "{at}.type is {shown}, a tool of OpenAI's own service: only function tools are supported"
            );
            return Err(DialectError::new(ErrorKind::NotSupported, text).with_param(at.to_string()));
        }
        out.push(function(tool)?);
    }
    fields.insert("tools".into(), choice.narrow(out, openai::tool_name, "tool_choice")?.into());
    fields.insert("tool_choice".into(), choice.word().into());
    Ok(())
}

fn function(tool: Object<'_, '_>) -> Result<Value, DialectError> {
    let name = tool.need_text("name")?;
    if name.is_empty() || name.len() > limits::TOOL_NAME {
        let at = Path::Key(tool.at, "name");
        return Err(wrong(&at, &format!("of 1 to {} bytes", limits::TOOL_NAME), &Value::from(name)));
    }
    let mut function = Map::new();
    function.insert("name".into(), name.into());
    if let Some(text) = tool.text("description")? {
        function.insert("description".into(), text.into());
    }
    let at = Path::Key(tool.at, "parameters");
    let parameters = match tool.get("parameters") {
        None => json!({"type": "object", "properties": {}}),
        Some(value) => {
            Object::new(value, &at)?;
            value.clone()
        }
    };
    function.insert("parameters".into(), parameters);
    Ok(json!({"type": "function", "function": function}))
}

fn choice(object: Object<'_, '_>) -> Result<ToolChoice, DialectError> {
    let at = Path::Key(object.at, "tool_choice");
    let expected = "auto, none, required or an object that names a function";
    let Some(value) = object.get("tool_choice") else { return Ok(ToolChoice::Plain("auto")) };
    if let Some(text) = value.as_str() {
        return ToolChoice::named(text).ok_or_else(|| wrong(&at, expected, value));
    }
    let choice = Object::new(value, &at).map_err(|_| wrong(&at, expected, value))?;
    match choice.need_text("type")? {
        "function" => Ok(ToolChoice::Among(vec![choice.need_text("name")?.to_owned()], true)),
        "allowed_tools" => openai::allowed_tools(choice),
        _ => Err(wrong(&at, expected, value)),
    }
}

/// `text.format`: free text, any JSON, or JSON by a schema.
fn format(object: Object<'_, '_>, fields: &mut Map<String, Value>) -> Result<(), DialectError> {
    let text_at = Path::Key(object.at, "text");
    let Some(text) = object.get("text") else { return Ok(()) };
    let text = Object::new(text, &text_at)?;
    let at = Path::Key(&text_at, "format");
    let Some(format) = text.get("format") else { return Ok(()) };
    let format = Object::new(format, &at)?;
    let out = match format.need_text("type")? {
        "text" => return Ok(()),
        "json_object" => json!({"type": "json_object"}),
        "json_schema" => {
            let schema_at = Path::Key(&at, "schema");
            let schema = format.get("schema").ok_or_else(|| missing(&schema_at))?;
            Object::new(schema, &schema_at)?;
            let name = format.text("name")?.unwrap_or("answer");
            let strict = format.flag("strict")?.unwrap_or(false);
            json!({"type": "json_schema", "json_schema": {"name": name, "strict": strict, "schema": schema}})
        }
        other => {
            let at = Path::Key(&at, "type");
            return Err(wrong(&at, "text, json_object or json_schema", &Value::from(other)));
        }
    };
    fields.insert("response_format".into(), out);
    Ok(())
}

fn sampling(object: Object<'_, '_>, fields: &mut Map<String, Value>) -> Result<Option<u32>, DialectError> {
    if let Some(temperature) = object.number("temperature", 0.0, 10.0)? {
        fields.insert("temperature".into(), temperature.into());
    }
    if let Some(top_p) = object.number("top_p", 0.0, 1.0)? {
        fields.insert("top_p".into(), top_p.into());
    }
    let at = Path::Key(object.at, "reasoning");
    if let Some(value) = object.get("reasoning")
        && let Some(effort) = Object::new(value, &at)?.text("effort")?
    {
        if effort.len() > 32 {
            return Err(wrong(&Path::Key(&at, "effort"), "a short word like low", &Value::from(effort)));
        }
        fields.insert("reasoning_effort".into(), effort.into());
    }
    let top = object.integer("top_logprobs", 0, limits::LOGPROBS)?;
    let include = object.texts("include", 64)?.unwrap_or_default();
    if include.contains(&"message.output_text.logprobs") || top.is_some_and(|top| top > 0) {
        fields.insert("logprobs".into(), true.into());
        // llama-server gives no log probabilities at all where it is to give no alternatives.
        fields.insert("top_logprobs".into(), top.unwrap_or(0).max(1).into());
    }
    let max = object.integer("max_output_tokens", 1, i64::from(i32::MAX))?;
    if let Some(max) = max {
        fields.insert("max_tokens".into(), max.into());
    }
    Ok(max.and_then(|max| u32::try_from(max).ok()))
}

/// The fields of the request that a response repeats, each with its default.
fn echo(object: Object<'_, '_>, store: bool) -> Result<Map<String, Value>, DialectError> {
    let metadata_at = Path::Key(object.at, "metadata");
    if let Some(metadata) = object.get("metadata") {
        Object::new(metadata, &metadata_at)?;
    }
    let defaults = json!({
        "instructions": null,
        "max_output_tokens": null,
        "max_tool_calls": null,
        "metadata": {},
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": null,
    });
    let mut map = match defaults {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    for (key, value) in &mut map {
        if let Some(sent) = object.get(key) {
            *value = sent.clone();
        }
    }
    map.insert("store".into(), store.into());
    map.insert("background".into(), false.into());
    map.insert("service_tier".into(), "default".into());
    Ok(map)
}
