//! Ollama's requests, turned into the engine's.

use serde_json::{Map, Value, json};

use super::super::call::{Action, Answer as AnyAnswer, Call, Endpoint, EngineRequest, KeepAlive, Mode};
use super::super::duration;
use super::super::error::{DialectError, ErrorKind};
use super::super::grammar;
use super::super::json::{self, Object, Path, missing, wrong};
use super::super::limits;
use super::super::openai;
use super::options::{self, Options};
use super::{Answer, Shape, context};

/// Fields that are understood, or that mean nothing here and do no harm.
const KNOWN: &[&str] = &[
    "model",
    "name",
    "messages",
    "prompt",
    "suffix",
    "system",
    "template",
    "context",
    "stream",
    "raw",
    "format",
    "images",
    "options",
    "keep_alive",
    "think",
    "tools",
    "logprobs",
    "top_logprobs",
    "truncate",
    "shift",
    "input",
    "dimensions",
];

/// What all four requests share.
struct Common<'v> {
    object: Object<'v, 'static>,
    model: String,
    keep_alive: Option<KeepAlive>,
    options: Options,
    ignored: Vec<String>,
}

/// Understands a request of one of Ollama's paths.
pub fn prepare(endpoint: Endpoint, body: &[u8]) -> Result<Call, DialectError> {
    let map = json::object(body)?;
    let object = Object::root(&map);
    let model = object.get("model").or_else(|| object.get("name"));
    let model = openai::model_name(model.ok_or_else(|| missing(&Path::Key(&Path::Root, "model")))?)?;
    let keep_alive = object.get("keep_alive").map(duration::parse_keep_alive).transpose()?;
    let mut ignored = Vec::new();
    map.keys().filter(|key| !KNOWN.contains(&key.as_str())).for_each(|key| openai::note(&mut ignored, key));
    let options = options::parse(object, &mut ignored)?;
    let common = Common { object, model, keep_alive, options, ignored };
    match endpoint {
        Endpoint::OllamaChat => chat(common),
        Endpoint::OllamaGenerate => generate(common),
        Endpoint::OllamaEmbed => embed(common, endpoint, "input"),
        _ => embed(common, endpoint, "prompt"),
    }
}

impl Common<'_> {
    fn call(self, endpoint: Endpoint, stream: bool, action: Action, answer: Answer) -> Call {
        let mode = match answer.shape {
            Shape::Embed | Shape::Embeddings => Mode::Embedding,
            Shape::Chat | Shape::Generate => Mode::Chat,
        };
        Call {
            endpoint,
            model: self.model,
            mode,
            stream,
            keep_alive: self.keep_alive,
            context_size: self.options.context_size,
            action,
            ignored: self.ignored,
            answer: AnyAnswer::Ollama(answer),
        }
    }

    /// A request without a prompt loads the model, or unloads it where it shall stay for no time.
    fn without_prompt(self, endpoint: Endpoint, shape: Shape) -> Call {
        let unload = self.keep_alive == Some(KeepAlive::For(std::time::Duration::ZERO));
        let (action, done_reason) = if unload { (Action::Unload, "unload") } else { (Action::Load, "load") };
        self.call(endpoint, false, action, answer(shape, done_reason))
    }

    /// Fields that every generation has.
    fn generation(&self, stream: bool) -> Result<Map<String, Value>, DialectError> {
        let mut fields = self.options.fields.clone();
        if stream {
            fields.insert("stream".into(), true.into());
            fields.insert("stream_options".into(), json!({"include_usage": true}));
        }
        let top = self.object.integer("top_logprobs", 0, limits::LOGPROBS)?.unwrap_or(0);
        if self.object.flag("logprobs")?.unwrap_or(false) {
            fields.insert("logprobs".into(), true.into());
            // llama-server gives no log probabilities at all where it is to give no alternatives.
            fields.insert("top_logprobs".into(), top.max(1).into());
        }
        Ok(fields)
    }
}

fn answer(shape: Shape, done_reason: &'static str) -> Answer {
    Answer { shape, done_reason, turns: None, dimensions: None }
}

fn chat(common: Common<'_>) -> Result<Call, DialectError> {
    let object = common.object;
    let messages = object.list("messages", limits::MESSAGES)?.unwrap_or_default();
    let stream = object.flag("stream")?.unwrap_or(true);
    if messages.is_empty() {
        return Ok(common.without_prompt(Endpoint::OllamaChat, Shape::Chat));
    }
    let mut fields = common.generation(stream)?;
    let at = Path::Key(object.at, "messages");
    let mut out: Vec<Value> = Vec::with_capacity(messages.len());
    for (index, item) in messages.iter().enumerate() {
        let at = Path::Index(&at, index);
        let value = message(Object::new(item, &at)?, &out)?;
        out.push(value);
    }
    fields.insert("messages".into(), out.into());
    let tools_at = Path::Key(object.at, "tools");
    if let Some(tools) = object.list("tools", limits::TOOLS)?.filter(|tools| !tools.is_empty()) {
        let tools: Result<Vec<Value>, _> = tools
            .iter()
            .enumerate()
            .map(|(index, tool)| options::tool(Object::new(tool, &Path::Index(&tools_at, index))?))
            .collect();
        fields.insert("tools".into(), tools?.into());
    }
    options::format(object, &mut fields)?;
    options::think(object, &mut fields)?;
    grammar::check(&fields)?;
    let engine =
        EngineRequest::from_fields("/v1/chat/completions", stream, common.options.max_tokens, &fields);
    Ok(common.call(Endpoint::OllamaChat, stream, Action::Run(engine), answer(Shape::Chat, "stop")))
}

