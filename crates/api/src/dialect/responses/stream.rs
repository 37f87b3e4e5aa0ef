//! A streamed response: events in order, each with its sequence number.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::call::{Call, Meta};
use super::super::chunk::{Chunk, ToolCall};
use super::super::error::{DialectError, ErrorKind};
use super::super::limits;
use super::super::sse;
use super::super::stream::State;
use super::output::{Item, Kind};
use super::{Answer, Stored, usage_value};

/// Writes a response as events.
#[derive(Debug)]
pub struct Stream {
    meta: Meta,
    /// The response as it stands.
    response: Map<String, Value>,
    sequence: u64,
    started: bool,
    open: Option<Item>,
    output: Vec<Value>,
    written: usize,
    cut_off: bool,
    keep: Option<(Vec<Value>, Option<Arc<Stored>>)>,
    stored: Option<Stored>,
}

/// A piece of text, reasoning or arguments.
#[derive(Serialize)]
struct Delta<'a> {
    r#type: &'static str,
    item_id: &'a str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<usize>,
    delta: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [Value]>,
    sequence_number: u64,
}

impl Stream {
    pub fn new(call: &Call, answer: &Answer, meta: &Meta) -> Self {
        let mut response = Map::new();
        response.insert("id".into(), format!("resp_{}", meta.request_id).into());
        response.insert("object".into(), "response".into());
        response.insert("created_at".into(), meta.created().into());
        response.insert("status".into(), "in_progress".into());
        response.insert("error".into(), Value::Null);
        response.insert("incomplete_details".into(), Value::Null);
        response.insert("model".into(), call.model.as_str().into());
        response.insert("output".into(), json!([]));
        response.insert("usage".into(), Value::Null);
        response.extend(answer.echo.clone());
        Self {
            meta: meta.clone(),
            response,
            sequence: 0,
            started: false,
            open: None,
            output: Vec::new(),
            written: 0,
            cut_off: false,
            keep: answer.store.then(|| (answer.input.clone(), answer.previous.clone())),
            stored: None,
        }
    }

    /// The response as it stands.
    pub fn response(&self) -> Value {
        Value::Object(self.response.clone())
    }

    /// The response to keep for later ones.
    pub fn take_stored(&mut self) -> Option<Stored> {
        self.stored.take()
    }

    /// Writes what a chunk brings.
    pub fn chunk(&mut self, _: &mut State, chunk: &Chunk<'_>, out: &mut Vec<u8>) -> Result<(), DialectError> {
        self.start(out);
        let Some(choice) = chunk.choices.iter().find(|choice| choice.index == 0) else { return Ok(()) };
        if let Some(delta) = &choice.delta {
            let tokens = choice.logprobs.as_ref().and_then(|logprobs| logprobs.content.as_deref());
            self.piece(Kind::Reasoning, delta.thought(), &[], out)?;
            self.piece(Kind::Message, delta.said(), tokens.unwrap_or_default(), out)?;
            for call in delta.tool_calls.iter().flatten() {
                self.tool(call, out)?;
            }
        }
        self.cut_off |= choice.finish() == Some("length");
        Ok(())
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if self.started {
            return;
        }
        self.started = true;
        self.lifecycle("response.created", out);
        self.lifecycle("response.in_progress", out);
    }

    fn lifecycle(&mut self, name: &'static str, out: &mut Vec<u8>) {
        let response = Value::Object(self.response.clone());
        self.event(name, json!({"response": response}), out);
    }

    /// Writes one event with its type and number.
    fn event(&mut self, name: &'static str, fields: Value, out: &mut Vec<u8>) {
        let mut map = Map::new();
        map.insert("type".into(), name.into());
        map.insert("sequence_number".into(), self.sequence.into());
        if let Value::Object(fields) = fields {
            map.extend(fields);
        }
        self.sequence += 1;
        sse::write_named(out, name, &map);
    }

    fn grow(&mut self, bytes: usize) -> Result<(), DialectError> {
        self.written += bytes;
        if self.written > limits::ANSWER {
            let text = format!("the answer is longer than {} MiB", limits::ANSWER >> 20);
            return Err(DialectError::new(ErrorKind::EngineFailed, text));
        }
        Ok(())
    }

    fn piece(
        &mut self,
        kind: Kind,
        text: &str,
        tokens: &[Value],
        out: &mut Vec<u8>,
    ) -> Result<(), DialectError> {
        if text.is_empty() {
            return Ok(());
        }
        self.grow(text.len() + tokens.len() * 256)?;
        if self.open.as_ref().is_none_or(|item| item.kind != kind) {
            let prefix = if kind == Kind::Reasoning { "rs" } else { "msg" };
            self.begin(kind, prefix, String::new(), String::new(), out);
        }
        let Some(item) = &mut self.open else { return Ok(()) };
        item.text.push_str(text);
        item.logprobs.extend_from_slice(tokens);
        let message = kind == Kind::Message;
        let name = if message { "response.output_text.delta" } else { "response.reasoning_text.delta" };
        let delta = Delta {
            r#type: name,
            item_id: &item.id,
            output_index: self.output.len(),
            content_index: Some(0),
            delta: text,
            logprobs: message.then_some(tokens),
            sequence_number: self.sequence,
        };
        sse::write_named(out, name, &delta);
        self.sequence += 1;
        Ok(())
    }

