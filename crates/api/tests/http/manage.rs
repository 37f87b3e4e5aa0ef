//! Management as Docker's CLI and Ollama's clients do it.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::scene::{Held, Scene, TOY, chat, client, trial, until};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("docker_lists_inspects_tags_and_removes", docker),
        trial("a_model_leaves_and_comes_back_as_a_tar", tars),
        trial("settings_are_set_shown_and_explained", settings),
        trial("pulls_of_what_is_not_there_fail_with_a_status", pulls),
        trial("what_fails_when_the_answer_has_begun_is_its_last_line", late),
        trial("ollama_copies_creates_and_deletes", ollama),
        trial("a_busy_model_is_not_removed", busy),
        trial("everything_that_manages_is_refused_to_guests", refused),
        trial("the_description_names_what_there_is", described),
        trial("requests_can_be_followed", followed),
    ]
}

async fn docker() {
    let scene = Scene::new().await;
    let list = scene.get("/models").await;
    assert_eq!(list[0]["tags"], json!([TOY]));
    assert_eq!(list[0]["config"]["format"], "gguf");
    let id = list[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(scene.get(&format!("/models/{TOY}")).await["id"], id.as_str());
    assert_eq!(scene.get(&format!("/models/{id}")).await["id"], id.as_str());
    assert_eq!(scene.get("/models/toy").await["id"], id.as_str());
    let tag = client().post(scene.url(&format!("/models/{TOY}/tag?repo=org/other&tag=v1")));
    let tagged = tag.send().await.unwrap();
    assert_eq!(tagged.status(), 201);
    assert_eq!(tagged.json::<Value>().await.unwrap()["target"], "org/other:v1");
    let body = json!({ "target": "org/small:1", "context_size": 256 });
    let repackaged = scene.post(&format!("/models/{TOY}/repackage"), body).await;
    assert_eq!(repackaged.status(), 201);
    assert_eq!(scene.get("/models/org/small:1").await["config"]["context_size"], 256);
    let removed = client().delete(scene.url("/models/org/other:v1")).send().await.unwrap();
    assert_eq!(removed.json::<Value>().await.unwrap(), json!([{ "Untagged": "org/other:v1" }]));
    let removed: Value = client()
        .delete(scene.url(&format!("/models/{TOY}?force=true")))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(removed, json!([{ "Untagged": TOY }, { "Deleted": id }]));
    let again = client().delete(scene.url(&format!("/models/{TOY}"))).send().await.unwrap();
    assert_eq!(again.status(), 404);
    assert_eq!(client().delete(scene.url("/models/purge")).send().await.unwrap().status(), 200);
    assert_eq!(scene.get("/models").await, json!([]));
    assert_eq!(scene.get("/version").await["version"], "0.0.test");
    assert!(scene.get("/engines/df").await["models_disk_usage"].is_u64());
    assert!(scene.get("/engines/status").await["llama.cpp"].as_str().unwrap().starts_with("Running"));
}

async fn tars() {
    let scene = Scene::new().await;
    let tar = client().get(scene.url(&format!("/models/{TOY}/export"))).send().await.unwrap();
    assert_eq!(tar.headers()["content-type"], "application/x-tar");
    let tar = tar.bytes().await.unwrap();
    assert!(tar.len() > 800_000, "{}", tar.len());
    client().delete(scene.url("/models/purge")).send().await.unwrap();
    let cut = client().post(scene.url("/models/load")).body(tar.slice(..tar.len() / 2)).send().await.unwrap();
    assert!(cut.status().is_client_error() || cut.status().is_server_error(), "{}", cut.status());
    let loaded = client().post(scene.url("/models/load")).body(tar).send().await.unwrap();
    assert_eq!(loaded.status(), 200, "{}", loaded.text().await.unwrap());
    assert_eq!(scene.post("/v1/chat/completions", chat("hello", 2)).await.status(), 200);
    let missing = client().get(scene.url("/models/no/such/export")).send().await.unwrap();
    assert_eq!(missing.status(), 404);
}

async fn settings() {
    let scene = Scene::new().await;
    let body =
        json!({ "model": TOY, "context-size": 384, "runtime-flags": ["--temp", "0.5"], "keep_alive": "10m" });
    let configured = scene.post("/engines/llama.cpp/_configure", body).await;
    assert_eq!(configured.status(), 202, "{}", configured.text().await.unwrap());
    // Compose expects the model to be loaded by then or soon.
    until("preloaded", Duration::from_secs(20), || async {
        scene.runner.ps().await.iter().any(|row| row.state == "ready")
    })
    .await;
    let all = scene.get(&format!("/engines/_configure?model={TOY}")).await;
    assert_eq!((&all[0]["Model"], &all[0]["Config"]["context-size"]), (&json!(TOY), &json!(384)), "{all}");
    assert_eq!(all[0]["Config"]["runtime-flags"], json!(["--temperature", "0.5"]), "{all}");
    let shown = scene.get(&format!("/pontoon/v1/show?model={TOY}")).await;
    assert_eq!(shown["settings"]["context_size"]["value"], 384, "{shown}");
    for (body, word) in [
        (json!({ "model": TOY, "runtime-flags": ["--log-file", "/etc/passwd"] }), "--log-file"),
        (json!({ "model": TOY, "context-size": -5 }), "context-size"),
        (json!({ "model": TOY, "vllm": { "hf-overrides": {} } }), "vllm"),
        (json!({ "model": "no/such" }), "no/such"),
    ] {
        let refused = scene.post("/engines/_configure", body).await;
        assert!(refused.status().is_client_error(), "{word}: {}", refused.status());
        let text = refused.text().await.unwrap();
        assert!(text.contains(word), "{text}");
    }
    let set = json!({ "model": TOY, "settings": { "temperature": 0.2 }, "replace": true });
    assert_eq!(scene.post("/pontoon/v1/configure", set).await.status(), 200);
    let pinned = scene.post("/pontoon/v1/pin", json!({ "model": TOY, "pinned": true })).await;
    assert_eq!(pinned.status(), 200);
    let unloaded: Value = scene
        .post("/engines/unload", json!({ "all": true, "backend": "", "models": null }))
        .await
        .json()
        .await
        .unwrap();
    assert!(unloaded["unloaded_runners"].is_u64(), "{unloaded}");
}

async fn pulls() {
    let scene = Scene::new().await;
    // A port where nobody listens: the registry cannot be reached.
    let body = json!({ "from": "127.0.0.1:9/org/model:1" });
    let answer = scene.post("/models/create", body).await;
    assert_eq!(answer.status(), 502, "{}", answer.text().await.unwrap());
    let invalid = scene.post("/models/create", json!({ "from": "UPPER CASE" })).await;
    assert_eq!(invalid.status(), 400);
    let ollama =
        scene.post("/api/pull", json!({ "model": "127.0.0.1:9/org/model:1", "stream": false })).await;
    assert_eq!(ollama.status(), 502);
    assert!(ollama.json::<Value>().await.unwrap()["error"].is_string());
    let push = client().post(scene.url("/models/no/such/push")).send().await.unwrap();
    assert_eq!(push.status(), 404);
}

/// A registry that lets its callers wait for longer than an answer waits, and then goes.
async fn late() {
    let scene = Scene::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let model = format!("{}/org/model:1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(6)).await;
                drop(stream);
            });
        }
    });
    let docker = async {
        let answer = scene.post("/models/create", json!({ "from": model })).await;
        assert_eq!(answer.status(), 200, "the answer has begun");
        answer.text().await.unwrap()
    };
    let ollama = async { scene.post("/api/pull", json!({ "model": model })).await.text().await.unwrap() };
    let whole = async { scene.post("/api/pull", json!({ "model": model, "stream": false })).await.status() };
    let (docker, ollama, whole) = tokio::join!(docker, ollama, whole);
    let last = |text: &str| serde_json::from_str::<Value>(text.lines().last().unwrap()).unwrap();
    let error = last(&docker);
    assert_eq!(error["type"], "error", "{docker}");
    assert!(error["message"].as_str().unwrap().contains("no answer from 127.0.0.1"), "{docker}");
    assert!(last(&ollama)["error"].as_str().unwrap().contains("no answer"), "{ollama}");
    assert_eq!(whole, 502);
}

