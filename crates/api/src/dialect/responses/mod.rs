//! OpenAI's Responses API on top of chat completions, conversation state included.

mod input;
mod output;
mod request;
mod stored;
mod stream;

pub(super) use request::prepare;
pub use stored::{Stored, deleted};
pub(super) use stream::Stream;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::call::{Call, Meta, Reply};
use super::chunk::{self, Usage};
use super::error::{DialectError, ErrorKind};
use super::stream::State;

/// What an answer needs to know about its request.
#[derive(Debug)]
pub(super) struct Answer {
    /// Fields of the request that every response repeats.
    echo: Map<String, Value>,
    /// The items of this turn.
    input: Vec<Value>,
    /// The turn before.
    previous: Option<Arc<Stored>>,
    /// Whether later turns may refer to this one.
    store: bool,
}

/// Turns a chat completion into a response.
pub(super) fn reply(
    call: &Call,
    answer: &Answer,
    meta: &Meta,
    elapsed: Duration,
    body: &[u8],
) -> Result<Reply, DialectError> {
    let chunk = chunk::parse(body).map_err(|error| {
        DialectError::new(
            ErrorKind::EngineFailed,
            format!("the engine's answer is not a chat completion: {error}"),
        )
    })?;
    if chunk.choices.is_empty() {
        return Err(DialectError::new(ErrorKind::EngineFailed, "the engine's answer holds no choice"));
    }
    let mut state = State::default();
    state.usage.update(&chunk);
    let mut stream = Stream::new(call, answer, meta);
    let mut events = Vec::new();
    stream.chunk(&mut state, &chunk, &mut events)?;
    stream.close(&state, elapsed, &mut events);
    let mut reply = Reply::json(&stream.response(), state.usage);
    reply.stored = stream.take_stored();
    Ok(reply)
}

fn usage_value(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens.saturating_add(usage.completion_tokens),
    })
}
