//! Whole answers of Ollama's paths.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::call::{Action, Answer as AnyAnswer, Call, Meta, Reply};
use super::super::chunk::{self, Chunk, Usage};
use super::super::duration::rfc3339;
use super::super::error::{DialectError, ErrorKind};
use super::super::openai;
use super::{Answer, Measures, PartialCall, Shape, context, done_reason, logprobs};

/// Translates a whole answer of the engine.
pub fn reply(
    call: &Call,
    answer: &Answer,
    meta: &Meta,
    elapsed: Duration,
    body: &[u8],
) -> Result<Reply, DialectError> {
    match answer.shape {
        Shape::Embed | Shape::Embeddings => return embedding(call, answer, meta, elapsed, body),
        Shape::Chat | Shape::Generate => {}
    }
    let chunk = chunk::parse(body).map_err(|error| {
        DialectError::new(
            ErrorKind::EngineFailed,
            format!("the engine's answer is not a completion: {error}"),
        )
    })?;
    if chunk.choices.is_empty() && chunk.content.is_none() {
        return Err(DialectError::new(ErrorKind::EngineFailed, "the engine's answer holds no choice"));
    }
    let mut usage = Usage::default();
    usage.update(&chunk);
    let mut map = head(&call.model, meta, elapsed);
    let finish = body_of(answer, &chunk, &mut map);
    map.insert("done".into(), true.into());
    map.insert("done_reason".into(), done_reason(&finish).into());
    if let Some(turns) = &answer.turns {
        let said = map.get("response").and_then(Value::as_str).unwrap_or("");
        map.insert("context".into(), json!(context_after(turns, said)));
    }
    Measures::new(meta, elapsed, None, chunk.timings.as_ref()).put(&usage, &mut map);
    Ok(Reply::json(&map.into(), usage))
}

/// The conversation with the answer at its end, as a `context`.
pub fn context_after(turns: &[Value], said: &str) -> Vec<u32> {
    let mut turns = turns.to_vec();
    turns.push(json!({"role": "assistant", "content": said}));
    context::encode(&turns)
}

/// `model` and `created_at`.
pub fn head(model: &str, meta: &Meta, elapsed: Duration) -> Map<String, Value> {
    let now = meta.started.checked_add(elapsed).unwrap_or(meta.started);
    let mut map = Map::new();
    map.insert("model".into(), model.into());
    map.insert("created_at".into(), rfc3339(now).into());
    map
}

/// Puts the text, the reasoning and the tool calls; returns why the answer ended.
fn body_of(answer: &Answer, chunk: &Chunk<'_>, map: &mut Map<String, Value>) -> String {
    let choice = chunk.choices.first();
    let delta = choice.and_then(|choice| choice.delta.as_ref());
    let thought = delta.map_or("", |delta| delta.thought());
    let said = said(chunk);
    if answer.shape == Shape::Generate {
        map.insert("response".into(), said.into());
        if !thought.is_empty() {
            map.insert("thinking".into(), thought.into());
        }
    } else {
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), said.into());
        if !thought.is_empty() {
            message.insert("thinking".into(), thought.into());
        }
        let calls = delta.and_then(|delta| delta.tool_calls.as_ref()).filter(|calls| !calls.is_empty());
        if let Some(calls) = calls {
            message.insert("tool_calls".into(), whole_calls(calls).into());
        }
        map.insert("message".into(), message.into());
    }
    if let Some(tokens) = choice.and_then(|choice| choice.logprobs.as_ref()?.content.as_ref()) {
        map.insert("logprobs".into(), logprobs(tokens).into());
    }
    finish_of(chunk).unwrap_or("stop").to_owned()
}

fn whole_calls(calls: &[chunk::ToolCall<'_>]) -> Vec<Value> {
    calls
        .iter()
        .enumerate()
        .map(|(index, call)| {
            let mut partial = PartialCall::default();
            partial.add(call);
            partial.value(index)
        })
        .collect()
}

/// The text of a chunk, in whichever of the engine's shapes.
pub fn said<'a>(chunk: &'a Chunk<'_>) -> &'a str {
    let Some(choice) = chunk.choices.first() else {
        return chunk.content.as_ref().map_or("", |text| &text.0);
    };
    match (&choice.text, &choice.delta) {
        (Some(text), _) => &text.0,
        (None, Some(delta)) => delta.said(),
        (None, None) => "",
    }
}

/// Why the answer ended, if it did.
pub fn finish_of<'a>(chunk: &'a Chunk<'_>) -> Option<&'a str> {
    if chunk.stop == Some(true) {
        return Some(chunk.stop_type.as_ref().map_or("stop", |text| &text.0));
    }
    chunk.choices.first()?.finish()
}

fn embedding(
    call: &Call,
    answer: &Answer,
    meta: &Meta,
    elapsed: Duration,
    body: &[u8],
) -> Result<Reply, DialectError> {
    let (mut vectors, usage) = openai::vectors(body)?;
    if answer.shape == Shape::Embeddings {
        let first = vectors.into_iter().next().ok_or_else(|| {
            DialectError::new(ErrorKind::EngineFailed, "the engine's answer holds no vector")
        })?;
        return Ok(Reply::json(&json!({"embedding": first}), usage));
    }
    vectors.iter_mut().for_each(|vector| openai::cut(vector, answer.dimensions));
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let value = json!({
        "model": call.model,
        "embeddings": vectors,
        "total_duration": nanos(elapsed),
        "load_duration": nanos(meta.load),
        "prompt_eval_count": usage.prompt_tokens,
    });
    Ok(Reply::json(&value, usage))
}

/// The answer of a request that only loads or unloads a model.
pub fn immediate(call: &Call, meta: &Meta, elapsed: Duration) -> Reply {
    let AnyAnswer::Ollama(answer) = &call.answer else {
        return Reply::json(&json!({"model": call.model}), Usage::default());
    };
    let mut map = head(&call.model, meta, elapsed);
    match answer.shape {
        Shape::Embeddings => return Reply::json(&json!({"embedding": []}), Usage::default()),
        Shape::Embed => {
            return Reply::json(&json!({"model": call.model, "embeddings": []}), Usage::default());
        }
        Shape::Chat => map.insert("message".into(), json!({"role": "assistant", "content": ""})),
        Shape::Generate => map.insert("response".into(), "".into()),
    };
    map.insert("done".into(), true.into());
    map.insert("done_reason".into(), answer.done_reason.into());
    if matches!(call.action, Action::Load) && !meta.load.is_zero() {
        map.insert("load_duration".into(), json!(u64::try_from(meta.load.as_nanos()).unwrap_or(u64::MAX)));
    }
    Reply::json(&map.into(), Usage::default())
}
