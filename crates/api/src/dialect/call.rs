//! One request on its way through a dialect: what the caller asked, what the engine gets, how to answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::chunk::Usage;
use super::error::{self, DialectError};
use super::responses::{self, Stored};
use super::stream::StreamTranslator;
use super::{adapters, anthropic, ollama, openai, pictures};

/// The family of clients that a path serves; it decides the shape of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat, completions, embeddings, rerank, models and Responses.
    OpenAi,
    /// Anthropic's messages.
    Anthropic,
    /// Ollama's `/api`.
    Ollama,
}

/// The operations that need an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST …/v1/chat/completions`
    ChatCompletions,
    /// `POST …/v1/completions`
    Completions,
    /// `POST …/v1/embeddings`
    Embeddings,
    /// `POST …/rerank`
    Rerank,
    /// `POST …/score`
    Score,
    /// `POST …/responses`
    Responses,
    /// `POST …/v1/messages`
    Messages,
    /// `POST …/v1/messages/count_tokens`
    CountTokens,
    /// `POST /api/chat`
    OllamaChat,
    /// `POST /api/generate`
    OllamaGenerate,
    /// `POST /api/embed`
    OllamaEmbed,
    /// `POST /api/embeddings`
    OllamaEmbeddings,
}

impl Endpoint {
    /// The dialect that this endpoint speaks.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed | Self::OllamaEmbeddings => {
                Dialect::Ollama
            }
            _ => Dialect::OpenAi,
        }
    }
}

/// What a model is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Write text.
    Chat,
    /// Turn text into vectors.
    Embedding,
    /// Score texts against a query.
    Rerank,
}

/// How long a model stays loaded after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// Until somebody unloads it.
    Forever,
    /// For so long without use; zero unloads at once.
    For(Duration),
}

/// A request that has been understood.
#[derive(Debug)]
pub struct Call {
    /// Where it came in.
    pub endpoint: Endpoint,
    /// The model's name as the caller wrote it.
    pub model: String,
    /// What the model has to be able to do.
    pub mode: Mode,
    /// Whether the caller wants a stream.
    pub stream: bool,
    /// How long the caller wants the model to stay loaded.
    pub keep_alive: Option<KeepAlive>,
    /// The context size in tokens that the caller wants the model loaded with.
    pub context_size: Option<u32>,
    /// What is to be done.
    pub action: Action,
    /// Fields that were left out because no client may set them or nobody knows them.
    pub ignored: Vec<String>,
    pub(super) answer: Answer,
}

/// What is to be done for a request.
#[derive(Debug)]
pub enum Action {
    /// Ask the engine.
    Run(EngineRequest),
    /// Load the model, then give [`Call::immediate`].
    Load,
    /// Unload the model, then give [`Call::immediate`].
    Unload,
}

/// What an answer needs to know about its request.
#[derive(Debug)]
pub(super) enum Answer {
    OpenAi(openai::Answer),
    Anthropic(anthropic::Answer),
    Ollama(ollama::Answer),
    Responses(Box<responses::Answer>),
}

/// A request to an engine, without the engine's name for its model.
#[derive(Debug)]
pub struct EngineRequest {
    /// The engine's path.
    pub path: &'static str,
    /// Whether the engine answers with a stream.
    pub stream: bool,
    /// Most tokens that the caller wants.
    pub max_tokens: Option<u32>,
    /// Bytes of the request, as a hint of what it costs.
    pub prompt_bytes: usize,
    /// What to ask where the engine does not know `path` (404, 405 or 501).
    pub fallback: Option<Box<EngineRequest>>,
    /// The adapters that the caller chose; `None` where nothing was said of them.
    pub(super) adapters: Option<Vec<adapters::Choice>>,
    /// Everything behind the model: `,"messages":[…]}`
    tail: Vec<u8>,
}

impl EngineRequest {
    /// A request whose body is `tail` behind the model's name; `tail` is `,"key":value…}` or `}`.
    pub(super) fn from_tail(
        path: &'static str,
        stream: bool,
        max_tokens: Option<u32>,
        tail: Vec<u8>,
    ) -> Self {
        Self { path, stream, max_tokens, prompt_bytes: tail.len(), fallback: None, adapters: None, tail }
    }

    /// A request with `fields` as its body, which holds no model.
    pub(super) fn from_fields(
        path: &'static str,
        stream: bool,
        max_tokens: Option<u32>,
        fields: &serde_json::Map<String, Value>,
    ) -> Self {
        let mut tail = Vec::with_capacity(1024);
        for (key, value) in fields {
            tail.extend_from_slice(b",");
            tail.extend_from_slice(Value::from(key.as_str()).to_string().as_bytes());
            tail.push(b':');
            tail.extend_from_slice(value.to_string().as_bytes());
        }
        tail.push(b'}');
        Self::from_tail(path, stream, max_tokens, tail)
    }