/// One message. `before` tells which call a tool's result belongs to, where the client does not say.
fn message(message: Object<'_, '_>, before: &[Value]) -> Result<Value, DialectError> {
    let role = message.need_text("role")?.to_ascii_lowercase();
    let content = message.text("content")?.unwrap_or("");
    let mut out = Map::new();
    match role.as_str() {
        "system" | "developer" => {
            out.insert("role".into(), "system".into());
            out.insert("content".into(), content.into());
        }
        "user" => {
            out.insert("role".into(), "user".into());
            out.insert("content".into(), with_images(message, content)?);
        }
        "assistant" => {
            out.insert("role".into(), "assistant".into());
            out.insert("content".into(), content.into());
            if let Some(thinking) = message.text("thinking")?.filter(|text| !text.is_empty()) {
                out.insert("reasoning_content".into(), thinking.into());
            }
            if let Some(calls) = tool_calls(message, before)? {
                out.insert("tool_calls".into(), calls);
            }
        }
        "tool" => {
            out.insert("role".into(), "tool".into());
            out.insert("content".into(), content.into());
            let name = message.text("tool_name")?.or(message.text("name")?);
            let id = match message.text("tool_call_id")? {
                Some(id) => id.to_owned(),
                None => call_id(before, name),
            };
            out.insert("tool_call_id".into(), id.into());
            if let Some(name) = name {
                out.insert("name".into(), name.into());
            }
        }
        other => {
            let at = Path::Key(message.at, "role");
            return Err(wrong(&at, "system, user, assistant or tool", &Value::from(other)));
        }
    }
    Ok(out.into())
}

/// Ollama's clients send tool calls without ids; engines' templates need them.
fn tool_calls(message: Object<'_, '_>, before: &[Value]) -> Result<Option<Value>, DialectError> {
    let at = Path::Key(message.at, "tool_calls");
    let Some(calls) = message.list("tool_calls", limits::CALLS)?.filter(|calls| !calls.is_empty()) else {
        return Ok(None);
    };
    let mut out = Vec::with_capacity(calls.len());
    for (index, item) in calls.iter().enumerate() {
        let at = Path::Index(&at, index);
        let call = Object::new(item, &at)?;
        let function_at = Path::Key(&at, "function");
        let function = Object::new(call.get("function").ok_or_else(|| missing(&function_at))?, &function_at)?;
        let arguments = match function.get("arguments") {
            None => "{}".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value @ Value::Object(_)) => value.to_string(),
            Some(other) => return Err(wrong(&Path::Key(&function_at, "arguments"), "an object", other)),
        };
        let id = call.text("id")?.map_or_else(|| format!("call_{}_{index}", before.len()), str::to_owned);
        let function = json!({"name": function.need_text("name")?, "arguments": arguments});
        out.push(json!({"id": id, "type": "function", "function": function}));
    }
    Ok(Some(out.into()))
}

/// The id of the call that a result without one belongs to: by its tool's name, or else in the calls' order.
fn call_id(before: &[Value], name: Option<&str>) -> String {
    let results = before.iter().rev().take_while(|message| message["role"] == "tool").count();
    let calls = before
        .get(before.len().saturating_sub(results + 1))
        .and_then(|message| message.get("tool_calls"))
        .and_then(Value::as_array);
    let by_name = |call: &&Value| name.is_some_and(|name| call["function"]["name"] == name);
    let taken = &before[before.len() - results..];
    let is_free = |call: &&Value| !taken.iter().any(|result| result["tool_call_id"] == call["id"]);
    let call = calls.and_then(|calls| {
        let free = || calls.iter().filter(is_free);
        free().find(by_name).or_else(|| free().next())
    });
    call.and_then(|call| call["id"].as_str()).map_or_else(|| format!("call_{}", before.len()), str::to_owned)
}

