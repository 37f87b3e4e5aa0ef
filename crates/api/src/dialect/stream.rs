//! One type for every streamed answer, whatever its dialect.

use std::time::Duration;

use super::call::{Answer, Call, Meta};
use super::chunk::Usage;
use super::error::{DialectError, ErrorKind};
use super::responses::{self, Stored};
use super::sse::Splitter;
use super::{anthropic, chunk, error, ollama, openai};

/// How an engine's answer ended.
#[derive(Debug, Clone, Copy)]
pub enum End<'a> {
    /// The engine closed its answer as it should.
    Complete,
    /// The engine died, a deadline passed, the daemon goes down.
    Failed(&'a DialectError),
}

/// Turns an engine's stream into the caller's.
#[derive(Debug)]
pub struct StreamTranslator {
    splitter: Splitter,
    state: State,
    writer: Writer,
}

/// What all dialects keep.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What it has cost so far.
    pub usage: Usage,
    /// Pieces of text, reasoning or tool calls seen.
    pub tokens: u64,
    /// When the first of them came.
    pub first: Option<Duration>,
    /// The engine has said why its answer ended.
    pub finished: bool,
    /// The dialect's last event is written.
    pub ended: bool,
    /// The error that was written.
    pub failed: Option<String>,
}

#[derive(Debug)]
enum Writer {
    OpenAi(openai::Stream),
    Anthropic(Box<anthropic::Stream>),
    Ollama(Box<ollama::Stream>),
    Responses(Box<responses::Stream>),
}

impl StreamTranslator {
    pub(super) fn new(call: &Call, meta: &Meta) -> Self {
        let writer = match &call.answer {
            Answer::OpenAi(answer) => Writer::OpenAi(openai::Stream::new(call, answer)),
            Answer::Anthropic(answer) => {
                Writer::Anthropic(Box::new(anthropic::Stream::new(call, answer, meta)))
            }
            Answer::Ollama(answer) => Writer::Ollama(Box::new(ollama::Stream::new(call, answer, meta))),
            Answer::Responses(answer) => {
                Writer::Responses(Box::new(responses::Stream::new(call, answer, meta)))
            }
        };
        Self { splitter: Splitter::default(), state: State::default(), writer }
    }

    /// Takes bytes of the engine and appends what the caller shall see; `elapsed` counts from [`Meta::started`].
    /// Garbage becomes one error event, after which everything is ignored.
    pub fn push(&mut self, elapsed: Duration, bytes: &[u8], out: &mut Vec<u8>) {
        if self.state.ended {
            return;
        }
        let Self { splitter, state, writer } = self;
        let pushed = splitter.push(bytes, |event| writer.event(state, elapsed, event.raw, &event.data, out));
        if pushed.is_err() {
            let error =
                DialectError::new(ErrorKind::EngineFailed, "the engine sent an event of more than 8 MiB");
            writer.fail(state, elapsed, &error, out);
        }
    }

    /// Says that the engine's answer has ended, and appends what closes the caller's.
    pub fn finish(&mut self, elapsed: Duration, end: End<'_>, out: &mut Vec<u8>) {
        if self.state.ended {
            return;
        }
        let mut rest = self.splitter.rest();
        // A line that was cut off holds half a chunk; a whole one only lacks the blank line behind it.
        if rest.ends_with(b"\n") && matches!(end, End::Complete) {
            rest.push(b'\n');
            self.push(elapsed, &rest, out);
        }
        let Self { state, writer, .. } = self;
        if state.ended {
            return;
        }
        match end {
            End::Failed(error) => writer.fail(state, elapsed, error, out),
            End::Complete if state.finished => writer.close(state, elapsed, out),
            End::Complete => {
                let error = DialectError::new(
                    ErrorKind::EngineFailed,
                    "the engine ended its answer before it was complete",
                );
                writer.fail(state, elapsed, &error, out);
            }
        }
        state.ended = true;
    }

    /// What it has cost so far; an estimate until the engine has counted. It counts one of several choices alone, so
    /// that what was seen may be more.
    pub fn usage(&self) -> Usage {
        let mut usage = self.state.usage;
        usage.completion_tokens = match usage.measured {
            true => usage.completion_tokens.max(self.state.tokens),
            false => self.state.tokens,
        };
        usage
    }

    /// Pieces of text, reasoning and tool calls so far; with most engines, one for each token.
    pub fn tokens(&self) -> u64 {
        self.state.tokens
    }

