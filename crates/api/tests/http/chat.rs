//! Inference in every dialect, whole and streamed, and what is recorded of it.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::scene::{Held, Scene, TOY, chat, client, signal, streamed, trial, until};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("openai_whole_and_streamed_on_every_path", openai),
        trial("several_prompts_are_answered_and_all_are_counted", several),
        trial("anthropic_streams_its_events", anthropic),
        trial("ollama_streams_lines_with_its_times", ollama),
        trial("responses_are_kept_for_their_caller", responses),
        trial("a_client_that_goes_frees_its_slot_at_once", vanishes),
        trial("an_engine_that_dies_ends_the_stream_with_an_error", dies),
        trial("what_was_asked_is_recorded_and_counted", recorded),
        trial("preload_loads_and_answers_nothing", preload),
        trial("errors_have_each_dialects_shape", errors),
    ]
}

async fn openai() {
    let scene = Scene::new().await;
    for path in
        ["/v1/chat/completions", "/engines/v1/chat/completions", "/engines/llama.cpp/v1/chat/completions"]
    {
        let answer = scene.post(path, chat("hello", 8)).await;
        assert_eq!(answer.status(), 200, "{path}");
        for header in ["x-request-id", "request-id", "x-pontoon-queue-position"] {
            assert!(answer.headers().contains_key(header), "{header}");
        }
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["object"], "chat.completion");
        assert_eq!(body["usage"]["completion_tokens"], 8);
    }
    let answer = scene.post("/v1/chat/completions", streamed("hello", 8)).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let pieces = text.matches("\"content\":\"").count();
    assert!(pieces >= 2, "{text}");
    // The guests' socket gives the same.
    let over_socket = scene.guest().post("http://pontoon/v1/completions");
    let body = json!({ "model": TOY, "prompt": "Once", "max_tokens": 4 });
    let answer = over_socket.json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let models = scene.get("/v1/models").await;
    assert_eq!(models["data"][0]["id"], TOY);
    assert_eq!(scene.get(&format!("/engines/v1/models/{TOY}")).await["id"], TOY);
}

/// llama-server streams them behind a `null`, and counts the first alone.
async fn several() {
    let scene = Scene::parallel(4).await;
    for stream in [false, true] {
        let body = json!({
            "model": TOY, "prompt": ["a", "b", "c"], "max_tokens": 3, "ignore_eos": true, "stream": stream,
        });
        let text = scene.post("/v1/completions", body).await.text().await.unwrap();
        assert!(!text.contains("error"), "{text}");
        for index in 0..3 {
            assert!(text.contains(&format!("\"index\":{index}")), "{text}");
        }
        let all = scene.get("/engines/requests").await;
        let record = all[0]["records"].as_array().unwrap().last().unwrap();
        let counted = record["completion_tokens"].as_u64().unwrap();
        assert!((6..=9).contains(&counted), "nine tokens, of which some bring no text: {record}");
    }
}

async fn anthropic() {
    let scene = Scene::new().await;
    let body = json!({ "model": TOY, "max_tokens": 6, "messages": [{"role": "user", "content": "hi"}] });
    for path in ["/v1/messages", "/anthropic/v1/messages"] {
        let whole: Value = scene.post(path, body.clone()).await.json().await.unwrap();
        assert_eq!(whole["type"], "message", "{whole}");
        assert!(whole["usage"]["input_tokens"].as_u64().unwrap() > 0);
    }
    let mut wanted = body.clone();
    wanted["stream"] = true.into();
    let text = scene.post("/v1/messages", wanted).await.text().await.unwrap();
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(events.first(), Some(&"message_start"), "{text}");
    assert!(events.contains(&"content_block_delta"), "{text}");
    assert_eq!(events.last(), Some(&"message_stop"), "{text}");
    let counted: Value = scene.post("/anthropic/v1/messages/count_tokens", body).await.json().await.unwrap();
    assert!(counted["input_tokens"].as_u64().unwrap() > 0, "{counted}");
    let listed = client().get(scene.url("/v1/models")).header("anthropic-version", "2023-06-01");
    let listed: Value = listed.send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["data"][0]["type"], "model", "{listed}");
}

