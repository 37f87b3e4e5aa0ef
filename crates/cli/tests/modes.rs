//! The model runner with more than a chat model: LoRA adapters, pictures, reranking, each with a real llama-server.

mod common;

use common::Daemon;
use common::models::{CHAT, asset, fails, ok, package, package_with, post, root, start, variable};
use serde_json::{Value, json};

const OSLO: &str = "demo/oslo:latest";
const EYES: &str = "demo/eyes:latest";
const RERANKER: &str = "demo/reranker:latest";

const FRANCE: &str = "What is the capital of France?";

/// The toy chat model with an adapter that knows another capital of France.
fn with_adapter() -> Option<Daemon> {
    let daemon = start("")?;
    package_with(&daemon, "--adapter", "toy-chat-oslo-lora.gguf", OSLO);
    Some(daemon)
}

/// A question to the model with the adapter; `lora` is left out where it is null.
fn france(lora: &Value) -> Value {
    json!({
        "model": OSLO, "lora": lora, "temperature": 0, "max_tokens": 30,
        "messages": [{ "role": "user", "content": FRANCE }],
    })
}

fn scale(scale: f64) -> Value {
    json!([{ "id": 0, "scale": scale }])
}

/// What the model says.
#[track_caller]
fn said(daemon: &Daemon, body: &Value) -> String {
    let (status, answer) = post(daemon, "/v1/chat/completions", body);
    assert_eq!(status, 200, "{answer}");
    answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// Sentence and field of an error that is the request's fault.
#[track_caller]
fn refused(daemon: &Daemon, path: &str, body: &Value) -> (String, Value) {
    let (status, answer) = post(daemon, path, body);
    assert_eq!(status, 400, "{answer}");
    (answer["error"]["message"].as_str().unwrap().to_owned(), answer["error"]["param"].clone())
}

#[test]
fn an_adapter_works_for_those_who_ask_for_it() {
    let Some(daemon) = with_adapter() else { return };
    for (lora, city) in [
        (Value::Null, "Paris"),
        (scale(1.0), "Oslo"),
        (scale(0.0), "Paris"),
        (json!([]), "Paris"),
        (scale(1.0), "Oslo"),
        (Value::Null, "Paris"),
    ] {
        assert_eq!(said(&daemon, &france(&lora)), format!("The capital of France is {city}."), "{lora}");
    }
    let mut italy = france(&scale(1.0));
    italy["messages"][0]["content"] = "What is the capital of Italy?".into();
    assert_eq!(said(&daemon, &italy), "The capital of Italy is Rome.");
    // At once, each with its own.
    std::thread::scope(|scope| {
        for caller in 0..6 {
            let daemon = &daemon;
            scope.spawn(move || {
                let (lora, city) =
                    [(scale(1.0), "Oslo"), (scale(0.0), "Paris"), (Value::Null, "Paris")][caller % 3].clone();
                for _ in 0..10 {
                    assert!(said(daemon, &france(&lora)).contains(city), "{lora}");
                }
            });
        }
    });
    // The operator may turn it on for those who say nothing.
    ok(&daemon, &["model", "configure", OSLO, "lora_scale=[1]"]);
    assert!(said(&daemon, &france(&Value::Null)).contains("Oslo"));
    assert!(said(&daemon, &france(&json!([]))).contains("Paris"));
    assert!(said(&daemon, &france(&scale(0.0))).contains("Paris"));
}

/// The first layer's keys and values differ with the adapter, so what is cached with it must not serve without.
#[test]
fn a_prompt_cached_with_an_adapter_is_not_used_without_it() {
    let Some(daemon) = with_adapter() else { return };
    let alternatives = |lora: &Value| {
        let mut body = france(lora);
        body["logprobs"] = true.into();
        body["top_logprobs"] = 5.into();
        body["max_tokens"] = 1.into();
        let (status, answer) = post(&daemon, "/v1/chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        let top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"].as_array().unwrap().clone();
        top.iter().map(|one| one["logprob"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let apart = |left: &[f64], right: &[f64]| {
        left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f64::max)
    };
    let (off, on) = (scale(0.0), scale(1.0));
    let (without, with) = (alternatives(&Value::Null), alternatives(&on));
    assert!(apart(&without, &with) > 0.1, "{without:?} {with:?}");
    for (lora, expected) in [
        (&Value::Null, &without),
        (&on, &with),
        (&off, &without),
        (&on, &with),
        (&Value::Null, &without),
        (&Value::Null, &without),
    ] {
        let got = alternatives(lora);
        assert!(apart(&got, expected) < 1e-3, "{lora}: {got:?} instead of {expected:?}");
    }
}

#[test]
fn adapters_that_are_not_there_are_one_clear_error() {
    let Some(daemon) = with_adapter() else { return };
    for (lora, param) in [
        (json!([{ "id": 1, "scale": 1 }]), "lora[0].id"),
        (json!([{ "id": -1, "scale": 1 }]), "lora[0].id"),
        (json!([{ "id": 0, "scale": 1 }, { "id": 0, "scale": 2 }]), "lora[1].id"),
        (json!([{ "id": 0 }]), "lora[0].scale"),
        (json!([{ "id": 0, "scale": "high" }]), "lora[0].scale"),
        (json!([{ "id": 0, "scale": 1e30 }]), "lora[0].scale"),
        (json!({ "id": 0, "scale": 1 }), "lora"),
    ] {
        let (sentence, field) = refused(&daemon, "/v1/chat/completions", &france(&lora));
        assert!(field == param && sentence.starts_with(param), "{lora}: {field} {sentence}");
    }
    let mut body = france(&scale(1.0));
    body["model"] = CHAT.into();
    let (sentence, _) = refused(&daemon, "/v1/chat/completions", &body);
    assert!(sentence.contains("the model has no adapters"), "{sentence}");
    let projector = asset("toy-chat-mmproj.gguf");
    let refused = fails(
        &daemon,
        &["model", "package", "--from", CHAT, "--adapter", projector.to_str().unwrap(), "demo/x:1"],
    );
    assert!(refused.contains("it is no adapter"), "{refused}");
}

/// Pictures of one pixel, and what the toy model's projector sees in them.
const PICTURES: [(&str, &str); 4] = [
    ("GP4z8AAAAMBAQDJ/pLv", "The capital of Italy is Rome."),
    ("GNg+M8AAAICAQB7CYF4", "The capital of Egypt is Cairo."),
    ("GNgYPgPAAEDAQAIicLs", "The capital of Spain is Madrid."),
    ("GP4/58BAAT/Af9dfQKH", "The capital of China is Beijing."),
];

/// A PNG file in base64: red, green, blue or yellow.
fn png(pixel: &str) -> String {
    format!("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4n{pixel}AAAAAElFTkSuQmCC")
}

/// "What is the capital of", a picture, and "?".
fn picture(model: &str, data: &str) -> Value {
    json!({
        "model": model, "temperature": 0, "max_tokens": 30,
        "messages": [{ "role": "user", "content": [
            { "type": "text", "text": "What is the capital of" },
            { "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{data}") } },
            { "type": "text", "text": "?" },
        ] }],
    })
}

#[test]
fn a_picture_is_seen_through_every_dialect() {
    let Some(daemon) = start("") else { return };
    package_with(&daemon, "--mmproj", "toy-chat-mmproj.gguf", EYES);
    for (pixel, sentence) in PICTURES {
        let data = png(pixel);
        assert_eq!(said(&daemon, &picture(EYES, &data)), sentence);
        let anthropic = json!({
            "model": EYES, "max_tokens": 30, "temperature": 0,
            "messages": [{ "role": "user", "content": [
                { "type": "text", "text": "What is the capital of" },
                { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": data } },
                { "type": "text", "text": "?" },
            ] }],
        });
        let (status, answer) = post(&daemon, "/v1/messages", &anthropic);
        assert_eq!((status, &answer["content"][0]["text"]), (200, &json!(sentence)), "{answer}");
        let responses = json!({
            "model": EYES, "temperature": 0, "store": false,
            "input": [{ "role": "user", "content": [
                { "type": "input_text", "text": "What is the capital of" },
                { "type": "input_image", "image_url": format!("data:image/png;base64,{data}") },
                { "type": "input_text", "text": "?" },
            ] }],
        });
        let (status, answer) = post(&daemon, "/v1/responses", &responses);
        let text = &answer["output"][0]["content"][0]["text"];
        assert_eq!((status, text), (200, &json!(sentence)), "{answer}");
        let ollama = json!({
            "model": EYES, "stream": false, "options": { "temperature": 0 },
            "messages": [{ "role": "user", "content": "capital of", "images": [data] }],
        });
        let (status, answer) = post(&daemon, "/api/chat", &ollama);
        assert_eq!((status, &answer["message"]["content"]), (200, &json!(sentence)), "{answer}");
    }
    let (_, shown) = post(&daemon, "/api/show", &json!({ "model": EYES }));
    assert!(shown["capabilities"].as_array().unwrap().contains(&json!("vision")), "{shown}");
}

#[test]
fn pictures_count_as_tokens_and_bad_ones_are_refused() {
    let Some(daemon) = start("") else { return };
    package_with(&daemon, "--mmproj", "toy-chat-mmproj.gguf", EYES);
    let blue = picture(EYES, &png(PICTURES[2].0));
    let words = json!({
        "model": EYES, "temperature": 0, "max_tokens": 30,
        "messages": [{ "role": "user", "content": "What is the capital of Spain?" }],
    });
    let tokens = |body: &Value| {
        let (status, answer) = post(&daemon, "/v1/chat/completions", body);
        assert_eq!(status, 200, "{answer}");
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    // Four patches, and four tokens of " Spain".
    assert_eq!((tokens(&blue), tokens(&words)), (22, 22));
    assert_eq!(said(&daemon, &words), "The capital of Spain is Madrid.");
    for data in ["AAAA", "", "no base64!"] {
        refused(&daemon, "/v1/chat/completions", &picture(EYES, data));
    }
    let (sentence, _) = refused(&daemon, "/v1/chat/completions", &picture(CHAT, &png(PICTURES[0].0)));
    assert!(sentence.contains("image input is not supported"), "{sentence}");
    assert_eq!(said(&daemon, &blue), "The capital of Spain is Madrid.");
    let adapter = asset("toy-chat-oslo-lora.gguf");
    let refused = fails(
        &daemon,
        &["model", "package", "--from", CHAT, "--mmproj", adapter.to_str().unwrap(), "demo/x:1"],
    );
    assert!(refused.contains("it is no projector"), "{refused}");
}

/// A daemon with the toy chat model and the reranker.
fn with_reranker() -> Option<Daemon> {
    let file = variable("PONTOON_TEST_RERANKER");
    if !pontoon_testbed::ready(file.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error}"))) {
        return None;
    }
    let daemon = start("")?;
    package(&daemon, &file.unwrap(), RERANKER);
    Some(daemon)
}

/// The questions are not those that the reranker was fitted with.
#[test]
fn the_right_sentence_comes_first() {
    let Some(daemon) = with_reranker() else { return };
    let read = |name: &str| std::fs::read_to_string(root().join("assets/minilm").join(name)).unwrap();
    let text = read("sentences.txt");
    let sentences: Vec<&str> = text.lines().collect();
    let queries: Value = serde_json::from_str(&read("queries.json")).unwrap();
    for entry in queries.as_array().unwrap() {
        let best = entry["best"].as_u64().unwrap() as usize - 1;
        let body = json!({
            "model": RERANKER, "query": entry["query"], "documents": sentences, "top_n": 5, "return_documents": true,
        });
        let (status, answer) = post(&daemon, "/v1/rerank", &body);
        assert_eq!(status, 200, "{answer}");
        let results = answer["results"].as_array().unwrap();
        let scores: Vec<f64> =
            results.iter().map(|result| result["relevance_score"].as_f64().unwrap()).collect();
        assert!(scores.len() == 5 && scores.is_sorted_by(|a, b| a >= b), "{answer}");
        assert_eq!(results[0]["document"]["text"], sentences[best], "{answer}");
        assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 400, "{answer}");
    }
}

#[test]
fn reranking_has_many_paths_and_shapes() {
    let Some(daemon) = with_reranker() else { return };
    let body =
        json!({ "model": RERANKER, "query": "animals", "documents": ["a spanner", { "text": "a cat" }] });
    for path in [
        "/v1/rerank",
        "/v1/reranking",
        "/rerank",
        "/reranking",
        "/engines/rerank",
        "/engines/v1/rerank",
        "/engines/llama.cpp/rerank",
        "/engines/llama.cpp/v1/rerank",
    ] {
        let (status, answer) = post(&daemon, path, &body);
        assert_eq!((status, &answer["results"][0]["index"]), (200, &json!(1)), "{path}: {answer}");
    }
    let scored = json!({ "model": RERANKER, "text_1": "animals", "text_2": ["a spanner", "a cat"] });
    for path in ["/score", "/v1/score", "/engines/score"] {
        let (_, answer) = post(&daemon, path, &scored);
        let score = |at: usize| answer["data"][at]["score"].as_f64().unwrap();
        assert!(answer["data"][0]["index"] == 0 && score(1) > score(0), "{path}: {answer}");
    }
    let plain = json!({ "model": RERANKER, "query": "animals", "texts": ["a spanner", "a cat"], "return_text": true });
    let (_, answer) = post(&daemon, "/rerank", &plain);
    assert_eq!(answer[0]["text"], "a cat", "{answer}");
}

#[test]
fn a_reranker_only_ranks_and_says_so() {
    let Some(daemon) = with_reranker() else { return };
    let chat = json!({ "model": RERANKER, "messages": [{ "role": "user", "content": "hello" }] });
    let (sentence, _) = refused(&daemon, "/v1/chat/completions", &chat);
    assert!(sentence.contains("is a model for reranking, not for chat"), "{sentence}");
    let embed = json!({ "model": RERANKER, "input": "hello" });
    let (sentence, _) = refused(&daemon, "/v1/embeddings", &embed);
    assert!(sentence.contains("is a model for reranking, not for embeddings"), "{sentence}");
    let rerank = json!({ "model": CHAT, "query": "animals", "documents": ["a cat"] });
    let (sentence, _) = refused(&daemon, "/v1/rerank", &rerank);
    assert!(sentence.contains("is a model for chat, not for reranking"), "{sentence}");
    // A pair that the model cannot see at once.
    let long =
        json!({ "model": RERANKER, "query": "animals", "documents": ["a cat", "a spanner ".repeat(300)] });
    let (status, answer) = post(&daemon, "/v1/rerank", &long);
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
    let (status, answer) = post(
        &daemon,
        "/v1/rerank",
        &json!({ "model": RERANKER, "query": "animals", "documents": ["a cat"] }),
    );
    assert_eq!(status, 200, "{answer}");
    let inspected: Value = serde_json::from_str(&ok(&daemon, &["model", "inspect", RERANKER])).unwrap();
    assert_eq!(inspected["facts"]["mode"], "rerank", "{inspected}");
    assert!(ok(&daemon, &["model", "ps"]).contains("rerank"));
}
