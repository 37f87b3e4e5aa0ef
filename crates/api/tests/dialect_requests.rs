//! What callers send, well meant or hostile, and what the engine gets of it.

mod dialect;

use dialect::{MODEL, call, meta};
use pontoon_api::dialect::{
    Action, Dialect, DialectError, Endpoint, ErrorKind, limits, no_history, ollama, prepare,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::time::Duration;

const ENDPOINTS: &[Endpoint] = &[
    Endpoint::ChatCompletions,
    Endpoint::Completions,
    Endpoint::Embeddings,
    Endpoint::Rerank,
    Endpoint::Score,
    Endpoint::Responses,
    Endpoint::Messages,
    Endpoint::CountTokens,
    Endpoint::OllamaChat,
    Endpoint::OllamaGenerate,
    Endpoint::OllamaEmbed,
    Endpoint::OllamaEmbeddings,
];

/// Names that mean something to some dialect or engine.
const NAMES: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "input",
    "stream",
    "tools",
    "tool_choice",
    "stop",
    "stop_sequences",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "best_of",
    "temperature",
    "logprobs",
    "top_logprobs",
    "response_format",
    "format",
    "options",
    "keep_alive",
    "think",
    "thinking",
    "system",
    "template",
    "context",
    "raw",
    "suffix",
    "images",
    "text",
    "reasoning",
    "previous_response_id",
    "store",
    "instructions",
    "metadata",
    "query",
    "documents",
    "texts",
    "top_n",
    "text_1",
    "text_2",
    "dimensions",
    "encoding_format",
    "stream_options",
    "include",
    "output_config",
    "role",
    "content",
    "type",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "tool_use_id",
    "source",
    "data",
    "media_type",
    "url",
    "call_id",
    "output",
    "id",
    "n_discard",
    "id_slot",
    "chat_parser",
    "chat_template",
    "adapters",
    "draft_model",
];

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(
            &["user", "assistant", "system", "tool", "text", "image", "function", "message", "json"][..]
        )
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(NAMES), inner), 0..6).prop_map(|pairs| pairs
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

/// What every request that is understood has to hold to, and every error.
fn holds(endpoint: Endpoint, body: &[u8]) -> Result<(), TestCaseError> {
    match prepare(endpoint, body, &no_history) {
        Ok(call) => {
            prop_assert!(!call.model.is_empty() && call.model.len() <= limits::MODEL);
            if let Action::Run(request) = &call.action {
                let sent: Value = serde_json::from_slice(&request.body("engine \"x\"")).expect("a JSON body");
                prop_assert_eq!(&sent["model"], "engine \"x\"");
                for never in [
                    "n_discard",
                    "n_keep",
                    "id_slot",
                    "chat_parser",
                    "chat_template",
                    "adapters",
                    "draft_model",
                ] {
                    prop_assert!(sent.get(never).is_none(), "{} reached the engine", never);
                }
            } else {
                call.immediate(&meta(), Duration::ZERO);
            }
            call.translator(&meta());
        }
        Err(error) => well_told(&error)?,
    }
    Ok(())
}

fn well_told(error: &DialectError) -> Result<(), TestCaseError> {
    prop_assert!(!error.message.is_empty() && error.message.len() < 4000, "{}", error.message);
    for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Ollama] {
        prop_assert!((400..500).contains(&error.status(dialect)), "{:?}", error);
        let value: Value = serde_json::from_slice(&error.render(dialect, "r1")).expect("JSON");
        prop_assert!(value.get("error").is_some());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_json_in_any_field(pairs in prop::collection::vec((prop::sample::select(NAMES), values()), 0..10), named in any::<bool>()) {
        let mut map: Map<String, Value> = pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        if named {
            map.insert("model".into(), MODEL.into());
        }
        let body = Value::Object(map).to_string();
        for endpoint in ENDPOINTS {
            holds(*endpoint, body.as_bytes())?;
        }
    }

    #[test]
    fn any_json_inside_a_sound_request(value in values(), at in prop::sample::select(NAMES)) {
        for (endpoint, body) in dialect::streaming() {
            let mut body = body;
            body[at] = value.clone();
            holds(endpoint, body.to_string().as_bytes())?;
            let mut body = body;
            body["messages"] = json!([{"role": "user", "content": [value]}, {"role": "assistant", "content": value}]);
            holds(endpoint, body.to_string().as_bytes())?;
        }
    }

    #[test]
    fn any_bytes(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for endpoint in ENDPOINTS {
            holds(*endpoint, &body)?;
        }
        for kind in [ollama::Manage::Pull, ollama::Manage::Create, ollama::Manage::Copy, ollama::Manage::Show] {
            prop_assert!(ollama::manage(kind, &body).is_err());
        }
    }

    #[test]
    fn any_text_is_a_safe_sentence(text in ".{0,200}") {
        let body = json!({"model": text, "messages": [{"role": text, "content": text}], "tool_choice": text, "input": [{"type": text}]});
        for endpoint in ENDPOINTS {
            holds(*endpoint, body.to_string().as_bytes())?;
        }
    }
}

fn sent(endpoint: Endpoint, body: Value) -> Value {
    let call = call(endpoint, &body);
    let Action::Run(request) = &call.action else { panic!("{endpoint:?} asks no engine") };
    serde_json::from_slice(&request.body("engine")).unwrap()
}

fn refused(endpoint: Endpoint, body: Value) -> DialectError {
    prepare(endpoint, body.to_string().as_bytes(), &no_history).map(|_| ()).expect_err("refused")
}

#[test]
fn openai_bodies_pass_as_they_were_written() {
    let body = format!(
        r#"{{"model":"{MODEL}", "messages" : [ {{"role":"user","content":"a  \u00e9 b"}} ],"temperature":0.70,"top_k":3.0,"stream":false,"user":"me"}}"#
    );
    let call = prepare(Endpoint::ChatCompletions, body.as_bytes(), &no_history).unwrap();
    let Action::Run(request) = &call.action else { panic!() };
    let expected = r#"{"model":"engine","temperature":0.70,"top_k":3.0,"messages":[ {"role":"user","content":"a  \u00e9 b"} ]}"#;
    assert_eq!(String::from_utf8_lossy(&request.body("engine")), expected);
    assert_eq!(call.ignored, Vec::<String>::new());
}

#[test]
fn what_no_client_may_set_is_dropped_and_told() {
    let call = call(
        Endpoint::ChatCompletions,
        &json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "id_slot": 1, "n_discard": -1, "n\u{5f}keep": 2,
                "evil\nname,x": 1}),
    );
    assert_eq!(call.ignored, ["id_slot", "n_discard", "n_keep", "evilnamex"]);
}

