//! Whole answers and errors of engines through every dialect, and conversations that are continued.

mod dialect;

use std::sync::Arc;
use std::time::Duration;

use dialect::{ELAPSED, MODEL, call, meta};
use pontoon_api::dialect::{
    Action, Call, Capability, Details, Dialect, DialectError, Endpoint, ErrorKind, ModelCard, Reply, Running,
    Stored, anthropic, no_history, ollama, openai, prepare, responses,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const CHAT: &[u8] = include_bytes!("dialect/chat.json");
const TOOLS: &[u8] = include_bytes!("dialect/tools.json");
const COMPLETION: &[u8] = include_bytes!("dialect/completion.json");
const EMBEDDINGS: &[u8] = include_bytes!("dialect/embeddings.json");

fn whole(endpoint: Endpoint) -> Call {
    let messages = json!([{"role": "user", "content": "hello"}]);
    let body = match endpoint {
        Endpoint::ChatCompletions => json!({"messages": messages}),
        Endpoint::Completions => json!({"prompt": "x", "logprobs": 1}),
        Endpoint::Messages => json!({"messages": messages, "max_tokens": 5}),
        Endpoint::CountTokens => json!({"messages": messages}),
        Endpoint::Responses | Endpoint::Embeddings | Endpoint::OllamaEmbed => json!({"input": "x"}),
        Endpoint::Rerank => json!({"query": "q", "documents": ["a", "b"], "return_documents": true}),
        Endpoint::Score => json!({"text_1": "q", "text_2": ["a", "b"]}),
        Endpoint::OllamaChat => json!({"messages": messages, "stream": false}),
        Endpoint::OllamaGenerate | Endpoint::OllamaEmbeddings => json!({"prompt": "x", "stream": false}),
    };
    let mut body = body;
    body["model"] = MODEL.into();
    call(endpoint, &body)
}

const ALL: &[Endpoint] = &[
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

fn value(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).expect("JSON")
}

fn answered(call: &Call, body: &[u8]) -> Reply {
    call.reply(&meta(), ELAPSED, 200, body).unwrap_or_else(|error| panic!("{:?}: {error}", call.endpoint))
}

#[test]
fn openai_changes_the_name_only() {
    let reply = answered(&whole(Endpoint::ChatCompletions), CHAT);
    let expected =
        String::from_utf8_lossy(CHAT).replace("\"model\":\"engine\"", &format!("\"model\":{MODEL:?}"));
    assert_eq!(String::from_utf8_lossy(&reply.body), expected);
    assert!(reply.usage.measured && reply.usage.prompt_tokens == 20 && reply.usage.completion_tokens == 12);
}

#[test]
fn text_completions_have_their_own_log_probabilities() {
    let got = value(&answered(&whole(Endpoint::Completions), COMPLETION));
    let logprobs = &got["choices"][0]["logprobs"];
    let tokens = logprobs["tokens"].as_array().unwrap();
    assert_eq!(
        tokens.iter().map(|token| token.as_str().unwrap()).collect::<String>(),
        got["choices"][0]["text"]
    );
    assert_eq!(logprobs["text_offset"].as_array().unwrap().len(), tokens.len());
    assert_eq!(got["model"], MODEL);
}

#[test]
fn anthropic_messages() {
    let got = value(&answered(&whole(Endpoint::Messages), CHAT));
    let text = got["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("Paris"));
    assert_eq!(
        (&got["stop_reason"], &got["id"], &got["model"]),
        (&json!("end_turn"), &json!("msg_r1"), &json!(MODEL))
    );
    let got = value(&answered(&whole(Endpoint::Messages), TOOLS));
    let tool = got["content"].as_array().unwrap().iter().find(|block| block["type"] == "tool_use").unwrap();
    assert_eq!((&tool["name"], &tool["input"]), (&json!("get_weather"), &json!({"city": "Rome"})));
    assert_eq!(got["stop_reason"], "tool_use");
}

#[test]
fn ollama_answers() {
    let got = value(&answered(&whole(Endpoint::OllamaChat), TOOLS));
    assert_eq!(got["message"]["tool_calls"][0]["function"]["arguments"], json!({"city": "Rome"}));
    assert_eq!((&got["done"], &got["done_reason"]), (&json!(true), &json!("stop")));
    assert_eq!((&got["total_duration"], &got["load_duration"]), (&json!(1_500_000_000), &json!(250_000_000)));
    let got = value(&answered(&whole(Endpoint::OllamaGenerate), CHAT));
    assert!(got["response"].as_str().unwrap().contains("Paris") && got["context"].is_array());
    let infill = call(
        Endpoint::OllamaGenerate,
        &json!({"model": MODEL, "prompt": "a", "suffix": "b", "stream": false}),
    );
    let wire = br#"{"index":0,"content":"mid","stop":true,"stop_type":"limit","tokens_predicted":3,"tokens_evaluated":8,"timings":{"prompt_ms":1.0,"predicted_ms":2.0}}"#;
    let got = value(&answered(&infill, wire));
    assert_eq!(
        (&got["response"], &got["done_reason"], &got["eval_count"]),
        (&json!("mid"), &json!("length"), &json!(3))
    );
    assert_eq!(got["prompt_eval_count"], 8);
}

#[test]
fn a_context_goes_on() {
    let first = value(&answered(&whole(Endpoint::OllamaGenerate), CHAT));
    let body = json!({"model": MODEL, "prompt": "and then?", "context": first["context"], "system": "s"});
    let Action::Run(request) = call(Endpoint::OllamaGenerate, &body).action else { panic!() };
    let sent: Value = serde_json::from_slice(&request.body("engine")).unwrap();
    let roles: Vec<&str> =
        sent["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert_eq!(sent["messages"][2]["content"], first["response"]);
}

#[test]
fn embeddings_in_every_shape() {
    let base = call(Endpoint::Embeddings, &json!({"model": MODEL, "input": ["a cat", "a dog"]}));
    let reply = answered(&base, EMBEDDINGS);
    let dims = value(&reply)["data"][0]["embedding"].as_array().unwrap().len();
    assert!(dims > 8 && reply.usage.prompt_tokens > 0);
    for encoding in ["float", "base64"] {
        let body = json!({"model": MODEL, "input": ["a cat", "a dog"], "dimensions": 8, "encoding_format": encoding});
        let got = value(&answered(&call(Endpoint::Embeddings, &body), EMBEDDINGS));
        let embedding = &got["data"][1]["embedding"];
        // Eight numbers of four bytes are 44 letters of base64.
        assert_eq!(
            embedding.as_array().map_or_else(|| embedding.as_str().unwrap().len(), Vec::len),
            if encoding == "float" { 8 } else { 44 }
        );
        assert_eq!(got["data"][1]["index"], 1);
    }
    let got = value(&answered(&whole(Endpoint::OllamaEmbed), EMBEDDINGS));
    let length: f64 =
        got["embeddings"][1].as_array().unwrap().iter().map(|x| x.as_f64().unwrap().powi(2)).sum();
    assert!((length - 1.0).abs() < 1e-4);
    let got = value(&answered(&whole(Endpoint::OllamaEmbeddings), EMBEDDINGS));
    assert_eq!(got["embedding"].as_array().unwrap().len(), dims);
}

#[test]
fn ranks_in_every_shape() {
    let wire = br#"{"model":"engine","object":"list","usage":{"prompt_tokens":9,"total_tokens":9},"results":[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}]}"#;
    let got = value(&answered(&whole(Endpoint::Rerank), wire));
    assert_eq!(got["results"][0], json!({"index": 1, "relevance_score": 0.9, "document": {"text": "b"}}));
    assert_eq!(got["model"], MODEL);
    let got = value(&answered(&whole(Endpoint::Score), wire));
    assert_eq!(got["data"][0], json!({"index": 0, "object": "score", "score": 0.1}));
    let plain = call(
        Endpoint::Rerank,
        &json!({"model": MODEL, "query": "q", "texts": ["a", "b"], "return_text": true}),
    );
    assert_eq!(value(&answered(&plain, wire))[0], json!({"index": 1, "score": 0.9, "text": "b"}));
}

#[test]
fn a_response_is_continued() {
    let first = whole(Endpoint::Responses);
    let reply = answered(&first, TOOLS);
    let stored = Arc::new(reply.stored.expect("stored unless told otherwise"));
    assert_eq!(stored.id(), "resp_r1");
    assert!(stored.bytes() > stored.response().len());
    let find = |id: &str| (id == "resp_r1").then(|| stored.clone());
    let body = json!({"model": MODEL, "previous_response_id": "resp_r1", "instructions": "new",
                      "input": [{"type": "function_call_output", "call_id": value(&answered(&first, TOOLS))["output"][0]["call_id"], "output": "21"}]});
    let second = prepare(Endpoint::Responses, body.to_string().as_bytes(), &find).unwrap();
    let Action::Run(request) = &second.action else { panic!() };
    let sent: Value = serde_json::from_slice(&request.body("engine")).unwrap();
    let roles: Vec<&str> =
        sent["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
    let next = answered(&second, CHAT).stored.unwrap();
    assert!(next.bytes() > stored.bytes(), "a turn keeps those before it alive");
    let items: Value = serde_json::from_slice(&next.input_items()).unwrap();
    assert_eq!((&items["data"][0]["output"], &items["first_id"]), (&json!("21"), &json!("item_0")));
    let error =
        prepare(Endpoint::Responses, body.to_string().as_bytes(), &no_history).map(|_| ()).unwrap_err();
    assert_eq!((error.kind, error.status(Dialect::OpenAi)), (ErrorKind::NotFound, 404));
    let unkept = call(Endpoint::Responses, &json!({"model": MODEL, "input": "x", "store": false}));
    assert!(answered(&unkept, CHAT).stored.is_none());
    let gone: Value = serde_json::from_slice(&responses::deleted("resp_r1")).unwrap();
    assert_eq!(gone, json!({"id": "resp_r1", "object": "response", "deleted": true}));
}

#[test]
fn conversations_end_somewhere() {
    let mut stored: Option<Arc<Stored>> = None;
    for turn in 0..=500 {
        let find = |_: &str| stored.clone();
        let mut body = json!({"model": MODEL, "input": "x"});
        if turn > 0 {
            body["previous_response_id"] = "resp_r1".into();
        }
        match prepare(Endpoint::Responses, body.to_string().as_bytes(), &find) {
            Ok(call) => stored = answered(&call, CHAT).stored.map(Arc::new),
            Err(error) => {
                assert_eq!(turn, 500);
                assert!(error.message.contains("the limit is 500"), "{error}");
                return;
            }
        }
    }
    panic!("a conversation of more than 500 turns");
}

#[test]
fn engine_errors_keep_their_meaning() {
    let call = whole(Endpoint::ChatCompletions);
    let cases: &[(u16, &[u8], ErrorKind)] = &[
        (400, include_bytes!("dialect/context-error.json"), ErrorKind::ContextLength),
        (500, include_bytes!("dialect/image-error.json"), ErrorKind::NotSupported),
        (
            400,
            br#"{"error":{"code":400,"message":"bad","type":"invalid_request_error"}}"#,
            ErrorKind::InvalidRequest,
        ),
        (
            501,
            br#"{"error":{"message":"no embeddings","type":"not_supported_error"}}"#,
            ErrorKind::NotSupported,
        ),
        (
            503,
            br#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
            ErrorKind::Unavailable,
        ),
        (
            400,
            br#"{"object":"error","message":"This model's maximum context length is 5","code":400}"#,
            ErrorKind::ContextLength,
        ),
        (422, br#"{"detail":"nope"}"#, ErrorKind::InvalidRequest),
        (500, b"Segmentation fault", ErrorKind::EngineFailed),
        (404, br#"{"error":"no such path"}"#, ErrorKind::InvalidRequest),
    ];
    for (status, body, kind) in cases {
        let error = call.reply(&meta(), ELAPSED, *status, body).unwrap_err();
        assert_eq!(error.kind, *kind, "{error}");
        assert!(!error.message.is_empty());
    }
}

#[test]
fn errors_have_each_dialects_shape() {
    let error = DialectError::new(ErrorKind::ModelNotFound, "model 'x' not found").with_param("model");
    let parse = |dialect| serde_json::from_slice::<Value>(&error.render(dialect, "req_1")).unwrap();
    assert_eq!(
        parse(Dialect::OpenAi),
        json!({"error": {"message": "model 'x' not found", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}})
    );
    assert_eq!(
        parse(Dialect::Anthropic),
        json!({"type": "error", "error": {"type": "not_found_error", "message": "model 'x' not found"}, "request_id": "req_1"})
    );
    assert_eq!(parse(Dialect::Ollama), json!({"error": "model 'x' not found"}));
    let full = DialectError::new(ErrorKind::QueueFull, "x").with_retry_after(Duration::from_secs(3));
    assert_eq!((full.status(Dialect::Anthropic), full.retry_after), (429, Some(Duration::from_secs(3))));
    assert_eq!(DialectError::new(ErrorKind::Unavailable, "x").status(Dialect::Anthropic), 529);
}

#[test]
fn lists_of_models() {
    let card = ModelCard {
        name: MODEL.into(),
        digest: "sha256:00ff".into(),
        created: 1_700_000_000,
        size: 9,
        format: "gguf".into(),
        capabilities: vec![Capability::Completion, Capability::Tools],
        ..ModelCard::default()
    };
    let parse = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    let cards = std::slice::from_ref(&card);
    let got = parse(openai::models(cards));
    assert_eq!(
        got["data"][0],
        json!({"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "ai"})
    );
    assert_eq!(parse(openai::model(&card)), got["data"][0]);
    let got = parse(anthropic::models(cards));
    assert_eq!((&got["first_id"], &got["data"][0]["type"]), (&json!(MODEL), &json!("model")));
    assert_eq!(parse(anthropic::model(&card)), got["data"][0]);
    let got = parse(ollama::tags(cards));
    assert_eq!((&got["models"][0]["digest"], &got["models"][0]["size"]), (&json!("00ff"), &json!(9)));
    assert_eq!(got["models"][0]["capabilities"], json!(["completion", "tools"]));
    let running =
        Running { card: card.clone(), memory: 5, device_memory: 0, expires: None, context_size: 2048 };
    let got = parse(ollama::ps(&[running], meta().started));
    assert_eq!(got["models"][0]["expires_at"], "2123-10-21T22:13:20.000000000Z");
    let got = parse(ollama::show(&Details {
        card,
        parameters: vec![("stop".into(), "x".into())],
        ..Details::default()
    }));
    assert_eq!(got["parameters"], "stop                           x");
    assert_eq!(parse(ollama::version("1.2.3")), json!({"version": "1.2.3"}));
}

fn engine_json() -> impl Strategy<Value = Value> {
    let names = [
        "choices",
        "message",
        "delta",
        "content",
        "tool_calls",
        "function",
        "arguments",
        "name",
        "usage",
        "prompt_tokens",
        "timings",
        "prompt_ms",
        "data",
        "embedding",
        "index",
        "results",
        "relevance_score",
        "error",
        "code",
        "logprobs",
        "input_tokens",
        "finish_reason",
        "stop",
        "text",
        "id",
        "reasoning_content",
        "__verbose",
        "token",
        "logprob",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(names.to_vec()), inner), 0..6).prop_map(|pairs| {
                pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<serde_json::Map<_, _>>().into()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_answer_of_an_engine(value in engine_json(), status in prop::sample::select(vec![200u16, 400, 404, 500, 999]), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for endpoint in ALL {
            let call = whole(*endpoint);
            for body in [value.to_string().as_bytes(), &bytes[..]] {
                match call.reply(&meta(), ELAPSED, status, body) {
                    Ok(reply) => prop_assert!(!reply.body.is_empty()),
                    Err(error) => prop_assert!(!error.message.is_empty() && error.status(endpoint.dialect()) >= 400),
                }
            }
        }
    }
}
