//! Sound requests of Anthropic's, Ollama's and the Responses API's clients, and the chat that becomes of them.

mod dialect;

use std::time::Duration;

use dialect::{MODEL, call, meta};
use pontoon_api::dialect::{Action, Endpoint, KeepAlive, Mode, limits};
use serde_json::{Value, json};

fn sent(endpoint: Endpoint, body: Value) -> Value {
    let call = call(endpoint, &body);
    let Action::Run(request) = &call.action else { panic!("{endpoint:?} asks no engine") };
    serde_json::from_slice(&request.body("engine")).unwrap()
}

#[test]
fn anthropic_becomes_a_chat() {
    let schema = json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "string"}}});
    let body = json!({
        "model": MODEL, "max_tokens": 100, "system": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "calling"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"z": "1", "a": "2"}}]},
            {"role": "user", "content": [{"type": "text", "text": "and?"},
                {"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [{"type": "text", "text": "bad"}]}]},
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": schema}, {"name": "g", "input_schema": schema}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
        "thinking": {"type": "enabled", "budget_tokens": 64}, "stop_sequences": ["S"], "top_k": 5,
        "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": schema}},
    });
    let got = sent(Endpoint::Messages, body);
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    let call = json!({"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"z\":\"1\",\"a\":\"2\"}"}});
    assert_eq!(
        got["messages"],
        json!([
            {"role": "system", "content": "one\ntwo"},
            {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
            {"role": "assistant", "content": "calling", "reasoning_content": "hm", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t1", "content": "Error: bad"},
            {"role": "user", "content": "and?"},
        ])
    );
    let tool =
        json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}});
    assert_eq!((&got["tools"], &got["tool_choice"]), (&json!([tool]), &json!("required")));
    assert_eq!(got["parallel_tool_calls"], false);
    assert_eq!((&got["max_tokens"], &got["stop"], &got["top_k"]), (&json!(100), &json!(["S"]), &json!(5)));
    assert_eq!(got["thinking_budget_tokens"], 64);
    assert_eq!(got["chat_template_kwargs"], json!({"enable_thinking": true}));
    assert_eq!(got["reasoning_effort"], "high");
    assert_eq!(got["response_format"]["json_schema"]["schema"], schema);
    let order: Vec<&String> =
        got["tools"][0]["function"]["parameters"]["properties"].as_object().unwrap().keys().collect();
    assert_eq!(order, ["z", "a"], "the order of a schema's properties steers the model");
}

#[test]
fn anthropic_counts_by_two_ways() {
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}]});
    let call = call(Endpoint::CountTokens, &body);
    let Action::Run(request) = &call.action else { panic!() };
    assert_eq!(request.path, "/v1/chat/completions/input_tokens");
    assert_eq!(request.fallback.as_ref().unwrap().path, "/tokenize");
    for (answer, count) in [(r#"{"input_tokens":12}"#, 12), (r#"{"count":7,"max_model_len":9}"#, 7)] {
        let reply = call.reply(&meta(), Duration::ZERO, 200, answer.as_bytes()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&reply.body).unwrap(), json!({"input_tokens": count}));
    }
}

#[test]
fn ollama_becomes_a_chat() {
    let body = json!({
        "model": MODEL, "format": {"type": "object"}, "think": "max", "keep_alive": "90s", "logprobs": true, "stream": false,
        "messages": [
            {"role": "User", "content": "look", "images": ["iVBORw0KGgo="]},
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
                {"function": {"name": "f", "arguments": {"b": 1, "a": 2}}}, {"function": {"name": "g", "arguments": {}}}]},
            {"role": "tool", "tool_name": "g", "content": "gee"},
            {"role": "tool", "content": "eff"},
        ],
        "options": {"temperature": 0.5, "num_predict": 9, "num_ctx": 4096, "repeat_last_n": -1, "stop": ["S"], "num_gpu": 99, "numa": null},
    });
    let call = call(Endpoint::OllamaChat, &body);
    assert_eq!(call.keep_alive, Some(KeepAlive::For(Duration::from_secs(90))));
    assert_eq!((call.context_size, call.mode, call.stream), (Some(4096), Mode::Chat, false));
    assert_eq!(call.ignored, ["options.num_gpu"]);
    let got = sent(Endpoint::OllamaChat, body);
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}});
    assert_eq!(
        got["messages"][0],
        json!({"role": "user", "content": [{"type": "text", "text": "look"}, image]})
    );
    let calls = &got["messages"][1]["tool_calls"];
    assert_eq!(calls[0]["function"], json!({"name": "f", "arguments": "{\"b\":1,\"a\":2}"}));
    assert_eq!(got["messages"][2]["tool_call_id"], calls[1]["id"]);
    assert_eq!(got["messages"][3]["tool_call_id"], calls[0]["id"]);
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert_eq!((&got["max_tokens"], &got["repeat_last_n"]), (&json!(9), &json!(limits::LOOK_BACK)));
    assert_eq!(got["response_format"]["json_schema"]["schema"], json!({"type": "object"}));
    assert_eq!((&got["reasoning_effort"], &got["top_logprobs"]), (&json!("high"), &json!(1)));
}

