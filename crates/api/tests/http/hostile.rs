//! Callers that mean no good: rebound names, web pages, half-sent and oversize requests, trickled heads.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::json;

use crate::scene::{Scene, TOY, chat, client, streamed, trial, until};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("rebound_names_and_web_pages_are_refused", pages),
        trial("allowed_pages_may_call_but_not_manage", allowed),
        trial("hostile_heads_are_answered_and_cut", heads),
        trial("oversize_bodies_are_refused_before_they_come", oversize),
        trial("half_sent_bodies_and_trickled_heads_end", halves),
        trial("ranges_the_wrong_way_round_never_reach_an_engine", wrong_way_round),
        trial("a_hundred_that_connect_and_vanish_disturb_nobody", vanish),
        trial("a_thousand_idle_connections_are_cheap", idle),
        trial("connections_of_one_caller_are_limited", crowd),
    ]
}

/// Sends bytes as they are, and reads until the other end closes.
fn raw(scene: &Scene, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(scene.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A server that has seen enough may close before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
        }
        if answer.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

async fn pages() {
    let scene = Scene::new().await;
    for host in ["evil.example", "evil.example:12434", "169.254.169.254", "localhost.evil.example"] {
        let answer = raw(&scene, format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403"), "{host}: {answer}");
    }
    for host in ["localhost", "127.0.0.1:12434", "[::1]:80", "model-runner.docker.internal", "LOCALHOST:1"] {
        let answer = raw(&scene, format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
    let absolute = raw(&scene, b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(absolute.starts_with("HTTP/1.1 403"), "{absolute}");
    for (name, value) in
        [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        let answer = client().get(scene.url("/v1/models")).header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{name}: {value}");
        assert!(!answer.headers().contains_key("access-control-allow-origin"));
    }
}

async fn allowed() {
    let scene = Scene::with(|config| config.origins = vec!["https://app.example".into()]).await;
    let from = |path: &str| client().get(scene.url(path)).header("origin", "https://app.example");
    let answer = from("/v1/models").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://app.example");
    let refused = from("/metrics").send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let preflight = client().request(reqwest::Method::OPTIONS, scene.url("/v1/chat/completions"));
    let preflight = preflight.header("origin", "https://app.example").send().await.unwrap();
    assert_eq!(preflight.status(), 204);
    assert!(preflight.headers()["access-control-allow-headers"].to_str().unwrap().contains("content-type"));
}

async fn heads() {
    let scene = Scene::new().await;
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(500));
    for (what, bytes) in [
        ("long", long.into_bytes()),
        ("many", many.into_bytes()),
        ("nonsense", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20)),
        ("two lengths", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}".to_vec()),
        ("length and chunks", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".to_vec()),
        ("control characters", b"GET /v1/models/%00%0a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("climbing", b"GET /models/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
    ] {
        let answer = raw(&scene, &bytes);
        assert!(answer.starts_with("HTTP/1.1 4") || answer.is_empty(), "{what}: {answer}");
    }
    let key =
        client().get(scene.url("/v1/models")).header("authorization", "Bearer \u{7f}x".trim()).send().await;
    assert!(key.is_err() || key.unwrap().status() == 200);
    assert_eq!(scene.get("/health").await["status"], "ok");
}

async fn oversize() {
    let scene = Scene::with(|config| config.limits.body_bytes = 4096).await;
    let started = Instant::now();
    let announced = raw(
        &scene,
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{",
    );
    assert!(announced.starts_with("HTTP/1.1 413"), "{announced}");
    assert!(started.elapsed() < Duration::from_secs(2));
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let unannounced = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"
    );
    let answer = raw(&scene, unannounced.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

async fn halves() {
    let scene = Scene::with(|config| {
        config.limits.body_seconds = 1;
        config.limits.header_seconds = 1;
    })
    .await;
    let started = Instant::now();
    let half = raw(
        &scene,
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"model\"",
    );
    assert!(half.starts_with("HTTP/1.1 400") && started.elapsed() < Duration::from_secs(5), "{half}");
    let started = Instant::now();
    let head = raw(&scene, b"GET /v1/models HTTP/1.1\r\nHos");
    assert!(started.elapsed() < Duration::from_secs(5), "cut after {:?}: {head}", started.elapsed());
}

async fn vanish() {
    let scene = Scene::new().await;
    scene.post("/v1/chat/completions", chat("warm", 1)).await;
    let body = streamed("go on", 3000).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut streams = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(scene.address()).unwrap();
        // A third each: nothing, half a request, a whole one.
        match number % 3 {
            0 => {}
            1 => stream.write_all(&head.as_bytes()[..40]).unwrap(),
            _ => stream.write_all(format!("{head}{body}").as_bytes()).unwrap(),
        }
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(streams);
    until("all turns are given back", Duration::from_secs(10), || async {
        scene.serving().await == 0 && scene.runner.queue().await.is_empty()
    })
    .await;
    let started = Instant::now();
    assert_eq!(scene.post("/v1/chat/completions", chat("still there?", 4)).await.status(), 200);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

async fn idle() {
    let scene = Scene::new().await;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024
    };
    let before = resident();
    let mut streams = Vec::new();
    for _ in 0..1000 {
        // Both ends are in this process, so this counts more than the server's part.
        let mut stream = TcpStream::connect(scene.address()).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut piece = [0; 1024];
        assert!(stream.read(&mut piece).unwrap() > 0);
        streams.push(stream);
    }
    let used = resident() - before;
    println!("1000 idle connections: {:.1} MiB", used as f64 / f64::from(1 << 20));
    assert!(used < 50 << 20, "{used} bytes");
}

async fn crowd() {
    let scene = Scene::with(|config| config.limits.connections_per_caller = 5).await;
    let mut streams = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(scene.address()).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).unwrap();
        answers.push(String::from_utf8_lossy(&piece[9..12.min(count)]).into_owned());
        streams.push(stream);
    }
    assert_eq!(answers, ["200", "200", "200", "200", "200", "429", "429", "429"]);
    drop(streams);
    until("the places are free again", Duration::from_secs(5), || async {
        client().get(scene.url("/health")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

/// llama-server writes rules for these until its memory is full.
async fn wrong_way_round() {
    let scene = Scene::new().await;
    let schema = json!({ "type": "array", "items": { "type": "string" }, "minItems": 5, "maxItems": 2 });
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let tool = json!({ "name": "f", "parameters": schema });
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let requests = [
        (
            "/v1/chat/completions",
            json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema } } }),
        ),
        ("/v1/chat/completions", json!({ "tools": [{ "type": "function", "function": tool }] })),
        ("/v1/chat/completions", json!({ "grammar": "root ::= \"a\"{5,2}" })),
        (
            "/v1/completions",
            json!({ "prompt": "x", "json_schema": { "type": "string", "pattern": "^a{5,2}$" } }),
        ),
        ("/v1/messages", json!({ "max_tokens": 5, "tools": [{ "name": "f", "input_schema": schema }] })),
        ("/api/chat", json!({ "format": schema })),
        ("/api/generate", json!({ "prompt": "x", "format": schema })),
        (
            "/v1/responses",
            json!({ "input": "x", "text": { "format": { "type": "json_schema", "name": "x", "schema": schema } } }),
        ),
    ];
    for (path, mut body) in requests {
        body["model"] = TOY.into();
        if body.get("prompt").or(body.get("input")).is_none() {
            body["messages"] = messages.clone();
        }
        let answer = scene.post(path, body).await;
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(
            status == 400 && (text.contains("minItems") || text.contains("{5,2}")),
            "{path}: {status} {text}"
        );
    }
    let body = format!(r#"{{"model":"{TOY}","prompt":"x","json_schema":{deep}}}"#);
    let answer = client().post(scene.url("/v1/completions")).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 400, "too deep to be looked through");
}
