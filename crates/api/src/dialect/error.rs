//! Errors of a request, whose fault they are, and how each dialect writes them.

use std::time::Duration;

use serde_json::{Value, json};

use super::Dialect;
use super::json::excerpt;

/// What went wrong, sorted by whose fault it is and what the caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be meant like that.
    InvalidRequest,
    /// The prompt does not fit into the model's context.
    ContextLength,
    /// A key is missing or wrong.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// There is no such path or object.
    NotFound,
    /// There is no such model.
    ModelNotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The body is too long.
    TooLarge,
    /// The caller's queue is full; `retry_after` says when to come back.
    QueueFull,
    /// The model or the engine cannot do this.
    NotSupported,
    /// The object is in use.
    Conflict,
    /// The model could not be loaded.
    LoadFailed,
    /// The engine failed or ended while it answered.
    EngineFailed,
    /// The daemon is going down or cannot serve now.
    Unavailable,
    /// A deadline passed.
    Timeout,
    /// A fault of ours.
    Internal,
}

/// One clear sentence for the caller, with the kind that decides status and type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DialectError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The sentence: the value, the limit, and what to do.
    pub message: String,
    /// Path of the field at fault, as in `messages[2].content`.
    pub param: Option<String>,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

impl DialectError {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, retry_after: None }
    }

    /// An invalid request whose fault is in the field at `param`.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message).with_param(param)
    }

    /// Names the field at fault.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Says when it is worth trying again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// HTTP status of this error in `dialect`.
    pub fn status(&self, dialect: Dialect) -> u16 {
        match self.kind {
            // 501 would be honest for NotSupported, but SDKs retry every 5xx.
            ErrorKind::InvalidRequest | ErrorKind::ContextLength | ErrorKind::NotSupported => 400,
            ErrorKind::Unauthorized => 401,
            ErrorKind::Forbidden => 403,
            ErrorKind::NotFound | ErrorKind::ModelNotFound => 404,
            ErrorKind::MethodNotAllowed => 405,
            ErrorKind::Conflict => 409,
            ErrorKind::TooLarge => 413,
            ErrorKind::QueueFull => 429,
            ErrorKind::LoadFailed | ErrorKind::Internal => 500,
            ErrorKind::EngineFailed => 502,
            ErrorKind::Unavailable if dialect == Dialect::Anthropic => 529,
            ErrorKind::Unavailable => 503,
            ErrorKind::Timeout => 504,
        }
    }

    /// The JSON body of this error in `dialect`.
    pub fn render(&self, dialect: Dialect, request_id: &str) -> Vec<u8> {
        self.value(dialect, request_id).to_string().into_bytes()
    }

    /// The same as a JSON value.
    pub(super) fn value(&self, dialect: Dialect, request_id: &str) -> Value {
        match dialect {
            Dialect::OpenAi => json!({"error": self.openai()}),
            Dialect::Anthropic => json!({
                "type": "error",
                "error": {"type": self.anthropic_type(), "message": self.message},
                "request_id": request_id,
            }),
            Dialect::Ollama => json!({"error": self.message}),
        }
    }

    fn openai(&self) -> Value {
        json!({
            "message": self.message,
            "type": self.openai_type(),
            "param": self.param,
            "code": self.openai_code(),
        })
    }

    fn openai_type(&self) -> &'static str {
        match self.kind {
            ErrorKind::Unauthorized => "authentication_error",
            ErrorKind::Forbidden => "permission_error",
            ErrorKind::QueueFull => "rate_limit_error",
            ErrorKind::LoadFailed
            | ErrorKind::EngineFailed
            | ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Internal => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// OpenAI's `code`, which the Responses API also uses in a failed response.
    pub(super) fn openai_code(&self) -> Option<&'static str> {
        Some(match self.kind {
            ErrorKind::InvalidRequest => return None,
            ErrorKind::ContextLength => "context_length_exceeded",
            ErrorKind::Unauthorized => "invalid_api_key",
            ErrorKind::Forbidden => "forbidden",
            ErrorKind::NotFound => "not_found",
            ErrorKind::ModelNotFound => "model_not_found",
            ErrorKind::MethodNotAllowed => "method_not_allowed",
            ErrorKind::TooLarge => "request_too_large",
            ErrorKind::QueueFull => "rate_limit_exceeded",
            ErrorKind::NotSupported => "not_supported",
            ErrorKind::Conflict => "conflict",
            ErrorKind::LoadFailed => "model_load_failed",
            ErrorKind::EngineFailed => "engine_failed",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Internal => "internal_error",
        })
    }

    fn anthropic_type(&self) -> &'static str {
        match self.kind {
            ErrorKind::InvalidRequest
            | ErrorKind::ContextLength
            | ErrorKind::NotSupported
            | ErrorKind::MethodNotAllowed
            | ErrorKind::Conflict => "invalid_request_error",
            ErrorKind::Unauthorized => "authentication_error",
            ErrorKind::Forbidden => "permission_error",
            ErrorKind::NotFound | ErrorKind::ModelNotFound => "not_found_error",
            ErrorKind::TooLarge => "request_too_large",
            ErrorKind::QueueFull => "rate_limit_error",
            ErrorKind::Unavailable => "overloaded_error",
            ErrorKind::Timeout => "timeout_error",
            ErrorKind::LoadFailed | ErrorKind::EngineFailed | ErrorKind::Internal => "api_error",
        }
    }
}

/// Reads an engine's error answer; `status` is its HTTP status, or 500 for an error inside a stream.
pub(super) fn from_engine(status: u16, body: &[u8]) -> DialectError {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let error = match value.get("error") {
        Some(inner) if !inner.is_null() => inner,
        _ => &value,
    };
    let stated = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let status = stated.filter(|code| (400..600).contains(code)).unwrap_or(status);
    let text = [error.get("message"), error.get("detail"), Some(error)]
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .find(|text| !text.trim().is_empty())
        .map_or_else(|| format!("the engine answered {status}: {}", excerpt(body, 200)), shorten);
    let named = error.get("type").and_then(Value::as_str).unwrap_or("");
    DialectError::new(engine_kind(status, named, &text), text)
}

fn engine_kind(status: u16, named: &str, text: &str) -> ErrorKind {
    // llama-server answers 500 where a model lacks an input kind; a retry cannot help there.
    if named == "not_supported_error"
        || text.contains("is not supported")
        || text.contains("does not support")
    {
        return ErrorKind::NotSupported;
    }
    // A text that is embedded or ranked has to fit into one batch, which is as large as the context.
    if named == "exceed_context_size_error"
        || text.contains("maximum context length")
        || text.contains("is too large to process")
    {
        return ErrorKind::ContextLength;
    }
    let blames_messages =
        ["Failed to parse messages", "Failed to parse tools", "Failed to parse tool call arguments"];
    if text.contains("Invalid base64") || blames_messages.iter().any(|words| text.starts_with(words)) {
        return ErrorKind::InvalidRequest;
    }
    match status {
        413 => ErrorKind::TooLarge,
        501 => ErrorKind::NotSupported,
        503 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::InvalidRequest,
        _ => ErrorKind::EngineFailed,
    }
}

fn shorten(text: &str) -> String {
    const MAX: usize = 2000;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
