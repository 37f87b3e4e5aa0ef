//! What an engine answers: OpenAI's chunks and whole answers with llama-server's, vLLM's and mlx-lm's additions.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A string that borrows where it holds no escapes. (`Option<Cow<str>>` alone never borrows.)
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A chunk of a stream, or a whole answer; the fields are the same.
#[derive(Debug, Default, Deserialize)]
pub struct Chunk<'a> {
    #[serde(borrow, default)]
    pub choices: Vec<Choice<'a>>,
    #[serde(default)]
    pub usage: Option<Counts>,
    #[serde(default)]
    pub timings: Option<Timings>,
    /// llama-server's `return_progress`.
    #[serde(default)]
    pub prompt_progress: Option<Progress>,
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
    /// llama-server's `verbose`, cut down to `response_fields`.
    #[serde(borrow, default, rename = "__verbose")]
    pub verbose: Option<Verbose<'a>>,
    /// llama-server's own completion shape, which `/infill` uses.
    #[serde(borrow, default)]
    pub content: Option<Text<'a>>,
    #[serde(default)]
    pub stop: Option<bool>,
    #[serde(borrow, default)]
    pub stop_type: Option<Text<'a>>,
    #[serde(default)]
    pub tokens_predicted: Option<u64>,
    #[serde(default)]
    pub tokens_evaluated: Option<u64>,
}

/// One of the answers of a chunk.
#[derive(Debug, Default, Deserialize)]
pub struct Choice<'a> {
    #[serde(default)]
    pub index: u64,
    #[serde(borrow, default, alias = "message")]
    pub delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    pub text: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub finish_reason: Option<Text<'a>>,
    /// vLLM: the stop sequence (a string) or stop token (a number) that ended the answer.
    #[serde(default)]
    pub stop_reason: Option<Value>,
    #[serde(default)]
    pub logprobs: Option<Logprobs>,
}

/// What is new in a message.
#[derive(Debug, Default, Deserialize)]
pub struct Delta<'a> {
    #[serde(borrow, default)]
    pub content: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub reasoning_content: Option<Text<'a>>,
    /// The name that vLLM and mlx-lm use for `reasoning_content`.
    #[serde(borrow, default)]
    pub reasoning: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub tool_calls: Option<Vec<ToolCall<'a>>>,
}

/// A piece of a tool call.
#[derive(Debug, Default, Deserialize)]
pub struct ToolCall<'a> {
    #[serde(default)]
    pub index: Option<u64>,
    #[serde(borrow, default)]
    pub id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub function: Option<Function<'a>>,
}

/// The function of a tool call.
#[derive(Debug, Default, Deserialize)]
pub struct Function<'a> {
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub arguments: Option<Text<'a>>,
}

/// Log probabilities in the shape of chat completions.
#[derive(Debug, Default, Deserialize)]
pub struct Logprobs {
    #[serde(default)]
    pub content: Option<Vec<Value>>,
}

/// The stop sequence that ended the answer.
#[derive(Debug, Default, Deserialize)]
pub struct Verbose<'a> {
    #[serde(borrow, default)]
    pub stopping_word: Option<Text<'a>>,
}

/// OpenAI's `usage`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Counts {
    #[serde(default)]
    pub prompt_tokens: u64,
    #[serde(default)]
    pub completion_tokens: u64,
    #[serde(default)]
    pub prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    pub completion_tokens_details: Option<CompletionDetails>,
}

/// OpenAI's `usage.prompt_tokens_details`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PromptDetails {
    #[serde(default)]
    pub cached_tokens: Option<u64>,
}

/// OpenAI's `usage.completion_tokens_details`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct CompletionDetails {
    #[serde(default)]
    pub reasoning_tokens: Option<u64>,
}

/// llama-server's `timings`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Timings {
    #[serde(default)]
    pub cache_n: u64,
    #[serde(default)]
    pub prompt_n: u64,
    #[serde(default)]
    pub prompt_ms: f64,
    #[serde(default)]
    pub predicted_n: u64,
    #[serde(default)]
    pub predicted_ms: f64,
}

/// llama-server's `prompt_progress`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Progress {
    #[serde(default)]
    pub total: u64,
    #[serde(default)]
    pub cache: u64,
}

/// Tokens of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the whole prompt, cached ones included.
    pub prompt_tokens: u64,
    /// Tokens of the prompt that came from the engine's cache.
    pub cached_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Tokens of the answer that were reasoning, where the engine says so.
    pub reasoning_tokens: u64,
    /// Whether the engine has counted. Otherwise `completion_tokens` is the number of pieces that were streamed.
    pub measured: bool,
}

/// How long the engine took, where it says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Time spent on the prompt.
    pub prompt: Duration,
    /// Time spent on the answer.
    pub answer: Duration,
}

impl Usage {
    /// Takes over what a chunk says about tokens.
    pub fn update(&mut self, chunk: &Chunk<'_>) {
        if let Some(counts) = &chunk.usage {
            self.take_counts(counts);
        } else if let Some(timings) = &chunk.timings
            && !self.measured
            && chunk.choices.iter().all(|choice| choice.finish_reason.is_some())
        {
            self.prompt_tokens = timings.cache_n.saturating_add(timings.prompt_n);
            self.cached_tokens = timings.cache_n;
            self.completion_tokens = timings.predicted_n;
            self.measured = true;
        }
        if let (Some(true), Some(count)) = (chunk.stop, chunk.tokens_predicted) {
            self.completion_tokens = count;
            self.prompt_tokens = chunk.tokens_evaluated.unwrap_or(self.prompt_tokens);
            self.measured = true;
        }
    }

    /// Takes over an OpenAI `usage`.
    pub fn take_counts(&mut self, counts: &Counts) {
        self.prompt_tokens = counts.prompt_tokens;
        self.completion_tokens = counts.completion_tokens;
        self.cached_tokens =
            counts.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens).unwrap_or(0);
        self.reasoning_tokens = counts
            .completion_tokens_details
            .as_ref()
            .and_then(|details| details.reasoning_tokens)
            .unwrap_or(0);
        self.measured = true;
    }
}

impl Timings {
    /// The two durations; nonsense becomes zero.
    pub fn times(&self) -> Times {
        let duration = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::ZERO);
        Times { prompt: duration(self.prompt_ms), answer: duration(self.predicted_ms) }
    }
}

impl<'a> Delta<'a> {
    /// The reasoning that is new, under whichever name the engine uses.
    pub fn thought(&self) -> &str {
        [&self.reasoning_content, &self.reasoning]
            .into_iter()
            .flatten()
            .map(|text| text.0.as_ref())
            .find(|text| !text.is_empty())
            .unwrap_or("")
    }

    /// The text that is new.
    pub fn said(&self) -> &str {
        self.content.as_ref().map_or("", |text| &text.0)
    }
}

impl Choice<'_> {
    /// Why the answer ended, if it did: `stop`, `length`, `tool_calls`, …
    pub fn finish(&self) -> Option<&str> {
        self.finish_reason.as_ref().map(|text| text.0.as_ref())
    }
}

/// Parses a chunk or a whole answer.
pub fn parse(bytes: &[u8]) -> Result<Chunk<'_>, serde_json::Error> {
    serde_json::from_slice(bytes)
}
