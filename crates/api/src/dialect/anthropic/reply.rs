//! Whole answers as messages, and token counts.

use serde_json::{Map, Value, json};

use super::super::call::{Call, Meta, Reply};
use super::super::chunk::{self, Delta, Usage};
use super::super::error::{DialectError, ErrorKind};
use super::{Answer, message_id, stop_reason, stop_sequence, usage_value};

/// Turns a chat completion into a message.
pub fn reply(call: &Call, answer: &Answer, meta: &Meta, body: &[u8]) -> Result<Reply, DialectError> {
    if answer.count {
        return count(body);
    }
    let chunk = chunk::parse(body).map_err(|error| no_sense(&error))?;
    let choice = chunk
        .choices
        .first()
        .ok_or_else(|| DialectError::new(ErrorKind::EngineFailed, "the engine's answer holds no choice"))?;
    let mut usage = Usage::default();
    usage.update(&chunk);
    let mut content = Vec::new();
    let mut calls = false;
    if let Some(delta) = &choice.delta {
        calls = delta.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty());
        blocks(delta, meta, &mut content);
    }
    let sequence = stop_sequence(&chunk, choice, &answer.stops);
    let value = json!({
        "id": message_id(&meta.request_id),
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": content,
        "stop_reason": stop_reason(choice.finish().unwrap_or("stop"), calls, sequence.as_deref()),
        "stop_sequence": sequence,
        "usage": usage_value(&usage),
    });
    Ok(Reply::json(&value, usage))
}

fn no_sense(error: &serde_json::Error) -> DialectError {
    DialectError::new(
        ErrorKind::EngineFailed,
        format!("the engine's answer is not a chat completion: {error}"),
    )
}

/// Appends the blocks of a message: reasoning, text, tool calls.
fn blocks(delta: &Delta<'_>, meta: &Meta, content: &mut Vec<Value>) {
    if !delta.thought().is_empty() {
        content.push(
            json!({"type": "thinking", "thinking": delta.thought(), "signature": super::stream::SIGNATURE}),
        );
    }
    if !delta.said().is_empty() {
        content.push(json!({"type": "text", "text": delta.said()}));
    }
    for (index, call) in delta.tool_calls.iter().flatten().enumerate() {
        let function = call.function.as_ref();
        let name = function.and_then(|function| function.name.as_ref()).map_or("", |text| &text.0);
        let arguments = function.and_then(|function| function.arguments.as_ref()).map_or("", |text| &text.0);
        content.push(json!({
            "type": "tool_use",
            "id": tool_use_id(call.id.as_ref().map(|text| text.0.as_ref()), meta, index),
            "name": name,
            "input": arguments_object(arguments),
        }));
    }
}

/// The engine's id of a tool call, or one of ours where it has none.
pub fn tool_use_id(id: Option<&str>, meta: &Meta, index: usize) -> String {
    match id {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => format!("toolu_{}_{index}", meta.request_id),
    }
}

/// Arguments as an object. What a model wrote that is none (it was cut off, say) is kept as text.
pub fn arguments_object(arguments: &str) -> Value {
    match serde_json::from_str(arguments) {
        Ok(Value::Object(map)) => Value::Object(map),
        Ok(_) | Err(_) if arguments.trim().is_empty() => json!({}),
        Ok(_) | Err(_) => {
            let mut map = Map::new();
            map.insert("_unparsed".into(), arguments.into());
            Value::Object(map)
        }
    }
}

/// The prompt's tokens, as llama-server (`input_tokens`) or vLLM (`count`) tells them.
fn count(body: &[u8]) -> Result<Reply, DialectError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| no_sense(&error))?;
    let count = value.get("input_tokens").or_else(|| value.get("count")).and_then(Value::as_u64);
    let count = count.ok_or_else(|| {
        DialectError::new(ErrorKind::EngineFailed, "the engine's answer holds no count of tokens")
    })?;
    // Nothing was generated, so nothing is charged.
    Ok(Reply::json(&json!({"input_tokens": count}), Usage { measured: true, ..Usage::default() }))
}
