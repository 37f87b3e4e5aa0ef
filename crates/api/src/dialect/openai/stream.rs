//! Passing an engine's stream through: bytes stay as they are but for the model's name, and usage is read in passing.

use std::sync::LazyLock;
use std::time::Duration;

use memchr::memmem::Finder;
use serde_json::Value;

use super::super::call::{Call, Dialect};
use super::super::chunk;
use super::super::error::{self, DialectError, ErrorKind};
use super::super::json::excerpt;
use super::super::sse;
use super::super::stream::State;
use super::logprobs::Legacy;
use super::{Answer, names};

/// What a chunk says of the work done.
static COUNTS: LazyLock<[Finder<'static>; 2]> =
    LazyLock::new(|| ["\"usage\"", "\"timings\""].map(Finder::new));

/// Where a chunk holds a piece of an answer: text, reasoning or a tool call.
static PIECES: LazyLock<[Finder<'static>; 5]> = LazyLock::new(|| {
    ["\"content\"", "\"text\"", "\"reasoning_content\"", "\"reasoning\"", "\"tool_calls\""].map(Finder::new)
});

static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"finish_reason\""));

/// The stream of a chat or text completion.
#[derive(Debug)]
pub struct Stream {
    /// The name the caller used, as JSON.
    model: Vec<u8>,
    include_usage: bool,
    /// Log probabilities have to be turned into the shape of text completions.
    logprobs: Option<Legacy>,
}

impl Stream {
    pub fn new(call: &Call, answer: &Answer) -> Self {
        let model = Value::from(call.model.as_str()).to_string().into_bytes();
        let logprobs = answer.text_logprobs.then(Legacy::default);
        Self { model, include_usage: answer.include_usage, logprobs }
    }

    /// Passes one event on.
    pub fn event(
        &mut self,
        state: &mut State,
        elapsed: Duration,
        raw: &[u8],
        data: &[u8],
        out: &mut Vec<u8>,
    ) {
        if data.is_empty() {
            // Comments keep the line alive; what else has no data means nothing.
            if raw.starts_with(b":") {
                out.extend_from_slice(raw);
            }
            return;
        }
        // What llama-server begins with where there are several prompts.
        if data == b"null" {
            return;
        }
        if data == b"[DONE]" {
            self.close(out);
            state.ended = true;
            return;
        }
        if data.starts_with(b"{\"error\"") || data.starts_with(b"{\"object\":\"error\"") {
            let error = error::from_engine(500, data);
            self.fail(&error, out);
            state.failed = Some(error.message);
            state.ended = true;
            return;
        }
        if data.first() != Some(&b'{') {
            let shown = excerpt(data, 80);
            let error = DialectError::new(
                ErrorKind::EngineFailed,
                format!("the engine sent {shown:?}, which is no chunk"),
            );
            self.fail(&error, out);
            state.failed = Some(error.message);
            state.ended = true;
            return;
        }
        self.chunk(state, elapsed, raw, data, out);
    }

    fn chunk(&mut self, state: &mut State, elapsed: Duration, raw: &[u8], data: &[u8], out: &mut Vec<u8>) {
        if COUNTS.iter().any(|key| key.find(data).is_some()) {
            match chunk::parse(data) {
                Ok(chunk) => {
                    state.usage.update(&chunk);
                    if chunk.choices.is_empty() && chunk.usage.is_some() && !self.include_usage {
                        return;
                    }
                }
                Err(error) => log::debug!("a chunk of the engine does not parse, it is passed on: {error}"),
            }
        }
        if PIECES.iter().any(|key| has_value(data, key)) {
            state.token(elapsed);
        }
        if has_value(data, &FINISH) {
            state.finished = true;
        }
        match self.logprobs.as_mut().and_then(|legacy| legacy.event(data)) {
            Some(changed) => names::rename(&changed, &self.model, out),
            None => names::rename(raw, &self.model, out),
        }
    }

    pub fn fail(&self, error: &DialectError, out: &mut Vec<u8>) {
        sse::write(out, &error.value(Dialect::OpenAi, ""));
    }

    pub fn close(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// Whether `key` is there with a value other than `null` and `""`.
fn has_value(data: &[u8], key: &Finder<'_>) -> bool {
    let Some(found) = key.find(data) else { return false };
    let rest = data[found + key.needle().len()..].trim_ascii_start();
    let Some(value) = rest.strip_prefix(b":") else { return false };
    let value = value.trim_ascii_start();
    !value.starts_with(b"null") && !value.starts_with(b"\"\"")
}