async fn ollama() {
    let scene = Scene::new().await;
    let body = json!({ "model": TOY, "messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 5} });
    let answer = scene.post("/api/chat", body).await;
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let text = answer.text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["done"], true, "{text}");
    for field in ["total_duration", "load_duration", "prompt_eval_count", "eval_count", "eval_duration"] {
        assert!(last[field].as_u64().is_some_and(|value| value > 0), "{field}: {last}");
    }
    let generated: Value = scene
        .post(
            "/api/generate",
            json!({ "model": TOY, "prompt": "Once", "stream": false, "options": {"num_predict": 3} }),
        )
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(generated["done"], true, "{generated}");
    assert_eq!(scene.get("/api/tags").await["models"][0]["name"], TOY);
    assert_eq!(scene.get("/api/ps").await["models"][0]["name"], TOY);
    assert_eq!(scene.get("/api/version").await["version"].as_str().map(str::is_empty), Some(false));
    let shown: Value = scene.post("/api/show", json!({ "model": TOY })).await.json().await.unwrap();
    assert_eq!(shown["details"]["format"], "gguf", "{shown}");
    let unloaded: Value =
        scene.post("/api/generate", json!({ "model": TOY, "keep_alive": 0 })).await.json().await.unwrap();
    assert_eq!(unloaded["done_reason"], "unload", "{unloaded}");
    until("unloaded", Duration::from_secs(10), || async { scene.runner.ps().await.is_empty() }).await;
}

async fn responses() {
    let scene = Scene::new().await;
    let body = json!({ "model": TOY, "input": "hi", "max_output_tokens": 5 });
    let first: Value = scene.post("/v1/responses", body).await.json().await.unwrap();
    let id = first["id"].as_str().expect("an id").to_owned();
    assert_eq!(scene.get(&format!("/v1/responses/{id}")).await["id"], id.as_str());
    assert_eq!(scene.get(&format!("/responses/{id}/input_items")).await["object"], "list");
    let next = json!({ "model": TOY, "input": "more", "max_output_tokens": 5, "previous_response_id": id });
    let next = scene.post("/responses", next).await;
    assert_eq!(next.status(), 200, "{}", next.text().await.unwrap());
    // Another caller does not see it.
    let other = client().get(scene.url(&format!("/v1/responses/{id}"))).header("x-pontoon-caller", "other");
    assert_eq!(other.send().await.unwrap().status(), 404);
    let deleted: Value = client()
        .delete(scene.url(&format!("/v1/responses/{id}")))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(deleted["deleted"], true);
    let gone = client().get(scene.url(&format!("/v1/responses/{id}"))).send().await.unwrap();
    assert_eq!(gone.status(), 404);
}

async fn vanishes() {
    let scene = Scene::parallel(1).await;
    scene.post("/v1/chat/completions", chat("warm", 1)).await;
    // In the middle of a stream: the engine has a few hundred tokens to go.
    let mut answer = scene.post("/v1/chat/completions", streamed("go on", 3000)).await;
    answer.chunk().await.unwrap().expect("a first piece");
    drop(answer);
    until("the turn is given back", Duration::from_secs(2), || async { scene.serving().await == 0 }).await;
    // While a whole answer is made, by an engine that is held: only the caller's going can end it.
    let held = Held::new(&scene).await;
    let mut sending =
        Box::pin(client().post(scene.url("/v1/chat/completions")).json(&chat("go on", 300)).send());
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut sending).await.is_err());
    assert_eq!(scene.serving().await, 1);
    drop(sending);
    until("the turn is given back", Duration::from_secs(2), || async { scene.serving().await == 0 }).await;
    drop(held);
    assert_eq!(scene.post("/v1/chat/completions", chat("hello", 2)).await.status(), 200);
    let records = scene.get("/engines/requests").await;
    let outcomes: Vec<&str> = records[0]["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["ok", "cancelled", "cancelled", "ok"]);
}

async fn dies() {
    for (path, body, error) in [
        ("/v1/chat/completions", streamed("go on", 3500), "\"error\""),
        (
            "/v1/messages",
            json!({ "model": TOY, "max_tokens": 3500, "stream": true, "messages": [{"role": "user", "content": "hi"}] }),
            "event: error",
        ),
        (
            "/api/generate",
            json!({ "model": TOY, "prompt": "Count", "format": {"type": "array", "items": {"type": "integer"}, "minItems": 400} }),
            "\"error\"",
        ),
    ] {
        // The toy is fast: sometimes the whole answer is there before the engine is dead. A new runner each time,
        // since one whose engine dies again and again gives up on it.
        let mut attempts = 0;
        let text = loop {
            let scene = Scene::new().await;
            let text = killed(&scene, path, &body).await;
            // The next request gets a new engine.
            let next = scene.post("/v1/chat/completions", chat("hello", 2)).await;
            assert_eq!(next.status(), 200, "{path}: {}", next.text().await.unwrap());
            attempts += 1;
            if text.contains(error) || attempts == 20 {
                break text;
            }
        };
        assert!(text.contains(error) && text.contains("try again"), "{path}: {text}");
    }
}

