//! OpenAI's dialect, which engines speak too: bodies are split into fields and passed on nearly verbatim.

mod embed;
mod fields;
mod lists;
mod logprobs;
mod names;
mod rank;
mod reply;
mod stream;
mod tools;

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

pub(super) use embed::{cut, vectors};
pub(super) use fields::stop as check_stop;
pub use lists::{model, models};
pub(super) use names::check_address;
pub(super) use reply::reply;
pub(super) use stream::Stream;
pub(super) use tools::{Choice as ToolChoice, allowed as allowed_tools, tool_name};

use super::adapters;
use super::call::{Action, Answer as AnyAnswer, Call, Endpoint, EngineRequest, KeepAlive, Mode};
use super::error::{DialectError, ErrorKind};
use super::json::{self, Path, missing, whole, wrong};
use super::{duration, limits};
use fields::{Rule, Table};

/// What an answer needs to know about its request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The caller asked for a chunk with `usage` at the end of the stream.
    pub(super) include_usage: bool,
    /// How embeddings are to be handed out.
    pub(super) embedding: embed::Format,
    /// Text completions: log probabilities are wanted in the shape of that old path.
    pub(super) text_logprobs: bool,
    /// Rerank and score: what to make of the engine's ranking.
    pub(super) ranking: Option<rank::Shape>,
}

/// Understands a request of one of OpenAI's paths.
pub(super) fn prepare(endpoint: Endpoint, body: &[u8]) -> Result<Call, DialectError> {
    match endpoint {
        Endpoint::Rerank | Endpoint::Score => rank::prepare(endpoint, body),
        Endpoint::Embeddings => embed::prepare(body),
        Endpoint::Completions => completions(endpoint, body, Table::Text, "/v1/completions"),
        _ => completions(endpoint, body, Table::Chat, "/v1/chat/completions"),
    }
}

/// A field that a client may send.
struct Known<'a> {
    name: Cow<'a, str>,
    raw: &'a RawValue,
    rule: Rule,
}

/// A body while it is being taken apart.
struct Request<'a> {
    fields: Vec<Known<'a>>,
    tail: Vec<u8>,
    ignored: Vec<String>,
}

impl<'a> Request<'a> {
    /// Splits a body, drops what nobody may send, and holds the rest against its rules.
    fn new(body: &'a [u8], table: Table) -> Result<Self, DialectError> {
        let all = json::fields(body)?;
        let (mut fields, mut ignored) = (Vec::with_capacity(all.len()), Vec::new());
        for (name, raw) in all {
            match table.rule(&name) {
                None => note(&mut ignored, &name),
                Some(_) if raw.get() == "null" => {}
                Some(rule) => {
                    fields::obey(&name, rule, raw)?;
                    fields.push(Known { name, raw, rule });
                }
            }
        }
        Ok(Self { fields, tail: Vec::with_capacity(body.len() + 64), ignored })
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.fields.iter().find(|field| field.name == name).map(|field| field.raw)
    }

    fn need(&self, name: &str) -> Result<&'a RawValue, DialectError> {
        self.get(name).ok_or_else(|| missing(&Path::Key(&Path::Root, name)))
    }

    fn model(&self) -> Result<String, DialectError> {
        model_name(&fields::value(self.need("model")?))
    }

    fn keep_alive(&self) -> Result<Option<KeepAlive>, DialectError> {
        self.get("keep_alive").map(|raw| duration::parse_keep_alive(&fields::value(raw))).transpose()
    }

    /// Copies all fields whose meaning is the engine's own.
    fn copy_plain(&mut self) {
        for field in &self.fields {
            if !matches!(field.rule, Rule::Own | Rule::Silent) {
                put(&mut self.tail, &field.name, field.raw.get());
            }
        }
    }

    fn copy(&mut self, name: &str) {
        if let Some(raw) = self.get(name) {
            put(&mut self.tail, name, raw.get());
        }
    }
}