async fn ollama() {
    let scene = Scene::new().await;
    let copied = scene.post("/api/copy", json!({ "source": TOY, "destination": "mine:1" })).await;
    assert_eq!(copied.status(), 200);
    let created = scene
        .post("/api/create", json!({ "model": "mine:2", "from": TOY, "parameters": { "num_ctx": 128 } }))
        .await;
    assert_eq!(created.status(), 200, "{}", created.text().await.unwrap());
    let refused = scene
        .post("/api/create", json!({ "model": "mine:3", "from": TOY, "system": "You are a pirate" }))
        .await;
    assert!(refused.status().is_client_error());
    let delete =
        |name: &str| client().delete(scene.url("/api/delete")).json(&json!({ "model": name })).send();
    assert_eq!(delete("mine:1").await.unwrap().status(), 200);
    assert_eq!(delete("mine:1").await.unwrap().status(), 404);
    assert_eq!(scene.get("/api/tags").await["models"].as_array().unwrap().len(), 2);
}

async fn busy() {
    let scene = Scene::new().await;
    scene.post("/v1/chat/completions", chat("warm", 1)).await;
    let held = Held::new(&scene).await;
    let asking =
        tokio::spawn(client().post(scene.url("/v1/chat/completions")).json(&chat("go on", 20)).send());
    until("it is busy", Duration::from_secs(5), || async { scene.serving().await == 1 }).await;
    let refused = client().delete(scene.url(&format!("/models/{TOY}"))).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    drop(held);
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
    until("it is idle", Duration::from_secs(5), || async { scene.serving().await == 0 }).await;
    let removed = client().delete(scene.url(&format!("/models/{TOY}"))).send().await.unwrap();
    assert_eq!(removed.status(), 200);
}