#[test]
fn streams_always_count() {
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": true,
                      "stream_options": {"include_usage": false, "chunk_size": 9}});
    assert_eq!(sent(Endpoint::ChatCompletions, body)["stream_options"], json!({"include_usage": true}));
}

#[test]
fn bounds_name_value_and_limit() {
    let with = |field: &str, value: Value| {
        let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}]});
        body[field] = value;
        refused(Endpoint::ChatCompletions, body)
    };
    for (field, value, told) in [
        ("n", json!(17), "n must be a whole number from 1 to 16, got 17"),
        (
            "repeat_last_n",
            json!(2_147_483_647),
            "repeat_last_n must be a whole number from 0 to 65536, got 2147483647",
        ),
        ("temperature", json!("hot"), "temperature must be a number from 0 to 10, got \"hot\""),
        ("max_tokens", json!(1.5), "max_tokens must be a whole number from -1 to 2147483647, got 1.5"),
        ("stop", json!(vec!["x"; 65]), "stop has 65 elements, the limit is 64"),
        ("messages", json!([]), "messages is empty, send at least one message"),
        ("messages", json!({"a": 1}), "messages must be an array of messages, got an object"),
        (
            "reasoning_format",
            json!("x"),
            "reasoning_format must be one of none, auto, deepseek, deepseek-legacy, got \"x\"",
        ),
        ("response_format", json!("json"), "response_format must be an object, got \"json\""),
        ("top_logprobs", json!(2), "top_logprobs is 2, which needs logprobs to be true"),
    ] {
        let error = with(field, value);
        assert_eq!((error.message.as_str(), error.param.as_deref()), (told, Some(field)));
    }
    assert_eq!(
        with("grammar", json!("x".repeat(70_000))).message,
        "grammar is 70000 bytes long, the limit is 65536 bytes"
    );
    assert_eq!(
        with("response_format", json!({"type": "json_schema"})).message,
        "response_format.json_schema is required and missing"
    );
    assert_eq!(
        with("response_format", json!({"type": "json_schema", "json_schema": {"schema": [1]}})).message,
        "response_format.json_schema.schema must be a JSON schema, got an array of 1 elements"
    );
    let many = vec![json!({"role": "user", "content": ""}); limits::MESSAGES + 1];
    assert_eq!(with("messages", many.into()).message, "messages has 10001 elements, the limit is 10000");
}

