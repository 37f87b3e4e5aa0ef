//! A streamed message: events in the order that Anthropic's SDKs accumulate.

use serde::Serialize;
use serde_json::{Value, json};

use super::super::call::{Call, Dialect, Meta};
use super::super::chunk::{Choice, Chunk, ToolCall};
use super::super::error::{DialectError, ErrorKind};
use super::super::limits;
use super::super::sse;
use super::super::stream::State;
use super::reply::tool_use_id;
use super::{Answer, message_id, stop_reason, stop_sequence, usage_value};

/// Stands where Anthropic signs its thinking; ours comes back unsigned and is taken as it is.
pub const SIGNATURE: &str = "unsigned";

/// The block that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    Thinking,
    /// A tool call with this index in the engine's stream.
    Tool(u64),
}

/// Writes a message as events.
#[derive(Debug)]
pub struct Stream {
    meta: Meta,
    model: String,
    stops: Vec<String>,
    started: bool,
    open: Open,
    /// Blocks begun so far.
    blocks: usize,
    calls: usize,
    finish: Option<&'static str>,
    sequence: Option<String>,
}

#[derive(Serialize)]
struct BlockDelta<'a> {
    r#type: &'static str,
    index: usize,
    delta: Piece<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Piece<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
}

impl Stream {
    pub fn new(call: &Call, answer: &Answer, meta: &Meta) -> Self {
        Self {
            meta: meta.clone(),
            model: call.model.clone(),
            stops: answer.stops.clone(),
            started: false,
            open: Open::Nothing,
            blocks: 0,
            calls: 0,
            finish: None,
            sequence: None,
        }
    }

    /// Writes what a chunk brings.
    pub fn chunk(
        &mut self,
        state: &mut State,
        chunk: &Chunk<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), DialectError> {
        if let Some(progress) = &chunk.prompt_progress
            && !state.usage.measured
        {
            state.usage.prompt_tokens = progress.total;
            state.usage.cached_tokens = progress.cache.min(progress.total);
        }
        self.start(state, out);
        let Some(choice) = chunk.choices.iter().find(|choice| choice.index == 0) else { return Ok(()) };
        if let Some(delta) = &choice.delta {
            self.piece(Open::Thinking, delta.thought(), out);
            self.piece(Open::Text, delta.said(), out);
            for call in delta.tool_calls.iter().flatten() {
                self.tool(call, out)?;
            }
        }
        self.note_finish(chunk, choice);
        Ok(())
    }

    fn note_finish(&mut self, chunk: &Chunk<'_>, choice: &Choice<'_>) {
        if self.sequence.is_none() {
            self.sequence = stop_sequence(chunk, choice, &self.stops);
        }
        if let Some(finish) = choice.finish() {
            self.finish = Some(stop_reason(finish, self.calls > 0, self.sequence.as_deref()));
        }
    }

    fn start(&mut self, state: &State, out: &mut Vec<u8>) {
        if self.started {
            return;
        }
        self.started = true;
        let mut usage = state.usage;
        usage.completion_tokens = 0;
        let message = json!({
            "id": message_id(&self.meta.request_id),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage_value(&usage),
        });
        sse::write_named(out, "message_start", &json!({"type": "message_start", "message": message}));
        self.ping(out);
    }

    /// Shows that the line is alive.
    pub fn ping(&mut self, out: &mut Vec<u8>) {
        if self.started {
            sse::write_named(out, "ping", &json!({"type": "ping"}));
        } else {
            // No event may come before message_start, a comment may.
            out.extend_from_slice(b":\n\n");
        }
    }

    fn piece(&mut self, kind: Open, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        if self.open != kind {
            let block = match kind {
                Open::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
                _ => json!({"type": "text", "text": ""}),
            };
            self.begin(kind, &block, out);
        }
        let delta = match kind {
            Open::Thinking => Piece::Thinking { thinking: text },
            _ => Piece::Text { text },
        };
        self.delta(delta, out);
    }

    fn tool(&mut self, call: &ToolCall<'_>, out: &mut Vec<u8>) -> Result<(), DialectError> {
        let index = call.index.unwrap_or(self.calls as u64);
        let function = call.function.as_ref();
        if self.open != Open::Tool(index) {
            if self.calls >= limits::CALLS {
                let text = format!("the model made more than {} tool calls", limits::CALLS);
                return Err(DialectError::new(ErrorKind::EngineFailed, text));
            }
            let name = function.and_then(|function| function.name.as_ref()).map_or("", |text| &text.0);
            let id = tool_use_id(call.id.as_ref().map(|text| text.0.as_ref()), &self.meta, self.calls);
            self.begin(
                Open::Tool(index),
                &json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                out,
            );
            self.calls += 1;
        }
        let arguments = function.and_then(|function| function.arguments.as_ref()).map_or("", |text| &text.0);
        if !arguments.is_empty() {
            self.delta(Piece::InputJson { partial_json: arguments }, out);
        }
        Ok(())
    }

    fn begin(&mut self, kind: Open, block: &Value, out: &mut Vec<u8>) {
        self.end_block(out);
        self.open = kind;
        self.blocks += 1;
        let event = json!({"type": "content_block_start", "index": self.blocks - 1, "content_block": block});
        sse::write_named(out, "content_block_start", &event);
    }

    fn delta(&self, delta: Piece<'_>, out: &mut Vec<u8>) {
        let index = self.blocks.saturating_sub(1);
        sse::write_named(
            out,
            "content_block_delta",
            &BlockDelta { r#type: "content_block_delta", index, delta },
        );
    }

    fn end_block(&mut self, out: &mut Vec<u8>) {
        match self.open {
            Open::Nothing => return,
            Open::Thinking => self.delta(Piece::Signature { signature: SIGNATURE }, out),
            Open::Text | Open::Tool(_) => {}
        }
        let event = json!({"type": "content_block_stop", "index": self.blocks - 1});
        sse::write_named(out, "content_block_stop", &event);
        self.open = Open::Nothing;
    }

    /// Writes an error, which ends the stream.
    pub fn fail(&self, error: &DialectError, out: &mut Vec<u8>) {
        sse::write_named(out, "error", &error.value(Dialect::Anthropic, &self.meta.request_id));
    }

    /// Writes the end of a complete message.
    pub fn close(&mut self, state: &State, out: &mut Vec<u8>) {
        self.start(state, out);
        self.end_block(out);
        let mut usage = state.usage;
        if !usage.measured {
            usage.completion_tokens = state.tokens;
        }
        let delta = json!({"stop_reason": self.finish.unwrap_or("end_turn"), "stop_sequence": self.sequence});
        let event = json!({"type": "message_delta", "delta": delta, "usage": usage_value(&usage)});
        sse::write_named(out, "message_delta", &event);
        sse::write_named(out, "message_stop", &json!({"type": "message_stop"}));
    }
}
