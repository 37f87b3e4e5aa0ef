//! Ollama's dialect: `/api/chat`, `/api/generate`, embeddings, lists, and the shapes of model management.

mod context;
mod lists;
mod manage;
mod options;
mod reply;
mod request;
mod stream;

pub use lists::{ps, show, tags, version};
pub use manage::{Manage, ManageRequest, Progress, manage, progress, progress_error};
pub(super) use reply::{immediate, reply};
pub(super) use request::prepare;
pub(super) use stream::Stream;

use serde_json::{Map, Value, json};

use super::chunk::{Timings, ToolCall, Usage};

/// What an answer needs to know about its request.
#[derive(Debug)]
pub(super) struct Answer {
    shape: Shape,
    /// What an empty request does: `load` or `unload`.
    done_reason: &'static str,
    /// `/api/generate`: the conversation before this answer, which comes back as `context`.
    turns: Option<Vec<Value>>,
    /// `/api/embed`: fewer dimensions than the model has.
    dimensions: Option<usize>,
}

/// The shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Chat,
    Generate,
    Embed,
    Embeddings,
}

/// Durations and counts at the end of an answer, in nanoseconds and tokens.
#[derive(Debug, Default)]
struct Measures {
    total: u128,
    load: u128,
    prompt: u128,
    answer: u128,
}

impl Measures {
    /// Uses the engine's own times, or else what could be seen from outside.
    fn new(
        meta: &super::call::Meta,
        elapsed: std::time::Duration,
        first: Option<std::time::Duration>,
        timings: Option<&Timings>,
    ) -> Self {
        let seen = first.unwrap_or(elapsed);
        let (prompt, answer) = match timings {
            Some(timings) => {
                let times = timings.times();
                (times.prompt, times.answer)
            }
            None => (seen.saturating_sub(meta.load), elapsed.saturating_sub(seen)),
        };
        Self {
            total: elapsed.as_nanos(),
            load: meta.load.as_nanos(),
            prompt: prompt.as_nanos(),
            answer: answer.as_nanos(),
        }
    }

    fn put(&self, usage: &Usage, map: &mut Map<String, Value>) {
        let nanos = |nanos: u128| u64::try_from(nanos).unwrap_or(u64::MAX).into();
        map.insert("total_duration".into(), nanos(self.total));
        map.insert("load_duration".into(), nanos(self.load));
        map.insert("prompt_eval_count".into(), usage.prompt_tokens.into());
        map.insert("prompt_eval_duration".into(), nanos(self.prompt));
        map.insert("eval_count".into(), usage.completion_tokens.into());
        map.insert("eval_duration".into(), nanos(self.answer));
    }
}

/// Why the answer ended, in Ollama's words.
fn done_reason(finish: &str) -> &'static str {
    if finish == "length" || finish == "limit" { "length" } else { "stop" }
}

/// A tool call while its arguments are still coming.
#[derive(Debug, Default)]
struct PartialCall {
    id: String,
    name: String,
    arguments: String,
}

impl PartialCall {
    fn add(&mut self, call: &ToolCall<'_>) {
        if let Some(id) = &call.id {
            self.id = id.0.as_ref().to_owned();
        }
        if let Some(function) = &call.function {
            self.name.push_str(function.name.as_ref().map_or("", |text| &text.0));
            self.arguments.push_str(function.arguments.as_ref().map_or("", |text| &text.0));
        }
    }

    fn value(&self, index: usize) -> Value {
        let arguments = super::anthropic::arguments_object(&self.arguments);
        let function = json!({"index": index, "name": self.name, "arguments": arguments});
        if self.id.is_empty() {
            return json!({"function": function});
        }
        json!({"id": self.id, "function": function})
    }
}

/// Log probabilities in Ollama's shape, which is OpenAI's without the engine's additions.
fn logprobs(tokens: &[Value]) -> Vec<Value> {
    fn one(token: &Value) -> Map<String, Value> {
        let mut map = Map::new();
        for key in ["token", "logprob", "bytes"] {
            if let Some(value) = token.get(key) {
                map.insert(key.into(), value.clone());
            }
        }
        map
    }
    tokens
        .iter()
        .map(|token| {
            let mut map = one(token);
            if let Some(top) =
                token.get("top_logprobs").and_then(Value::as_array).filter(|top| !top.is_empty())
            {
                map.insert("top_logprobs".into(), top.iter().map(one).collect::<Vec<_>>().into());
            }
            map.into()
        })
        .collect()
}