/// Remembers a dropped field, within bounds and in printable ASCII, so that it can be told in a header.
pub(super) fn note(ignored: &mut Vec<String>, name: &str) {
    if ignored.len() < 16 {
        ignored.push(name.chars().filter(|c| c.is_ascii_graphic() && *c != ',').take(64).collect());
    }
}

fn put(tail: &mut Vec<u8>, name: &str, json: &str) {
    tail.extend_from_slice(b",\"");
    tail.extend_from_slice(name.as_bytes());
    tail.extend_from_slice(b"\":");
    tail.extend_from_slice(json.as_bytes());
}

/// A model's name, within bounds.
pub(super) fn model_name(value: &Value) -> Result<String, DialectError> {
    let at = Path::Key(&Path::Root, "model");
    match value.as_str() {
        Some("") => Err(DialectError::invalid("model", "model is empty, name a model")),
        Some(name) if name.len() > limits::MODEL => {
            let text = format!("model is {} bytes long, the limit is {} bytes", name.len(), limits::MODEL);
            Err(DialectError::invalid("model", text))
        }
        Some(name) => Ok(name.to_owned()),
        None => Err(wrong(&at, "a string", value)),
    }
}

/// Chat and text completions.
fn completions(
    endpoint: Endpoint,
    body: &[u8],
    table: Table,
    path: &'static str,
) -> Result<Call, DialectError> {
    let mut request = Request::new(body, table)?;
    let model = request.model()?;
    let keep_alive = request.keep_alive()?;
    let stream = flag(&request, "stream")?;
    let include_usage = include_usage(&request)?;
    let max_tokens = max_tokens(&request)?;
    let adapters =
        request.get(adapters::FIELD).map(|raw| adapters::parse(&fields::value(raw))).transpose()?;
    if let Some(raw) = request.get("response_format") {
        check_format(&fields::value(raw))?;
    }
    let text_logprobs =
        matches!(table, Table::Text) && request.get("logprobs").is_some_and(|raw| raw.get() != "0");
    request.copy_plain();
    match table {
        Table::Chat => chat(&mut request)?,
        _ => text(&mut request)?,
    }
    if let Some(max) = max_tokens {
        put(&mut request.tail, "max_tokens", &max.to_string());
    }
    if stream {
        // Always counted: the caller may not ask, but usage is accounted for.
        put(&mut request.tail, "stream", "true");
        put(&mut request.tail, "stream_options", "{\"include_usage\":true}");
    }
    request.tail.push(b'}');
    let mut engine = EngineRequest::from_tail(path, stream, max_tokens, request.tail);
    engine.adapters = adapters;
    Ok(Call {
        endpoint,
        model,
        mode: Mode::Chat,
        stream,
        keep_alive,
        context_size: None,
        action: Action::Run(engine),
        ignored: request.ignored,
        answer: AnyAnswer::OpenAi(Answer { include_usage, text_logprobs, ..Answer::default() }),
    })
}

/// A schema that is asked for has to be there: engines answer with any JSON where it is not.
fn check_format(value: &Value) -> Result<(), DialectError> {
    let at = Path::Key(&Path::Root, "response_format");
    let format = json::Object::new(value, &at)?;
    if format.need_text("type")? != "json_schema" {
        return Ok(());
    }
    let at = Path::Key(&at, "json_schema");
    let holder = format.get("json_schema").ok_or_else(|| missing(&at))?;
    let holder = json::Object::new(holder, &at)?;
    let at = Path::Key(&at, "schema");
    let schema = holder.get("schema").ok_or_else(|| missing(&at))?;
    match schema {
        Value::Object(_) | Value::Bool(_) => Ok(()),
        other => Err(wrong(&at, "a JSON schema", other)),
    }
}