/// All of a streamed answer whose engine is killed after its first piece.
async fn killed(scene: &Scene, path: &str, body: &Value) -> String {
    let mut answer = scene.post(path, body.clone()).await;
    assert_eq!(answer.status(), 200, "{path}");
    let mut text = answer.chunk().await.unwrap().expect("a first piece").to_vec();
    signal(scene, rustix::process::Signal::KILL).await;
    while let Some(piece) = answer.chunk().await.expect("a whole body, with the error in it") {
        text.extend_from_slice(&piece);
    }
    String::from_utf8(text).unwrap()
}

async fn recorded() {
    let scene = Scene::new().await;
    let agent = client().post(scene.url("/v1/chat/completions")).header("user-agent", "tester/1");
    agent.json(&streamed("secret words", 6)).send().await.unwrap().text().await.unwrap();
    let as_other = client().post(scene.url("/v1/chat/completions")).header("x-pontoon-caller", "modest");
    as_other.json(&chat("hello", 2)).send().await.unwrap();
    let over_socket = scene.guest().post("http://p/v1/chat/completions").json(&chat("hi", 2));
    over_socket.send().await.unwrap().bytes().await.unwrap();

    let all = scene.get("/engines/requests").await;
    assert_eq!(all[0]["count"], 3, "{all}");
    let first = &all[0]["records"][0];
    assert_eq!((&first["user_agent"], &first["status_code"]), (&json!("tester/1"), &json!(200)));
    assert_eq!((&first["completion_tokens"], &first["outcome"]), (&json!(6), &json!("ok")));
    assert!(first["first_token_ms"].as_f64().unwrap() > 0.0 && first["load_ms"].as_f64().unwrap() > 0.0);
    assert!(!all.to_string().contains("secret words"), "bodies are off unless wished");
    assert_eq!(all[0]["records"][1]["caller"], "for:modest");
    // A guest sees what its own socket's caller asked, and not what others did.
    let own: Value =
        scene.guest().get("http://p/engines/requests").send().await.unwrap().json().await.unwrap();
    let callers: Vec<&Value> =
        own[0]["records"].as_array().unwrap().iter().map(|record| &record["caller"]).collect();
    assert!(!callers.is_empty() && callers.iter().all(|caller| **caller != "for:modest"), "{own}");
    let metrics = client().get(scene.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("caller=\"for:modest\",policy=\"\",model=\"test/toy:chat\",kind=\"completion\"} 2"),
        "{metrics}"
    );
    for name in [
        "time_to_first_token_seconds_count",
        "inter_token_seconds_bucket",
        "queue_wait_seconds_sum",
        "engine_memory_bytes",
        "event=\"loaded\"} 1",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

async fn preload() {
    let scene = Scene::new().await;
    let body = json!({ "model": TOY, "messages": [] });
    let wanted =
        client().post(scene.url("/engines/v1/chat/completions")).header("x-preload-only", "true").json(&body);
    assert_eq!(wanted.send().await.unwrap().status(), 200);
    assert_eq!(scene.runner.ps().await.len(), 1);
}

async fn errors() {
    let scene = Scene::new().await;
    let unknown = |path: &'static str| {
        scene.post(path, json!({ "model": "no/such", "max_tokens": 1, "prompt": "x", "messages": [{"role": "user", "content": "x"}] }))
    };
    for path in ["/v1/chat/completions", "/v1/messages", "/api/chat"] {
        let answer = unknown(path).await;
        assert_eq!(answer.status(), 404, "{path}");
        let body: Value = answer.json().await.unwrap();
        let message = match path {
            "/api/chat" => &body["error"],
            "/v1/messages" => {
                assert_eq!(body["type"], "error");
                &body["error"]["message"]
            }
            _ => {
                assert_eq!(body["error"]["code"], "model_not_found", "{body}");
                &body["error"]["message"]
            }
        };
        assert!(message.as_str().is_some_and(|text| text.contains("no/such")), "{path}: {body}");
    }
    let wrong = client().get(scene.url("/v1/chat/completions")).send().await.unwrap();
    assert_eq!((wrong.status().as_u16(), &wrong.headers()["allow"]), (405, &"POST".parse().unwrap()));
    let pictures = scene.post("/v1/images/generations", json!({ "prompt": "x" })).await;
    assert_eq!(pictures.status(), 400);
    let missing = client().get(scene.url("/models/no/such")).send().await.unwrap();
    assert_eq!(missing.status(), 404);
    assert_eq!(missing.headers()["content-type"], "text/plain; charset=utf-8");
}
