//! What the dialects' tests share: recorded answers of engines, requests, and ways to run them.
#![allow(dead_code)]

use std::time::{Duration, SystemTime};

use pontoon_api::dialect::{Call, End, Endpoint, Meta, StreamTranslator, no_history, prepare};
use serde_json::{Value, json};

/// Streams of llama-server with the toy model, and some in the manner of vLLM and mlx-lm.
pub const STREAMS: &[(&str, &[u8])] = &[
    ("chat", include_bytes!("chat.sse")),
    ("stop", include_bytes!("stop.sse")),
    ("logprobs", include_bytes!("logprobs.sse")),
    ("tools", include_bytes!("tools.sse")),
    ("completion", include_bytes!("completion.sse")),
    ("reasoning", include_bytes!("reasoning.sse")),
    ("spaced", include_bytes!("spaced.sse")),
    ("two-tools", include_bytes!("two-tools.sse")),
];

pub const MODEL: &str = "ai/toy:latest";

pub const ELAPSED: Duration = Duration::from_millis(1500);

pub fn stream(name: &str) -> &'static [u8] {
    STREAMS.iter().find(|(known, _)| *known == name).expect("a recorded stream").1
}

/// One request for each endpoint that streams.
pub fn streaming() -> Vec<(Endpoint, Value)> {
    let messages = json!([{"role": "user", "content": "hello"}]);
    vec![
        (Endpoint::ChatCompletions, json!({"model": MODEL, "messages": messages, "stream": true})),
        (
            Endpoint::ChatCompletions,
            json!({"model": MODEL, "messages": messages, "stream": true, "stream_options": {"include_usage": true}}),
        ),
        (Endpoint::Completions, json!({"model": MODEL, "prompt": "hello", "stream": true, "logprobs": 1})),
        (
            Endpoint::Messages,
            json!({"model": MODEL, "messages": messages, "stream": true, "max_tokens": 9, "stop_sequences": ["Madrid", "END"]}),
        ),
        (Endpoint::OllamaChat, json!({"model": MODEL, "messages": messages})),
        (Endpoint::OllamaGenerate, json!({"model": MODEL, "prompt": "hello"})),
        (Endpoint::Responses, json!({"model": MODEL, "input": "hello", "stream": true})),
    ]
}

pub fn call(endpoint: Endpoint, body: &Value) -> Call {
    prepare(endpoint, body.to_string().as_bytes(), &no_history)
        .unwrap_or_else(|error| panic!("{endpoint:?}: {error}"))
}

pub fn meta() -> Meta {
    Meta {
        request_id: "r1".into(),
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        load: Duration::from_millis(250),
    }
}

/// Runs a stream that comes in the pieces that `cuts` make of it.
pub fn translate(call: &Call, bytes: &[u8], cuts: &[usize], end: End<'_>) -> (String, StreamTranslator) {
    let mut translator = call.translator(&meta());
    let mut out = Vec::new();
    let mut start = 0;
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    for end in ends {
        translator.push(ELAPSED, &bytes[start..end], &mut out);
        start = end;
    }
    translator.finish(ELAPSED, end, &mut out);
    (String::from_utf8_lossy(&out).into_owned(), translator)
}

/// The data of server-sent events, or the lines of newline-delimited JSON.
pub fn events(call: &Call, text: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    match call.content_type() {
        "application/x-ndjson" => text.lines().map(parse).collect(),
        _ => text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(parse)
            .collect(),
    }
}

/// The event types of an answer in order, runs of the same one written once.
pub fn kinds(events: &[Value]) -> Vec<String> {
    let mut kinds: Vec<String> =
        events.iter().map(|event| event["type"].as_str().unwrap_or("?").to_owned()).collect();
    kinds.dedup();
    kinds
}