    /// Whether the last event is written and nothing more of the engine is wanted.
    pub fn ended(&self) -> bool {
        self.state.ended
    }

    /// The error that the caller was told, if there was one.
    pub fn failed(&self) -> Option<&str> {
        self.state.failed.as_deref()
    }

    /// The response to keep for later ones, once the stream has ended.
    pub fn take_stored(&mut self) -> Option<Stored> {
        match &mut self.writer {
            Writer::Responses(stream) => stream.take_stored(),
            _ => None,
        }
    }
}

impl Writer {
    fn event(&mut self, state: &mut State, elapsed: Duration, raw: &[u8], data: &[u8], out: &mut Vec<u8>) {
        if state.ended {
            return;
        }
        if let Self::OpenAi(stream) = self {
            // The bytes go through as they are; nothing is parsed.
            return stream.event(state, elapsed, raw, data, out);
        }
        if data.is_empty() {
            return self.comment(state, out);
        }
        if data == b"[DONE]" {
            if state.finished {
                self.close(state, elapsed, out);
                state.ended = true;
            }
            return;
        }
        match chunk::parse(data) {
            Ok(chunk) => self.chunk(state, elapsed, &chunk, out),
            Err(error) => {
                let text = format!("the engine sent an event that is not a chunk: {error}");
                self.fail(state, elapsed, &DialectError::new(ErrorKind::EngineFailed, text), out);
            }
        }
    }

    fn chunk(&mut self, state: &mut State, elapsed: Duration, chunk: &chunk::Chunk<'_>, out: &mut Vec<u8>) {
        if let Some(raw) = chunk.error {
            let body = format!("{{\"error\":{}}}", raw.get());
            return self.fail(state, elapsed, &error::from_engine(500, body.as_bytes()), out);
        }
        state.note(elapsed, chunk);
        let written = match self {
            Self::OpenAi(_) => Ok(()),
            Self::Anthropic(stream) => stream.chunk(state, chunk, out),
            Self::Ollama(stream) => stream.chunk(elapsed, chunk, out),
            Self::Responses(stream) => stream.chunk(state, chunk, out),
        };
        if let Err(error) = written {
            self.fail(state, elapsed, &error, out);
        }
    }

    /// A comment of the engine keeps the line alive while it is silent.
    fn comment(&mut self, state: &State, out: &mut Vec<u8>) {
        match self {
            Self::Anthropic(stream) => stream.ping(out),
            Self::Responses(_) if state.tokens == 0 => out.extend_from_slice(b":\n\n"),
            _ => {}
        }
    }

    fn fail(&mut self, state: &mut State, elapsed: Duration, error: &DialectError, out: &mut Vec<u8>) {
        match self {
            Self::OpenAi(stream) => stream.fail(error, out),
            Self::Anthropic(stream) => stream.fail(error, out),
            Self::Ollama(stream) => stream.fail(error, out),
            Self::Responses(stream) => stream.fail(state, elapsed, error, out),
        }
        state.failed = Some(error.message.clone());
        state.ended = true;
    }

    fn close(&mut self, state: &mut State, elapsed: Duration, out: &mut Vec<u8>) {
        match self {
            Self::OpenAi(stream) => stream.close(out),
            Self::Anthropic(stream) => stream.close(state, out),
            Self::Ollama(stream) => stream.close(state, elapsed, out),
            Self::Responses(stream) => stream.close(state, elapsed, out),
        }
    }
}

impl State {
    /// Counts what a chunk brings.
    fn note(&mut self, elapsed: Duration, chunk: &chunk::Chunk<'_>) {
        self.usage.update(chunk);
        let brings = |choice: &chunk::Choice<'_>| {
            choice.text.as_ref().is_some_and(|text| !text.0.is_empty())
                || choice.delta.as_ref().is_some_and(|delta| {
                    !delta.said().is_empty() || !delta.thought().is_empty() || delta.tool_calls.is_some()
                })
        };
        if chunk.choices.iter().any(brings) || chunk.content.as_ref().is_some_and(|text| !text.0.is_empty()) {
            self.token(elapsed);
        }
        if chunk.choices.iter().any(|choice| choice.finish_reason.is_some()) || chunk.stop == Some(true) {
            self.finished = true;
        }
    }

    /// Counts one piece of the answer.
    pub fn token(&mut self, elapsed: Duration) {
        self.tokens += 1;
        self.first.get_or_insert(elapsed);
    }
}