    fn tool(&mut self, call: &ToolCall<'_>, out: &mut Vec<u8>) -> Result<(), DialectError> {
        let index = call.index.unwrap_or(self.output.len() as u64);
        let function = call.function.as_ref();
        if self.open.as_ref().is_none_or(|item| item.kind != Kind::Call(index)) {
            self.end_item("completed", out);
            if self.output.len() >= limits::CALLS {
                let text = format!("the model made more than {} tool calls", limits::CALLS);
                return Err(DialectError::new(ErrorKind::EngineFailed, text));
            }
            let name = function.and_then(|function| function.name.as_ref()).map_or("", |text| &text.0);
            let id = call.id.as_ref().map_or("", |text| &text.0);
            let call_id = match id {
                "" => format!("call_{}_{}", self.meta.request_id, self.output.len()),
                id => id.to_owned(),
            };
            self.begin(Kind::Call(index), "fc", name.to_owned(), call_id, out);
        }
        let arguments = function.and_then(|function| function.arguments.as_ref()).map_or("", |text| &text.0);
        if arguments.is_empty() {
            return Ok(());
        }
        self.grow(arguments.len())?;
        let Some(item) = &mut self.open else { return Ok(()) };
        item.text.push_str(arguments);
        let name = "response.function_call_arguments.delta";
        let delta = Delta {
            r#type: name,
            item_id: &item.id,
            output_index: self.output.len(),
            content_index: None,
            delta: arguments,
            logprobs: None,
            sequence_number: self.sequence,
        };
        sse::write_named(out, name, &delta);
        self.sequence += 1;
        Ok(())
    }

    fn begin(&mut self, kind: Kind, prefix: &str, name: String, call_id: String, out: &mut Vec<u8>) {
        self.end_item("completed", out);
        let index = self.output.len();
        let id = format!("{prefix}_{}_{index}", self.meta.request_id);
        let item = Item { kind, id, text: String::new(), logprobs: Vec::new(), name, call_id };
        self.event(
            "response.output_item.added",
            json!({"output_index": index, "item": item.value("in_progress")}),
            out,
        );
        if !matches!(kind, Kind::Call(_)) {
            let fields =
                json!({"item_id": item.id, "output_index": index, "content_index": 0, "part": item.part()});
            self.event("response.content_part.added", fields, out);
        }
        self.open = Some(item);
    }

    /// Ends the item that is open, if one is.
    fn end_item(&mut self, status: &str, out: &mut Vec<u8>) {
        let Some(item) = self.open.take() else { return };
        let index = self.output.len();
        let place = json!({"item_id": item.id, "output_index": index});
        let with = |more: Value| {
            let mut map = place.as_object().cloned().unwrap_or_default();
            map.extend(more.as_object().cloned().unwrap_or_default());
            Value::Object(map)
        };
        match item.kind {
            Kind::Call(_) => {
                let fields = with(json!({"name": item.name, "arguments": item.text}));
                self.event("response.function_call_arguments.done", fields, out);
            }
            Kind::Reasoning => {
                let fields = with(json!({"content_index": 0, "text": item.text}));
                self.event("response.reasoning_text.done", fields, out);
            }
            Kind::Message => {
                let fields = with(json!({"content_index": 0, "text": item.text, "logprobs": item.logprobs}));
                self.event("response.output_text.done", fields, out);
            }
        }
        if !matches!(item.kind, Kind::Call(_)) {
            let fields = with(json!({"content_index": 0, "part": item.part()}));
            self.event("response.content_part.done", fields, out);
        }
        let value = item.value(status);
        self.event("response.output_item.done", json!({"output_index": index, "item": value}), out);
        self.output.push(value);
    }

    /// Settles the response and writes its last event.
    fn settle(&mut self, state: &State, elapsed: Duration, status: &'static str, out: &mut Vec<u8>) {
        let mut usage = state.usage;
        if !usage.measured {
            usage.completion_tokens = state.tokens;
        }
        self.response.insert("status".into(), status.into());
        self.response.insert("output".into(), self.output.clone().into());
        self.response.insert("usage".into(), usage_value(&usage));
        if status == "completed" {
            let done = self.meta.created().saturating_add(elapsed.as_secs());
            self.response.insert("completed_at".into(), done.into());
        }
        let name = match status {
            "completed" => "response.completed",
            "incomplete" => "response.incomplete",
            _ => "response.failed",
        };
        self.lifecycle(name, out);
        if let Some((input, previous)) = self.keep.take() {
            let id = format!("resp_{}", self.meta.request_id);
            self.stored = Some(Stored::new(id, &self.response(), input, self.output.clone(), previous));
        }
    }

    /// Writes an error, which ends the stream.
    pub fn fail(&mut self, state: &State, elapsed: Duration, error: &DialectError, out: &mut Vec<u8>) {
        self.start(out);
        self.end_item("incomplete", out);
        let code = error.openai_code().unwrap_or("server_error");
        self.response.insert("error".into(), json!({"code": code, "message": error.message}));
        // A failed answer is no turn that a later one could continue.
        self.keep = None;
        self.settle(state, elapsed, "failed", out);
    }

    /// Writes the end of a complete or cut off response.
    pub fn close(&mut self, state: &State, elapsed: Duration, out: &mut Vec<u8>) {
        self.start(out);
        let status = if self.cut_off { "incomplete" } else { "completed" };
        self.end_item(status, out);
        if self.cut_off {
            self.response.insert("incomplete_details".into(), json!({"reason": "max_output_tokens"}));
        }
        self.settle(state, elapsed, status, out);
    }
}