/// Every managing operation of our own description, asked on the guests' socket.
async fn refused() {
    let scene = Scene::new().await;
    let description = scene.get("/openapi.json").await;
    let guest = scene.guest();
    let mut managing = 0;
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if operation["x-pontoon-operator"] != true {
                continue;
            }
            managing += 1;
            let path = path.replace("{name}", "test/toy:chat").replace("{backend}", "llama.cpp");
            let method: reqwest::Method = method.to_uppercase().parse().unwrap();
            let answer = guest.request(method.clone(), format!("http://p{path}")).send().await.unwrap();
            assert_eq!(answer.status(), 403, "{method} {path}");
            let text = answer.text().await.unwrap();
            assert!(
                text.contains("pontoon model") || text.contains("admin socket"),
                "{method} {path}: {text}"
            );
            // The operator's socket may, whatever then becomes of it.
        }
    }
    assert!(managing >= 20, "{managing}");
    assert_eq!(scene.admin().get("http://p/metrics").send().await.unwrap().status(), 200);
    assert_eq!(scene.get("/models").await.as_array().unwrap().len(), 1);
    // Speaking for others is the operator's as well.
    let posing = guest.post("http://p/v1/chat/completions").header("x-pontoon-caller", "victim");
    posing.json(&chat("hello", 1)).send().await.unwrap().bytes().await.unwrap();
    assert!(!scene.get("/engines/requests").await.to_string().contains("victim"));
}

async fn described() {
    let scene = Scene::new().await;
    let description = scene.get("/openapi.json").await;
    assert_eq!(description["openapi"], "3.1.0");
    // Every reference leads somewhere.
    let text = description.to_string();
    for part in text.split("\"#/components/").skip(1) {
        let pointer = format!("/components/{}", part.split('"').next().unwrap());
        assert!(description.pointer(&pointer).is_some(), "{pointer}");
    }
}

async fn followed() {
    let scene = Scene::new().await;
    scene.post("/v1/chat/completions", chat("first", 1)).await;
    let follow = client()
        .get(scene.url("/engines/requests?include_existing=true"))
        .header("accept", "text/event-stream");
    let mut follow = follow.send().await.unwrap();
    let first = String::from_utf8(follow.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(first.contains("event: existing_request") && first.contains("event: connected"), "{first}");
    scene.post("/v1/chat/completions", chat("second", 1)).await;
    let next = String::from_utf8(follow.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(next.starts_with("event: new_request\ndata: [{\"count\":1,"), "{next}");
    let logs = client().get(scene.url("/logs")).send().await.unwrap().text().await.unwrap();
    assert!(logs.contains(TOY), "{logs}");
}