    /// The body. `engine_model` is the name by which the *engine* knows its model, never the caller's string:
    /// some engines load whatever that field names.
    pub fn body(&self, engine_model: &str) -> Vec<u8> {
        let name = Value::from(engine_model).to_string();
        let mut body = Vec::with_capacity(self.tail.len() + name.len() + 9);
        body.extend_from_slice(b"{\"model\":");
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&self.tail);
        body
    }

    /// The body for a model with adapters, whose usual scales are given: an answer is made with those that the
    /// request chose, or else with these, and the body says all of them.
    ///
    /// # Errors
    /// The request chose an adapter that the model lacks.
    pub fn adapted_body(&self, engine_model: &str, usual: &[f64]) -> Result<Vec<u8>, DialectError> {
        let scales = adapters::scales(self.adapters.as_deref(), usual)?;
        let mut body = self.body(engine_model);
        if !scales.is_empty() && matches!(self.path, "/v1/chat/completions" | "/v1/completions" | "/infill") {
            let entries = scales.iter().enumerate().map(|(id, scale)| json!({ "id": id, "scale": scale }));
            body.truncate(body.len() - 1);
            body.extend_from_slice(
                format!(",\"{}\":{}}}", adapters::FIELD, Value::from_iter(entries)).as_bytes(),
            );
        }
        Ok(body)
    }
}

/// What only the server knows about a request.
#[derive(Debug, Clone)]
pub struct Meta {
    /// Unique, of letters, digits, `-` and `_`: ids in answers are made of it.
    pub request_id: String,
    /// When the request came in.
    pub started: SystemTime,
    /// How long it waited for the model to load; zero where it was loaded.
    pub load: Duration,
}

impl Meta {
    /// Seconds since 1970 when the request came in.
    pub(super) fn created(&self) -> u64 {
        self.started.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// The bytes for the caller.
    pub body: Vec<u8>,
    /// Their type.
    pub content_type: &'static str,
    /// What it cost.
    pub usage: Usage,
    /// A response that later ones may continue.
    pub stored: Option<Stored>,
}

impl Reply {
    pub(super) fn json(value: &Value, usage: Usage) -> Self {
        Self { body: value.to_string().into_bytes(), content_type: JSON, usage, stored: None }
    }
}

pub(super) const JSON: &str = "application/json";
pub(super) const SSE: &str = "text/event-stream";
pub(super) const NDJSON: &str = "application/x-ndjson";

/// Finds an earlier answer of the same caller.
pub type History<'a> = &'a dyn Fn(&str) -> Option<Arc<Stored>>;

/// A [`History`] without any answers.
pub fn no_history(_: &str) -> Option<Arc<Stored>> {
    None
}

/// Understands a request.
///
/// # Errors
/// The first thing in it that cannot be right, as one sentence with its value and limit.
pub fn prepare(endpoint: Endpoint, body: &[u8], history: History<'_>) -> Result<Call, DialectError> {
    let call = understood(endpoint, body, history)?;
    if let Action::Run(request) = &call.action
        && pictures::possible(&request.tail)
    {
        pictures::check(&request.body(""))?;
    }
    Ok(call)
}

fn understood(endpoint: Endpoint, body: &[u8], history: History<'_>) -> Result<Call, DialectError> {
    match endpoint {
        Endpoint::ChatCompletions
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Rerank
        | Endpoint::Score => openai::prepare(endpoint, body),
        Endpoint::Messages | Endpoint::CountTokens => anthropic::prepare(endpoint, body),
        Endpoint::Responses => responses::prepare(body, history),
        Endpoint::OllamaChat
        | Endpoint::OllamaGenerate
        | Endpoint::OllamaEmbed
        | Endpoint::OllamaEmbeddings => ollama::prepare(endpoint, body),
    }
}

impl Call {
    /// Content type of the successful answer.
    pub fn content_type(&self) -> &'static str {
        match (self.stream, self.endpoint.dialect()) {
            (false, _) => JSON,
            (true, Dialect::Ollama) => NDJSON,
            (true, _) => SSE,
        }
    }

    /// The translator for a streamed answer.
    pub fn translator(&self, meta: &Meta) -> StreamTranslator {
        StreamTranslator::new(self, meta)
    }

    /// Translates a whole answer of the engine; `elapsed` counts from [`Meta::started`].
    ///
    /// # Errors
    /// The engine's own error where `status` is not 2xx, and [`super::ErrorKind::EngineFailed`] where its answer is
    /// not one.
    pub fn reply(
        &self,
        meta: &Meta,
        elapsed: Duration,
        status: u16,
        body: &[u8],
    ) -> Result<Reply, DialectError> {
        if !(200..300).contains(&status) {
            return Err(error::from_engine(status, body));
        }
        match &self.answer {
            Answer::OpenAi(answer) => openai::reply(self, answer, body),
            Answer::Anthropic(answer) => anthropic::reply(self, answer, meta, body),
            Answer::Ollama(answer) => ollama::reply(self, answer, meta, elapsed, body),
            Answer::Responses(answer) => responses::reply(self, answer, meta, elapsed, body),
        }
    }

    /// The answer of a request that only loads or unloads a model.
    pub fn immediate(&self, meta: &Meta, elapsed: Duration) -> Reply {
        ollama::immediate(self, meta, elapsed)
    }
}