fn with_images(object: Object<'_, '_>, text: &str) -> Result<Value, DialectError> {
    let at = Path::Key(object.at, "images");
    let images = object.list("images", limits::PARTS)?.unwrap_or_default();
    if images.is_empty() {
        return Ok(text.into());
    }
    let mut parts = vec![json!({"type": "text", "text": text})];
    for (index, image) in images.iter().enumerate() {
        let at = Path::Index(&at, index);
        let data = image.as_str().ok_or_else(|| wrong(&at, "an image as a base64 string", image))?;
        parts.push(json!({"type": "image_url", "image_url": {"url": image_url(data, &at)?}}));
    }
    Ok(parts.into())
}

/// A data URL; the kind is told by the first bytes, which base64 shows in its first letters.
fn image_url(data: &str, at: &Path<'_>) -> Result<String, DialectError> {
    if data.starts_with("data:") {
        return Ok(data.to_owned());
    }
    openai::check_address(data.as_bytes())?;
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\n' | b'\r');
    if data.is_empty() || !data.bytes().all(allowed) {
        return Err(wrong(at, "an image as a base64 string", &Value::from(data)));
    }
    let kind = match data.get(..4) {
        Some("iVBO") => "png",
        Some("R0lG") => "gif",
        Some("UklG") => "webp",
        _ => "jpeg",
    };
    Ok(format!("data:image/{kind};base64,{data}"))
}

fn generate(common: Common<'_>) -> Result<Call, DialectError> {
    let object = common.object;
    let prompt = object.text("prompt")?.unwrap_or("");
    let suffix = object.text("suffix")?.unwrap_or("");
    let stream = object.flag("stream")?.unwrap_or(true);
    let raw = object.flag("raw")?.unwrap_or(false);
    let system = object.text("system")?.unwrap_or("");
    if !object.text("template")?.unwrap_or("").is_empty() {
        let text = "template is not supported: the model's own chat template is used; send raw: true with a prompt \
                    that you have rendered yourself";
        return Err(DialectError::new(ErrorKind::NotSupported, text).with_param("template"));
    }
    if raw && (!system.is_empty() || object.get("context").is_some()) {
        let text = "raw: true takes the prompt as it is and cannot be combined with system or context";
        return Err(DialectError::invalid("raw", text));
    }
    let images = object.list("images", limits::PARTS)?.unwrap_or_default();
    if prompt.is_empty() && suffix.is_empty() && images.is_empty() {
        return Ok(common.without_prompt(Endpoint::OllamaGenerate, Shape::Generate));
    }
    let mut fields = common.generation(stream)?;
    let mut answer = answer(Shape::Generate, "stop");
    let path = if !suffix.is_empty() {
        fields.insert("input_prefix".into(), prompt.into());
        fields.insert("input_suffix".into(), suffix.into());
        "/infill"
    } else if raw {
        fields.insert("prompt".into(), prompt.into());
        // Text completions count with `logprobs` what chat counts with `top_logprobs`.
        if let Some(top) = fields.remove("top_logprobs") {
            fields.insert("logprobs".into(), top);
        }
        options::raw_format(object, &mut fields)?;
        "/v1/completions"
    } else {
        let mut turns = match object.get("context") {
            Some(value) => context::decode(value)?,
            None => Vec::new(),
        };
        if !system.is_empty() {
            turns.retain(|turn| turn["role"] != "system");
            turns.insert(0, json!({"role": "system", "content": system}));
        }
        let mut messages = turns.clone();
        turns.push(json!({"role": "user", "content": prompt}));
        messages.push(json!({"role": "user", "content": with_images(object, prompt)?}));
        fields.insert("messages".into(), messages.into());
        answer.turns = Some(turns);
        options::format(object, &mut fields)?;
        options::think(object, &mut fields)?;
        "/v1/chat/completions"
    };
    grammar::check(&fields)?;
    let engine = EngineRequest::from_fields(path, stream, common.options.max_tokens, &fields);
    Ok(common.call(Endpoint::OllamaGenerate, stream, Action::Run(engine), answer))
}

fn embed(common: Common<'_>, endpoint: Endpoint, key: &str) -> Result<Call, DialectError> {
    let object = common.object;
    let dimensions = object.integer("dimensions", 0, 65_536)?.filter(|number| *number > 0);
    let shape = if key == "input" { Shape::Embed } else { Shape::Embeddings };
    let texts = match shape {
        Shape::Embed => object.texts(key, limits::TEXTS)?.unwrap_or_default(),
        _ => object.text(key)?.into_iter().collect(),
    };
    if texts.iter().all(|text| text.is_empty()) && texts.len() <= 1 {
        return Ok(common.without_prompt(endpoint, shape));
    }
    let mut fields = Map::new();
    fields.insert("input".into(), texts.into());
    fields.insert("encoding_format".into(), "float".into());
    let engine = EngineRequest::from_fields("/v1/embeddings", false, None, &fields);
    let mut answer = answer(shape, "stop");
    answer.dimensions = dimensions.and_then(|number| usize::try_from(number).ok());
    Ok(common.call(endpoint, false, Action::Run(engine), answer))
}
