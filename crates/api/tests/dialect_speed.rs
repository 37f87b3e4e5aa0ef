//! What a dialect costs for each request and each streamed token. Run with
//! `cargo test --release -p pontoon-api --test dialect_speed -- --ignored --nocapture`.

mod dialect;

use std::time::Instant;

use dialect::{ELAPSED, MODEL, call, meta, streaming};
use pontoon_api::dialect::{Action, End, Endpoint, no_history, prepare};
use serde_json::json;

/// 2,000 tokens as llama-server sends them, an event in each piece of the body.
fn pieces() -> Vec<Vec<u8>> {
    let event = |choice: &str, more: &str| {
        format!(
            "data: {{\"choices\":[{choice}],\"created\":1795251590,\"id\":\"chatcmpl-IKl9r8ryzK0JL7Yq01za1HMTpAGyIVM0\",\
             \"model\":\"engine\",\"system_fingerprint\":\"b1-0c1e570\",\"object\":\"chat.completion.chunk\"{more}}}\n\n"
        )
        .into_bytes()
    };
    let mut pieces: Vec<Vec<u8>> = (0..2000)
        .map(|n| {
            event(
                &format!("{{\"finish_reason\":null,\"index\":0,\"delta\":{{\"content\":\" word{n}\"}}}}"),
                "",
            )
        })
        .collect();
    pieces.push(event("{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{}}", ""));
    pieces.push(event(
        "",
        ",\"usage\":{\"completion_tokens\":2000,\"prompt_tokens\":20,\"total_tokens\":2020}",
    ));
    pieces.push(b"data: [DONE]\n\n".to_vec());
    pieces
}

#[test]
#[ignore = "measures time"]
fn cost_of_a_token() {
    let pieces = pieces();
    for (endpoint, body) in streaming().into_iter().filter(|(endpoint, _)| *endpoint != Endpoint::Completions)
    {
        let call = call(endpoint, &body);
        let mut best = f64::MAX;
        for _ in 0..20 {
            let mut translator = call.translator(&meta());
            let mut out = Vec::with_capacity(4096);
            let begun = Instant::now();
            for piece in &pieces {
                out.clear();
                translator.push(ELAPSED, piece, &mut out);
            }
            translator.finish(ELAPSED, End::Complete, &mut out);
            best = best.min(begun.elapsed().as_nanos() as f64 / pieces.len() as f64);
            assert!(translator.failed().is_none() && translator.usage().completion_tokens == 2000);
        }
        println!("{endpoint:?}: {best:.0} ns a token");
        assert!(best < 20_000.0, "the limit is 20 µs a token");
    }
}

#[test]
#[ignore = "measures time"]
fn cost_of_a_request() {
    let text = "All work and no play makes the model a dull one. ".repeat(160);
    let messages = json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]);
    for (endpoint, body) in [
        (
            Endpoint::ChatCompletions,
            json!({"model": MODEL, "messages": messages, "stream": true, "temperature": 0.5}),
        ),
        (
            Endpoint::Messages,
            json!({"model": MODEL, "max_tokens": 50, "messages": [messages[1]], "stream": true}),
        ),
        (
            Endpoint::OllamaChat,
            json!({"model": MODEL, "messages": messages, "options": {"temperature": 0.5}}),
        ),
        (Endpoint::Responses, json!({"model": MODEL, "input": text})),
    ] {
        let body = body.to_string();
        let mut best = f64::MAX;
        for _ in 0..200 {
            let begun = Instant::now();
            let call = prepare(endpoint, body.as_bytes(), &no_history).unwrap();
            let Action::Run(request) = &call.action else { panic!() };
            assert!(request.body("engine").len() > 7000);
            best = best.min(begun.elapsed().as_nanos() as f64 / 1e3);
        }
        println!("{endpoint:?}: {best:.1} µs a request of {} bytes", body.len());
        assert!(best < 150.0, "the limit is 150 µs a request");
    }
}
