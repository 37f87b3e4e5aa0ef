//! Too much at once, and the end: queues, fairness between callers, and graceful shutdown.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::scene::{Held, Scene, chat, client, streamed, trial, until};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("who_waits_sees_its_place_and_may_leave", queue),
        trial("a_modest_caller_overtakes_a_greedy_one", fair),
        trial("shutdown_lets_answers_end_and_cuts_what_does_not", shutdown),
    ]
}

fn as_caller(scene: &Scene, caller: &str, tokens: u32) -> reqwest::RequestBuilder {
    client()
        .post(scene.url("/v1/chat/completions"))
        .header("x-pontoon-caller", caller)
        .json(&chat("go on", tokens))
}

async fn queue() {
    let scene = Scene::parallel(1).await;
    scene.post("/v1/chat/completions", chat("warm", 1)).await;
    let held = Held::new(&scene).await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..4 {
        asking.spawn(as_caller(&scene, &format!("c{number}"), 2).send());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until("three wait", Duration::from_secs(5), || async { scene.runner.queue().await.len() == 3 }).await;
    let all = scene.get("/pontoon/v1/queue").await;
    assert_eq!(all.as_array().unwrap().len(), 3, "{all}");
    let leaving = tokio::spawn(as_caller(&scene, "leaves", 2).send());
    until("four wait", Duration::from_secs(5), || async { scene.runner.queue().await.len() == 4 }).await;
    leaving.abort();
    until("it has left", Duration::from_secs(5), || async { scene.runner.queue().await.len() == 3 }).await;
    let guests: Value =
        scene.guest().get("http://p/pontoon/v1/queue").send().await.unwrap().json().await.unwrap();
    assert_eq!(guests, serde_json::json!([]), "a guest sees only its own");
    drop(held);
    let mut positions = Vec::new();
    while let Some(answer) = asking.join_next().await {
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        positions
            .push(answer.headers()["x-pontoon-queue-position"].to_str().unwrap().parse::<u32>().unwrap());
    }
    positions.sort_unstable();
    assert_eq!(positions.last(), Some(&2), "{positions:?}");
}

async fn fair() {
    let scene = Scene::parallel(1).await;
    scene.post("/v1/chat/completions", chat("warm", 1)).await;
    let held = Held::new(&scene).await;
    let mut greedy = tokio::task::JoinSet::new();
    for _ in 0..20 {
        greedy.spawn(as_caller(&scene, "greedy", 200).send());
    }
    until("they wait", Duration::from_secs(5), || async { scene.runner.queue().await.len() == 19 }).await;
    let modest = tokio::spawn(as_caller(&scene, "modest", 4).send());
    until("it waits", Duration::from_secs(5), || async { scene.runner.queue().await.len() == 20 }).await;
    drop(held);
    assert_eq!(modest.await.unwrap().unwrap().status(), 200);
    let left = scene.runner.queue().await.len();
    assert!(left >= 10, "the modest caller came when {left} of the greedy one's 20 still waited");
    greedy.abort_all();
}

async fn shutdown() {
    let mut scene = Scene::new().await;
    scene.post("/v1/chat/completions", chat("warm", 1)).await;
    // One answer that ends in time, one that is held and does not.
    let mut ending = scene.post("/v1/chat/completions", streamed("go on", 400)).await;
    ending.chunk().await.unwrap().expect("a first piece");
    let idle = client();
    idle.get(scene.url("/health")).send().await.unwrap();
    let url = scene.url("/health");
    let reading = tokio::spawn(async move { ending.text().await });
    let started = Instant::now();
    scene.shutdown(Duration::from_secs(5)).await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let text = reading.await.unwrap().expect("a whole answer");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(client().get(url).send().await.is_err(), "nobody listens any more");

    let mut scene = Scene::new().await;
    scene.post("/v1/chat/completions", chat("warm", 1)).await;
    let _held = Held::new(&scene).await;
    let stuck =
        tokio::spawn(client().post(scene.url("/v1/chat/completions")).json(&chat("go on", 400)).send());
    until("it is busy", Duration::from_secs(5), || async { scene.serving().await == 1 }).await;
    let started = Instant::now();
    scene.shutdown(Duration::from_millis(500)).await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(stuck.await.unwrap().is_err(), "it was cut");
}