/// The conversation and its tools.
fn chat(request: &mut Request<'_>) -> Result<(), DialectError> {
    let messages = request.need("messages")?;
    let at = Path::Key(&Path::Root, "messages");
    match json::count(messages) {
        None => return Err(wrong(&at, "an array of messages", &fields::value(messages))),
        Some(0) => {
            return Err(DialectError::invalid("messages", "messages is empty, send at least one message"));
        }
        Some(count) if count > limits::MESSAGES => {
            let text = format!("messages has {count} elements, the limit is {}", limits::MESSAGES);
            return Err(DialectError::invalid("messages", text));
        }
        Some(_) => {}
    }
    names::check_media(messages)?;
    request.copy("messages");
    logprobs(request)?;
    tools::copy(request)
}

/// Log probabilities. llama-server gives none where no alternatives are asked for, and twenty where nothing is said.
fn logprobs(request: &mut Request<'_>) -> Result<(), DialectError> {
    let mut top = 1;
    if let Some(raw) = request.get("top_logprobs") {
        fields::obey("top_logprobs", Rule::Int(0, limits::LOGPROBS), raw)?;
        top = whole(&fields::value(raw)).unwrap_or(1).max(1);
    }
    if flag(request, "logprobs")? {
        put(&mut request.tail, "logprobs", "true");
        put(&mut request.tail, "top_logprobs", &top.to_string());
    } else if top > 1 {
        let text = format!("top_logprobs is {top}, which needs logprobs to be true");
        return Err(DialectError::invalid("top_logprobs", text));
    }
    Ok(())
}

/// A prompt and what belongs to it.
fn text(request: &mut Request<'_>) -> Result<(), DialectError> {
    let prompt = request.need("prompt")?;
    // An array holds several prompts or the tokens of one; only prompts are tasks of their own.
    let texts = json::count(prompt).unwrap_or(1);
    if texts > limits::TEXTS && prompt.get().bytes().any(|byte| matches!(byte, b'"' | b'{')) {
        let text = format!("prompt has {texts} elements, the limit is {}", limits::TEXTS);
        return Err(DialectError::invalid("prompt", text));
    }
    if request.get("suffix").is_some_and(|raw| raw.get() != "\"\"") {
        let text = "suffix is not supported here: ask POST /api/generate, which takes prompt and suffix";
        return Err(DialectError::new(ErrorKind::NotSupported, text).with_param("suffix"));
    }
    if flag(request, "echo")? {
        let text = "echo is not supported here: put the prompt before the answer yourself";
        return Err(DialectError::new(ErrorKind::NotSupported, text).with_param("echo"));
    }
    if let Some(raw) = request.get("best_of") {
        let choices = request.get("n").and_then(|raw| whole(&fields::value(raw))).unwrap_or(1);
        let best_of = fields::value(raw);
        if whole(&best_of) != Some(choices) {
            let text =
                format!("best_of must be the same as n, which is {choices}, got {}", json::short(&best_of));
            return Err(DialectError::new(ErrorKind::NotSupported, text).with_param("best_of"));
        }
    }
    request.copy("prompt");
    Ok(())
}

fn flag(request: &Request<'_>, name: &str) -> Result<bool, DialectError> {
    let Some(raw) = request.get(name) else { return Ok(false) };
    fields::obey(name, Rule::Flag, raw)?;
    Ok(raw.get() == "true")
}

fn include_usage(request: &Request<'_>) -> Result<bool, DialectError> {
    let Some(raw) = request.get("stream_options") else { return Ok(false) };
    let options = fields::value(raw);
    let at = Path::Key(&Path::Root, "stream_options");
    Ok(json::Object::new(&options, &at)?.flag("include_usage")?.unwrap_or(false))
}

/// The most tokens that the caller wants; -1 is what llama.cpp's clients send for "no limit".
fn max_tokens(request: &Request<'_>) -> Result<Option<u32>, DialectError> {
    for name in ["max_completion_tokens", "max_tokens", "n_predict"] {
        let Some(raw) = request.get(name) else { continue };
        fields::obey(name, Rule::Int(-1, i64::from(i32::MAX)), raw)?;
        return Ok(whole(&fields::value(raw)).and_then(|number| u32::try_from(number).ok()));
    }
    Ok(None)
}