#[test]
fn bodies_are_bounded_before_they_are_parsed() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(r#"{{"model":"{MODEL}","messages":{deep}}}"#);
    let long = vec![b' '; limits::BODY + 1];
    let twice = format!(r#"{{"model":"{MODEL}","model":"other","messages":[]}}"#);
    for endpoint in ENDPOINTS {
        let error = prepare(*endpoint, body.as_bytes(), &no_history).map(|_| ()).unwrap_err();
        assert_eq!(error.message, "the request body is nested deeper than 64 levels");
        let error = prepare(*endpoint, &long, &no_history).map(|_| ()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
    }
    let error = prepare(Endpoint::ChatCompletions, twice.as_bytes(), &no_history).map(|_| ()).unwrap_err();
    assert!(error.message.contains("\"model\" is there twice"), "{error}");
    // Brackets inside a string nest nothing.
    let quoted = json!({"model": MODEL, "messages": [{"role": "user", "content": "[\"\\".repeat(1000)}]});
    call(Endpoint::ChatCompletions, &quoted);
}

#[test]
fn a_named_tool_becomes_the_only_one() {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    let body = |choice: Value| json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "tools": [tool("a"), tool("b")], "tool_choice": choice});
    let named = json!({"type": "function", "function": {"name": "b"}});
    let got = sent(Endpoint::ChatCompletions, body(named));
    assert_eq!((&got["tools"], &got["tool_choice"]), (&json!([tool("b")]), &json!("required")));
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [tool("a")]}});
    let got = sent(Endpoint::ChatCompletions, body(allowed));
    assert_eq!((&got["tools"], &got["tool_choice"]), (&json!([tool("a")]), &json!("auto")));
    let error =
        refused(Endpoint::ChatCompletions, body(json!({"type": "function", "function": {"name": "c"}})));
    assert!(error.message.contains("\"c\""));
}

#[test]
fn tools_are_functions_with_names() {
    let with = |tools: Value, choice: Value| {
        let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "tools": tools, "tool_choice": choice});
        refused(Endpoint::ChatCompletions, body).message
    };
    for (tools, told) in [
        (json!([1]), "tools[0] must be an object, got 1"),
        (json!({"a": 1}), "tools must be an array of tools, got an object"),
        (json!([{"type": "function"}]), "tools[0].function is required and missing"),
        (json!([{"type": "function", "function": {}}]), "tools[0].function.name is required and missing"),
        (
            json!([{"type": "function", "function": {"name": ""}}]),
            "tools[0].function.name must be the name of a function, got \"\"",
        ),
        (
            json!([{"type": "function", "function": {"name": "a", "parameters": "x"}}]),
            "tools[0].function.parameters must be an object, got \"x\"",
        ),
        (
            json!([{"type": "web_search"}]),
            "tools[0].type is \"web_search\"; the model can be offered tools of type function only",
        ),
    ] {
        assert_eq!(with(tools, Value::Null), told);
    }
    // As SDKs write what was not given; the order of properties stays.
    let body = format!(
        r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"x"}}],"tools":[{{"function":{{"name":"a","description":null,"strict":null,"parameters":{{"properties":{{"z":{{}},"b":{{}}}}}}}}}}]}}"#
    );
    let call = prepare(Endpoint::ChatCompletions, body.as_bytes(), &no_history).unwrap();
    let Action::Run(request) = &call.action else { panic!() };
    let expected = r#""tools":[{"type":"function","function":{"name":"a","parameters":{"properties":{"z":{},"b":{}}}}}]"#;
    let sent_on = String::from_utf8(request.body("engine")).unwrap();
    assert!(sent_on.contains(expected), "{sent_on}");
    for tools in [json!([]), Value::Null] {
        assert!(with(tools, json!("required")).contains("tools has none"));
    }
    let none = json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "tools": [], "tool_choice": "auto"});
    assert_eq!(sent(Endpoint::ChatCompletions, none).get("tool_choice"), None);
}