#[test]
fn ollama_generates_in_three_ways() {
    let path = |body: Value| {
        let call = call(Endpoint::OllamaGenerate, &body);
        let Action::Run(request) = call.action else { panic!() };
        (request.path, serde_json::from_slice::<Value>(&request.body("engine")).unwrap())
    };
    let (chat, body) = path(json!({"model": MODEL, "prompt": "p", "system": "s"}));
    assert_eq!(chat, "/v1/chat/completions");
    assert_eq!(
        body["messages"],
        json!([{"role": "system", "content": "s"}, {"role": "user", "content": "p"}])
    );
    let (raw, body) = path(json!({"model": MODEL, "prompt": "p", "raw": true, "format": "json"}));
    assert_eq!(
        (raw, &body["prompt"], &body["json_schema"]),
        ("/v1/completions", &json!("p"), &json!({"type": "object"}))
    );
    let (infill, body) = path(json!({"model": MODEL, "prompt": "p", "suffix": "s"}));
    assert_eq!((infill, &body["input_prefix"], &body["input_suffix"]), ("/infill", &json!("p"), &json!("s")));
}

#[test]
fn ollama_loads_and_unloads() {
    let action = |endpoint, body: Value| {
        let call = call(endpoint, &body);
        let reply = call.immediate(&meta(), Duration::ZERO);
        (matches!(call.action, Action::Unload), serde_json::from_slice::<Value>(&reply.body).unwrap())
    };
    let (unload, body) = action(Endpoint::OllamaGenerate, json!({"model": MODEL}));
    assert!(!unload && body["done_reason"] == "load" && body["response"] == "" && body["done"] == true);
    let (unload, body) =
        action(Endpoint::OllamaGenerate, json!({"model": MODEL, "prompt": "", "keep_alive": 0}));
    assert!(unload && body["done_reason"] == "unload");
    let (unload, body) =
        action(Endpoint::OllamaChat, json!({"model": MODEL, "messages": [], "keep_alive": "0s"}));
    assert!(unload && body["message"]["role"] == "assistant");
    let (unload, body) = action(Endpoint::OllamaEmbed, json!({"model": MODEL, "input": []}));
    assert!(!unload && body["embeddings"] == json!([]));
}

#[test]
fn responses_become_a_chat() {
    let call_item = json!({"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"});
    let body = json!({
        "model": MODEL, "instructions": "be", "max_output_tokens": 7, "reasoning": {"effort": "low"}, "top_logprobs": 3,
        "input": [
            {"role": "developer", "content": "dev"},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "data:image/png;base64,AA=="}]},
            {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "id": "m", "content": [{"type": "output_text", "text": "said"}]},
            call_item,
            {"type": "function_call_output", "call_id": "c1", "output": "out"},
            {"role": "user", "content": "b"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": true}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    });
    let got = sent(Endpoint::Responses, body);
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}});
    let tool_call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    assert_eq!(
        got["messages"],
        json!([
            {"role": "system", "content": "be"},
            {"role": "system", "content": "dev"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, image]},
            {"role": "assistant", "content": "said", "reasoning_content": "hm", "tool_calls": [tool_call]},
            {"role": "tool", "tool_call_id": "c1", "content": "out"},
            {"role": "user", "content": "b"},
        ])
    );
    assert_eq!(
        (&got["max_tokens"], &got["reasoning_effort"], &got["top_logprobs"]),
        (&json!(7), &json!("low"), &json!(3))
    );
    assert_eq!(got["tool_choice"], "required");
    assert_eq!(got["response_format"]["json_schema"]["name"], "n");
}
