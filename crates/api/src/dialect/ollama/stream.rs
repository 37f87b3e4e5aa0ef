//! A streamed answer as lines of JSON.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::call::{Call, Dialect, Meta};
use super::super::chunk::{Chunk, Timings, ToolCall};
use super::super::error::{DialectError, ErrorKind};
use super::super::limits;
use super::super::sse;
use super::super::stream::State;
use super::reply::{context_after, finish_of, head, said};
use super::{Answer, Measures, PartialCall, Shape, done_reason, logprobs};

/// Writes an answer line by line.
#[derive(Debug)]
pub struct Stream {
    meta: Meta,
    model: String,
    shape: Shape,
    turns: Option<Vec<Value>>,
    /// The answer so far, where `context` needs it.
    said: String,
    call: Option<(u64, PartialCall)>,
    calls: usize,
    finish: &'static str,
    timings: Option<Timings>,
    now: (Duration, String),
}

/// One line. Chat has a message, generate has a response.
#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<Value>,
    done: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
}

impl Stream {
    pub fn new(call: &Call, answer: &Answer, meta: &Meta) -> Self {
        Self {
            meta: meta.clone(),
            model: call.model.clone(),
            shape: answer.shape,
            turns: answer.turns.clone(),
            said: String::new(),
            call: None,
            calls: 0,
            finish: "stop",
            timings: None,
            now: (Duration::MAX, String::new()),
        }
    }

    /// Writes what a chunk brings.
    pub fn chunk(
        &mut self,
        elapsed: Duration,
        chunk: &Chunk<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), DialectError> {
        self.tick(elapsed);
        if chunk.timings.is_some() {
            self.timings.clone_from(&chunk.timings);
        }
        if let Some(finish) = finish_of(chunk) {
            self.finish = done_reason(finish);
        }
        let choice = chunk.choices.first();
        let delta = choice.and_then(|choice| choice.delta.as_ref());
        let (said, thought) = (said(chunk), delta.map_or("", |delta| delta.thought()));
        let tokens =
            choice.and_then(|choice| choice.logprobs.as_ref()?.content.as_deref()).unwrap_or_default();
        self.remember(said)?;
        if !(said.is_empty() && thought.is_empty() && tokens.is_empty()) {
            self.line(said, thought, Vec::new(), logprobs(tokens), out);
        }
        for call in delta.and_then(|delta| delta.tool_calls.as_ref()).into_iter().flatten() {
            self.tool(call, out)?;
        }
        Ok(())
    }

    /// Formats the time once for all chunks that came together.
    fn tick(&mut self, elapsed: Duration) {
        if self.now.0 != elapsed {
            let head = head("", &self.meta, elapsed);
            let time = head.get("created_at").and_then(Value::as_str).unwrap_or("").to_owned();
            self.now = (elapsed, time);
        }
    }

    fn remember(&mut self, said: &str) -> Result<(), DialectError> {
        if self.turns.is_some() {
            if self.said.len() + said.len() > limits::ANSWER {
                return Err(too_long());
            }
            self.said.push_str(said);
        }
        Ok(())
    }

    fn line(
        &self,
        said: &str,
        thinking: &str,
        tool_calls: Vec<Value>,
        logprobs: Vec<Value>,
        out: &mut Vec<u8>,
    ) {
        let chat = self.shape == Shape::Chat;
        let message = chat.then(|| Message { role: "assistant", content: said, thinking, tool_calls });
        let line = Line {
            model: &self.model,
            created_at: &self.now.1,
            message,
            response: (!chat).then_some(said),
            thinking: if chat { "" } else { thinking },
            logprobs,
            done: false,
        };
        sse::write_line(out, &line);
    }

    /// Collects a tool call: Ollama's clients want its arguments whole.
    fn tool(&mut self, call: &ToolCall<'_>, out: &mut Vec<u8>) -> Result<(), DialectError> {
        let index = call.index.unwrap_or(self.calls as u64);
        if self.call.as_ref().is_none_or(|(open, _)| *open != index) {
            self.end_call(out);
            if self.calls >= limits::CALLS {
                return Err(too_long());
            }
            self.call = Some((index, PartialCall::default()));
        }
        if let Some((_, partial)) = &mut self.call {
            partial.add(call);
            if partial.arguments.len() > limits::ANSWER {
                return Err(too_long());
            }
        }
        Ok(())
    }

    fn end_call(&mut self, out: &mut Vec<u8>) {
        if let Some((_, partial)) = self.call.take() {
            self.line("", "", vec![partial.value(self.calls)], Vec::new(), out);
            self.calls += 1;
        }
    }

    /// Writes an error, which ends the stream.
    pub fn fail(&self, error: &DialectError, out: &mut Vec<u8>) {
        sse::write_line(out, &error.value(Dialect::Ollama, ""));
    }

    /// Writes the last line of a complete answer.
    pub fn close(&mut self, state: &State, elapsed: Duration, out: &mut Vec<u8>) {
        self.tick(elapsed);
        self.end_call(out);
        let mut map = head(&self.model, &self.meta, elapsed);
        match self.shape {
            Shape::Chat => map.insert("message".into(), json!({"role": "assistant", "content": ""})),
            _ => map.insert("response".into(), "".into()),
        };
        map.insert("done".into(), true.into());
        map.insert("done_reason".into(), self.finish.into());
        if let Some(turns) = &self.turns {
            map.insert("context".into(), json!(context_after(turns, &self.said)));
        }
        let mut usage = state.usage;
        if !usage.measured {
            usage.completion_tokens = state.tokens;
        }
        Measures::new(&self.meta, elapsed, state.first, self.timings.as_ref()).put(&usage, &mut map);
        sse::write_line(out, &map);
    }
}

fn too_long() -> DialectError {
    let text = format!(
        "the answer is longer than {} MiB or has more than {} tool calls",
        limits::ANSWER >> 20,
        limits::CALLS
    );
    DialectError::new(ErrorKind::EngineFailed, text)
}