#[test]
fn escapes_are_whole_characters() {
    let ask = |text: &str| {
        let body =
            format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"{text}"}}],"stop":"x"}}"#);
        prepare(Endpoint::ChatCompletions, body.as_bytes(), &no_history).map(drop)
    };
    for good in [r"\u00e9", r"\ud83d\ude00\ud83d\ude00", r"\\ud800", r"\\\ud83d\ude00", r"\u0075d800"] {
        ask(good).unwrap();
    }
    for bad in [r"\ud800", r"\uDFFF", r"a\ud83d\ud83d\ude00", r"\\\ud800", r"\ude00\ud83d"] {
        let error = ask(bad).unwrap_err();
        assert!(
            error.message.contains("surrogates") && error.kind == ErrorKind::InvalidRequest,
            "{bad}: {error}"
        );
    }
}

#[test]
fn media_is_never_fetched() {
    for url in ["http://169.254.169.254/", "HTTPS://example.org/x.png", "file:///etc/passwd"] {
        let content = json!([{"type": "image_url", "image_url": {"url": url}}]);
        let error = refused(
            Endpoint::ChatCompletions,
            json!({"model": MODEL, "messages": [{"role": "user", "content": content}]}),
        );
        assert!(error.message.contains("not fetched"), "{error}");
        let content = json!([{"type": "image", "source": {"type": "url", "url": url}}]);
        let body =
            json!({"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": content}]});
        assert!(refused(Endpoint::Messages, body).message.contains("not fetched"));
        let content = json!([{"type": "input_image", "image_url": url}]);
        let body = json!({"model": MODEL, "input": [{"role": "user", "content": content}]});
        assert!(refused(Endpoint::Responses, body).message.contains("not fetched"));
        let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "x", "images": [url]}]});
        assert!(refused(Endpoint::OllamaChat, body).message.contains("not fetched"));
    }
}

#[test]
fn rerank_and_score_share_a_path() {
    let got = sent(
        Endpoint::Rerank,
        json!({"model": MODEL, "query": "q", "documents": ["a", {"text": "b"}], "top_n": 9}),
    );
    assert_eq!(got, json!({"model": "engine", "query": "q", "top_n": 2, "documents": ["a", "b"]}));
    let got = sent(Endpoint::Score, json!({"model": MODEL, "text_1": "q", "text_2": "a"}));
    assert_eq!(got, json!({"model": "engine", "query": "q", "documents": ["a"]}));
    let error = refused(Endpoint::Score, json!({"model": MODEL, "text_1": ["q", "r"], "text_2": ["a", "b"]}));
    assert_eq!(error.param.as_deref(), Some("text_1"));
    assert_eq!(
        refused(Endpoint::Rerank, json!({"model": MODEL, "query": "q", "documents": ["a"], "top_n": -1}))
            .param
            .as_deref(),
        Some("top_n")
    );
}

#[test]
fn models_are_managed() {
    let request = ollama::manage(
        ollama::Manage::Create,
        br#"{"model":"a","from":"b","system":"s","license":["l"],"parameters":{"temperature":1},"quantize":"q4_0","stream":false,"files":{}}"#,
    )
    .unwrap();
    assert_eq!((request.model.as_str(), request.from.as_deref(), request.stream), ("a", Some("b"), false));
    assert_eq!((request.licenses, request.unsupported), (vec!["l".to_owned()], vec!["quantize".to_owned()]));
    let request = ollama::manage(ollama::Manage::Copy, br#"{"source":"a","destination":"b"}"#).unwrap();
    assert_eq!((request.model.as_str(), request.destination.as_deref()), ("a", Some("b")));
    assert!(
        ollama::manage(ollama::Manage::Copy, br#"{"source":"a"}"#)
            .unwrap_err()
            .message
            .contains("destination")
    );
    let line = ollama::progress(&ollama::Progress {
        status: "pulling".into(),
        total: Some(5),
        ..Default::default()
    });
    assert_eq!(String::from_utf8(line).unwrap(), "{\"status\":\"pulling\",\"total\":5}\n");
}
