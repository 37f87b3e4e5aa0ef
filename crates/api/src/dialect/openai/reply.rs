//! Whole answers of OpenAI's paths.

use std::sync::LazyLock;

use memchr::memmem::{Finder, FinderRev};
use serde_json::Value;

use super::super::call::{Call, Endpoint, JSON, Reply};
use super::super::chunk::{Counts, Usage};
use super::super::error::{DialectError, ErrorKind};
use super::logprobs::Legacy;
use super::{Answer, embed, names, rank};

/// Passes an engine's answer on under the name that the caller used.
pub fn reply(call: &Call, answer: &Answer, body: &[u8]) -> Result<Reply, DialectError> {
    if let Some(shape) = &answer.ranking {
        return rank::reply(call, shape, body);
    }
    if call.endpoint == Endpoint::Embeddings && answer.embedding.rebuilds() {
        return embed::reply(call, &answer.embedding, body);
    }
    let first = body.trim_ascii_start().first();
    if first != Some(&b'{') {
        return Err(not_an_answer(body));
    }
    let name = Value::from(call.model.as_str()).to_string();
    let mut out = Vec::with_capacity(body.len() + name.len());
    match answer.text_logprobs.then(|| Legacy::default().body(body)).flatten() {
        Some(changed) => names::rename(&changed, name.as_bytes(), &mut out),
        None => names::rename(body, name.as_bytes(), &mut out),
    }
    Ok(Reply { body: out, content_type: JSON, usage: usage(body), stored: None })
}

/// Reads `usage` out of an answer without parsing the rest of it.
fn usage(body: &[u8]) -> Usage {
    static KEY: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(b"\"usage\":"));
    let mut usage = Usage::default();
    // Quotes inside strings are escaped, so the key cannot be part of a text; the last one is the answer's own.
    if let Some(found) = KEY.rfind(body) {
        let rest = &body[found + KEY.needle().len()..];
        if let Some(Ok(counts)) = serde_json::Deserializer::from_slice(rest).into_iter::<Counts>().next() {
            usage.take_counts(&counts);
        }
    }
    several(body, &mut usage);
    usage
}

/// llama-server counts the first of several choices alone. The others count as much here, and so do their prompts
/// where each may have one of its own.
fn several(body: &[u8], usage: &mut Usage) {
    static CHOICE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\":"));
    let choices = CHOICE.find_iter(body).count() as u64;
    if choices > 1 {
        usage.completion_tokens = usage.completion_tokens.saturating_mul(choices);
        if memchr::memmem::find(body, b"\"text_completion\"").is_some() {
            usage.prompt_tokens = usage.prompt_tokens.saturating_mul(choices);
        }
    }
}

/// The engine answered something that its interface does not have.
pub fn not_an_answer(body: &[u8]) -> DialectError {
    let shown = super::super::json::excerpt(body, 120);
    DialectError::new(ErrorKind::EngineFailed, format!("the engine's answer makes no sense: {shown:?}"))
}
