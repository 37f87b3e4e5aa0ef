//! Streams of engines through every dialect: any chunking, early ends, garbage, and the order of events.

mod dialect;

use dialect::{ELAPSED, MODEL, call, events, kinds, meta, stream, streaming, translate};
use pontoon_api::dialect::{DialectError, End, Endpoint, ErrorKind, Usage};
use proptest::prelude::*;
use serde_json::{Value, json};

fn is_error(endpoint: Endpoint, event: &Value) -> bool {
    match endpoint {
        Endpoint::Messages => event["type"] == "error",
        Endpoint::Responses => event["type"] == "response.failed",
        _ => event.get("error").is_some(),
    }
}

/// The text of an answer, whatever its dialect.
fn text(endpoint: Endpoint, events: &[Value]) -> String {
    events
        .iter()
        .filter_map(|event| match endpoint {
            Endpoint::Completions => event["choices"][0]["text"].as_str(),
            Endpoint::ChatCompletions => event["choices"][0]["delta"]["content"].as_str(),
            Endpoint::Messages => event["delta"]["text"].as_str(),
            Endpoint::OllamaChat => event["message"]["content"].as_str(),
            Endpoint::OllamaGenerate => event["response"].as_str(),
            _ => event["delta"].as_str().filter(|_| event["type"] == "response.output_text.delta"),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn chunking_changes_nothing(cuts in prop::collection::vec(any::<usize>(), 0..40), which in 0..8usize) {
        let (name, bytes) = dialect::STREAMS[which];
        for (endpoint, body) in streaming() {
            let call = call(endpoint, &body);
            let (whole, _) = translate(&call, bytes, &[], End::Complete);
            let (cut, translator) = translate(&call, bytes, &cuts, End::Complete);
            prop_assert_eq!(&whole, &cut, "{} as {:?}", name, endpoint);
            prop_assert!(translator.ended() && translator.failed().is_none());
        }
    }

    #[test]
    fn an_early_end_is_one_error(at in any::<usize>(), which in 0..8usize) {
        let (name, bytes) = dialect::STREAMS[which];
        // Before the event that says why the answer ended.
        let full = String::from_utf8_lossy(bytes);
        let last = full.rfind("\"finish_reason\":\"").or_else(|| full.rfind("\"finish_reason\": \"")).unwrap_or(0);
        let end = full[..last].rfind("data:").unwrap_or(0);
        let part = &bytes[..at % (end + 1)];
        for (endpoint, body) in streaming() {
            let call = call(endpoint, &body);
            let (out, translator) = translate(&call, part, &[], End::Complete);
            let events = events(&call, &out);
            let errors = events.iter().filter(|event| is_error(endpoint, event)).count();
            prop_assert_eq!(errors, 1, "{} as {:?}: {}", name, endpoint, out);
            prop_assert!(is_error(endpoint, events.last().unwrap()));
            prop_assert!(translator.failed().is_some());
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), cuts in prop::collection::vec(any::<usize>(), 0..5)) {
        for (endpoint, body) in streaming() {
            let call = call(endpoint, &body);
            translate(&call, &bytes, &cuts, End::Complete);
        }
    }

    #[test]
    fn damaged_events_never_panic(position in any::<usize>(), byte in any::<u8>(), which in 0..8usize) {
        let mut bytes = dialect::STREAMS[which].1.to_vec();
        let position = position % bytes.len();
        bytes[position] = byte;
        for (endpoint, body) in streaming() {
            let call = call(endpoint, &body);
            let mut translator = call.translator(&meta());
            let mut out = Vec::new();
            translator.push(ELAPSED, &bytes, &mut out);
            translator.finish(ELAPSED, End::Complete, &mut out);
            prop_assert!(translator.ended());
        }
    }
}

#[test]
fn every_dialect_says_the_same() {
    for (name, bytes) in dialect::STREAMS {
        let texts: Vec<(Endpoint, String)> = streaming()
            .into_iter()
            .filter(|(endpoint, _)| (*endpoint == Endpoint::Completions) == (*name == "completion"))
            .map(|(endpoint, body)| {
                let call = call(endpoint, &body);
                let (out, _) = translate(&call, bytes, &[], End::Complete);
                (endpoint, text(endpoint, &events(&call, &out)))
            })
            .collect();
        for (endpoint, text) in &texts {
            assert_eq!(text, &texts[0].1, "{name} as {endpoint:?}");
        }
    }
}

#[test]
fn openai_passes_bytes_through() {
    let body = json!({"model": "engine", "messages": [{"role": "user", "content": "x"}], "stream": true,
                      "stream_options": {"include_usage": true}});
    let call = call(Endpoint::ChatCompletions, &body);
    let bytes = stream("chat");
    let (out, translator) = translate(&call, bytes, &[], End::Complete);
    assert_eq!(out.as_bytes(), bytes);
    assert_eq!(translator.tokens(), 11);
    let usage = Usage { prompt_tokens: 20, completion_tokens: 12, measured: true, ..translator.usage() };
    assert_eq!(translator.usage(), usage);
}

#[test]
fn openai_renames_the_model_and_nothing_else() {
    let (_, body) = streaming().remove(1);
    let call = call(Endpoint::ChatCompletions, &body);
    for name in ["chat", "tools", "logprobs"] {
        let (out, _) = translate(&call, stream(name), &[], End::Complete);
        let expected = String::from_utf8_lossy(stream(name))
            .replace("\"model\":\"engine\"", &format!("\"model\":{MODEL:?}"));
        assert_eq!(out, expected);
    }
    for name in ["reasoning", "spaced"] {
        let (out, _) = translate(&call, stream(name), &[], End::Complete);
        assert!(events(&call, &out).iter().all(|event| event["model"] == MODEL), "{out}");
        assert!(out.contains(r#"\"model\": 8."#), "a text that looks like the field stays: {out}");
    }
}

#[test]
fn usage_is_counted_and_shown_only_when_asked() {
    let (_, body) = streaming().remove(0);
    let call = call(Endpoint::ChatCompletions, &body);
    let (out, translator) = translate(&call, stream("chat"), &[], End::Complete);
    assert!(!out.contains("\"usage\""), "{out}");
    assert!(out.ends_with("data: [DONE]\n\n"));
    assert_eq!((translator.usage().prompt_tokens, translator.usage().completion_tokens), (20, 12));
    let (_, cut) = translate(&call, &stream("chat")[..900], &[], End::Complete);
    assert!(!cut.usage().measured && cut.usage().completion_tokens == cut.tokens() && cut.tokens() > 0);
}

#[test]
fn timings_count_where_usage_does_not_come() {
    for (endpoint, body) in streaming() {
        let call = call(endpoint, &body);
        let (_, translator) = translate(&call, stream("two-tools"), &[], End::Complete);
        let usage = translator.usage();
        let counts = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.measured);
        assert_eq!(counts, (10, 4, 12, true), "{endpoint:?}");
    }
}

#[test]
fn engine_errors_inside_a_stream_are_told_in_shape() {
    let wire =
        b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n\
                 data: {\"error\":{\"code\":500,\"message\":\"slot lost\",\"type\":\"server_error\"}}\n\n";
    for (endpoint, body) in streaming() {
        let call = call(endpoint, &body);
        let (out, translator) = translate(&call, wire, &[], End::Complete);
        assert!(out.contains("slot lost"), "{endpoint:?}: {out}");
        assert_eq!(translator.failed(), Some("slot lost"));
        assert_eq!(events(&call, &out).iter().filter(|event| is_error(endpoint, event)).count(), 1);
        assert!(!out.contains("[DONE]") && !out.contains("message_stop"));
    }
}

#[test]
fn a_dead_engine_is_told_in_shape() {
    let error = DialectError::new(ErrorKind::Unavailable, "the engine of ai/toy ended unexpectedly");
    for (endpoint, body) in streaming() {
        let call = call(endpoint, &body);
        let (out, _) = translate(&call, &stream("chat")[..800], &[], End::Failed(&error));
        let events = events(&call, &out);
        let last = events.last().unwrap();
        assert!(is_error(endpoint, last) && last.to_string().contains("ended unexpectedly"), "{out}");
        if endpoint == Endpoint::Messages {
            assert_eq!(last["error"]["type"], "overloaded_error");
            assert_eq!(last["request_id"], "r1");
        }
    }
}

#[test]
fn events_over_the_limit_are_refused() {
    let (endpoint, body) = streaming().remove(3);
    let call = call(endpoint, &body);
    let mut translator = call.translator(&meta());
    let mut out = Vec::new();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..9 {
        translator.push(ELAPSED, &piece, &mut out);
    }
    assert!(translator.ended() && translator.failed().is_some_and(|text| text.contains("8 MiB")));
}

/// What engines call reasoning differs; what callers get does not.
#[test]
fn reasoning_is_taken_under_both_of_its_names() {
    let named = String::from_utf8_lossy(stream("reasoning"));
    let other = named.replace("\"reasoning\":", "\"reasoning_content\":");
    assert_ne!(named, other);
    for (at, text) in [(3, "thinking_delta"), (6, "reasoning_text.delta")] {
        let (endpoint, body) = streaming().remove(at);
        let call = call(endpoint, &body);
        let (out, _) = translate(&call, named.as_bytes(), &[], End::Complete);
        let (same, _) = translate(&call, other.as_bytes(), &[], End::Complete);
        assert!(out.contains(text), "{out}");
        assert_eq!(out, same);
    }
}

#[test]
fn anthropic_events_are_in_order() {
    let (endpoint, body) = streaming().remove(3);
    let call = call(endpoint, &body);
    let (out, _) = translate(&call, stream("reasoning"), &[], End::Complete);
    let all = events(&call, &out);
    let mut kinds = kinds(&all);
    // The engine's comment came through as a ping.
    kinds.retain(|kind| kind != "ping");
    kinds.dedup();
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    let expected = [&["message_start"], &block[..], &block[..], &["message_delta", "message_stop"]].concat();
    assert_eq!(kinds, expected);
    let started: Vec<&Value> = all
        .iter()
        .filter(|event| event["type"] == "content_block_start")
        .map(|event| &event["content_block"]["type"])
        .collect();
    assert_eq!(started, ["thinking", "text"]);
    let thought: String = all.iter().filter_map(|event| event["delta"]["thinking"].as_str()).collect();
    assert_eq!(thought, "Let me think: \"8\" é😀");
    assert!(all.iter().any(|event| event["delta"]["type"] == "signature_delta"));
    let delta = all.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!(delta["delta"], json!({"stop_reason": "stop_sequence", "stop_sequence": "END"}));
    assert_eq!(delta["usage"]["output_tokens"], 5);
}

#[test]
fn anthropic_tells_prompt_tokens_first_and_the_stop_sequence_last() {
    let (endpoint, body) = streaming().remove(3);
    let call = call(endpoint, &body);
    let (out, _) = translate(&call, stream("stop"), &[], End::Complete);
    let all = events(&call, &out);
    let usage = &all[0]["message"]["usage"];
    let known = usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    assert!(known > 10, "{usage}");
    let delta = &all[all.len() - 2];
    assert_eq!(delta["delta"], json!({"stop_reason": "stop_sequence", "stop_sequence": "Madrid"}));
}

#[test]
fn anthropic_tools_stream_as_json() {
    let (endpoint, body) = streaming().remove(3);
    let call = call(endpoint, &body);
    let (out, _) = translate(&call, stream("two-tools"), &[], End::Complete);
    let all = events(&call, &out);
    let tools: Vec<&Value> = all
        .iter()
        .filter(|event| event["content_block"]["type"] == "tool_use")
        .map(|event| &event["content_block"])
        .collect();
    assert_eq!(tools[0], &json!({"type": "tool_use", "id": "a1", "name": "get_weather", "input": {}}));
    assert_eq!(tools[1]["name"], "get_time");
    assert!(tools[1]["id"].as_str().unwrap().starts_with("toolu_r1"));
    let arguments: String = all.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(arguments, "{\"city\": \"Rome\"}{}");
    assert_eq!(all[all.len() - 2]["delta"]["stop_reason"], "tool_use");
}

#[test]
fn ollama_ends_with_measures() {
    for index in [4, 5] {
        let (endpoint, body) = streaming().remove(index);
        let call = call(endpoint, &body);
        let (out, _) = translate(&call, stream("chat"), &[], End::Complete);
        let all = events(&call, &out);
        let (last, before) = all.split_last().unwrap();
        assert!(before.iter().all(|line| line["done"] == false && line["model"] == MODEL));
        assert_eq!(last["done_reason"], "stop");
        assert_eq!(last["total_duration"], 1_500_000_000);
        assert_eq!(last["load_duration"], 250_000_000);
        assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&json!(20), &json!(12)));
        assert!(
            last["eval_duration"].as_u64().unwrap() > 0 && last["prompt_eval_duration"].as_u64().unwrap() > 0
        );
        assert_eq!(last["created_at"], "2023-11-14T22:13:21.500000000Z");
        assert_eq!(last.get("context").is_some(), endpoint == Endpoint::OllamaGenerate);
    }
}

#[test]
fn ollama_tool_calls_come_whole() {
    let (endpoint, body) = streaming().remove(4);
    let call = call(endpoint, &body);
    let (out, _) = translate(&call, stream("two-tools"), &[], End::Complete);
    let calls: Vec<Value> = events(&call, &out)
        .iter()
        .filter_map(|line| line["message"]["tool_calls"].as_array().cloned())
        .flatten()
        .map(|call| call["function"].clone())
        .collect();
    let weather = json!({"index": 0, "name": "get_weather", "arguments": {"city": "Rome"}});
    assert_eq!(calls, [weather, json!({"index": 1, "name": "get_time", "arguments": {}})]);
}

#[test]
fn responses_events_are_numbered_and_in_order() {
    let (endpoint, body) = streaming().remove(6);
    let call = call(endpoint, &body);
    let (out, mut translator) = translate(&call, stream("reasoning"), &[], End::Complete);
    let all = events(&call, &out);
    let numbers: Vec<u64> = all.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>());
    let item = |delta: &str, done: &str| {
        ["output_item.added", "content_part.added", delta, done, "content_part.done", "output_item.done"]
            .map(|name| format!("response.{name}"))
            .to_vec()
    };
    let expected = [
        vec!["response.created".to_owned(), "response.in_progress".into()],
        item("reasoning_text.delta", "reasoning_text.done"),
        item("output_text.delta", "output_text.done"),
        vec!["response.completed".into()],
    ]
    .concat();
    assert_eq!(kinds(&all), expected);
    let response = &all.last().unwrap()["response"];
    assert_eq!(response["output"][0]["content"][0]["text"], "Let me think: \"8\" é😀");
    assert_eq!(response["output"][1]["content"][0]["text"], "It is \"model\": 8.\n");
    assert_eq!(response["usage"]["output_tokens_details"]["reasoning_tokens"], 2);
    let stored = translator.take_stored().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(stored.response()).unwrap(), *response);
}

#[test]
fn responses_cut_off_are_incomplete() {
    let (endpoint, body) = streaming().remove(6);
    let call = call(endpoint, &body);
    let (out, _) = translate(&call, stream("logprobs"), &[], End::Complete);
    let last = events(&call, &out).pop().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
    assert_eq!(last["response"]["output"][0]["content"][0]["logprobs"].as_array().unwrap().len(), 3);
}

#[test]
fn text_completions_have_their_own_log_probabilities() {
    let (endpoint, body) = streaming().remove(2);
    let call = call(endpoint, &body);
    let (out, _) = translate(&call, stream("completion"), &[], End::Complete);
    let all = events(&call, &out);
    let mut offset = 0;
    for event in all.iter().filter(|event| event["choices"][0]["logprobs"].is_object()) {
        let logprobs = &event["choices"][0]["logprobs"];
        assert_eq!(logprobs["text_offset"][0], offset);
        offset += logprobs["tokens"][0].as_str().unwrap().chars().count();
        assert!(logprobs["token_logprobs"][0].as_f64().unwrap() <= 0.0);
    }
    assert!(offset > 5);
}
