//! Anthropic's dialect: messages, their stream of events, and token counts.

mod blocks;
mod lists;
mod reply;
mod request;
mod stream;

pub use lists::{model, models};
pub(super) use reply::{arguments_object, reply};
pub(super) use request::prepare;
pub(super) use stream::Stream;

use serde_json::{Value, json};

use super::chunk::{Choice, Chunk, Usage};

/// What an answer needs to know about its request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Only the prompt's tokens are to be counted.
    count: bool,
    /// The stop sequences, one of which may have ended the answer.
    stops: Vec<String>,
}

/// The id of the message that answers a request.
fn message_id(request_id: &str) -> String {
    format!("msg_{request_id}")
}

/// Anthropic counts cached tokens apart from the others.
fn usage_value(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    })
}

/// The stop sequence that ended the answer, as far as the engine says so.
fn stop_sequence(chunk: &Chunk<'_>, choice: &Choice<'_>, stops: &[String]) -> Option<String> {
    let word = chunk.verbose.as_ref().and_then(|verbose| verbose.stopping_word.as_ref());
    let word = word.map(|text| text.0.as_ref()).or_else(|| choice.stop_reason.as_ref()?.as_str())?;
    stops.iter().find(|stop| *stop == word).cloned()
}

/// Why the answer ended, in Anthropic's words.
fn stop_reason(finish: &str, calls: bool, sequence: Option<&str>) -> &'static str {
    match finish {
        "length" => "max_tokens",
        "content_filter" => "refusal",
        _ if calls => "tool_use",
        _ if sequence.is_some() => "stop_sequence",
        _ => "end_turn",
    }
}
