//! A hub of our own that answers as the real one does: the right quantisation comes, verified.

use std::sync::atomic::{AtomicBool, Ordering};

use pontoon_models::{
    Digest, Error, Event, Flavour, Policy, Progress, Role, Store,
    registry::{Client, Hub, Options},
};

use super::{
    fake::{Answer, Fake, Request},
    name, options, scratch, weights,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Files of a repository; those longer than a kilobyte are kept by their sha256.
fn hub(files: Vec<(String, Vec<u8>)>) -> impl Fn(&Request) -> Answer + Send + Sync {
    let cut = AtomicBool::new(true);
    move |request| {
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer hf_test") {
            return Answer::new(401, "").with("x-error-message", "Invalid credentials");
        }
        if request.path == "/api/models/Org/Repo/revision/main" {
            let info = serde_json::json!({"sha": COMMIT, "lastModified": "2025-01-02T03:04:05.000Z", "cardData": {"license": "apache-2.0"}});
            return Answer::new(200, info.to_string());
        }
        if let Some(query) =
            request.path.strip_prefix(&format!("/api/models/Org/Repo/tree/{COMMIT}?recursive=true"))
        {
            return page(&files, query, &request.headers["host"]);
        }
        let path = request
            .path
            .strip_prefix(&format!("/Org/Repo/resolve/{COMMIT}/"))
            .map(|path| path.replace("%20", " "));
        match files.iter().find(|(name, _)| Some(name) == path.as_ref()) {
            // The first answer of a long file ends too early.
            Some((_, bytes)) if bytes.len() > 100_000 && cut.swap(false, Ordering::SeqCst) => {
                Answer::new(200, &bytes[..50_000])
            }
            Some((_, bytes)) => Answer::part_of(bytes, request),
            None => Answer::new(404, ""),
        }
    }
}

/// The list in pages of two.
fn page(files: &[(String, Vec<u8>)], query: &str, host: &str) -> Answer {
    let at: usize = query.strip_prefix("&cursor=").and_then(|at| at.parse().ok()).unwrap_or(0);
    let entry = |(path, bytes): &(String, Vec<u8>)| match bytes.len() > 1000 {
        true => serde_json::json!({"type": "file", "path": path, "size": bytes.len(), "oid": "x",
            "lfs": {"oid": Digest::of(bytes).hex(), "size": bytes.len(), "pointerSize": 130}}),
        false => serde_json::json!({"type": "file", "path": path, "size": bytes.len(), "oid": "x"}),
    };
    let end = (at + 2).min(files.len());
    let list: Vec<_> = files[at..end].iter().map(entry).collect();
    let answer = Answer::new(200, serde_json::Value::from(list).to_string());
    match end < files.len() {
        true => answer.with(
            "link",
            format!(
                "<http://{host}/api/models/Org/Repo/tree/{COMMIT}?recursive=true&cursor={end}>; rel=\"next\""
            ),
        ),
        false => answer,
    }
}

fn client(fake: &Fake, token: Option<&str>, policy: Policy) -> Client {
    let hub = Hub { endpoint: format!("http://127.0.0.1:{}", fake.port), token: token.map(str::to_owned) };
    Client::new(Options { hub, policy, ..options() }).unwrap()
}

/// No valid GGUF, which the pull tells without refusing the artifact.
fn gguf(byte: u8) -> Vec<u8> {
    [&b"GGUF"[..], &vec![byte; 200_000]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_quantisation_comes_and_is_verified() {
    let files = vec![
        (".gitattributes".to_owned(), b"x".to_vec()),
        ("m-Q8_0.gguf".to_owned(), gguf(8)),
        ("m Q4_K_M.gguf".to_owned(), gguf(4)),
        ("LICENSE".to_owned(), b"do as you like".to_vec()),
        ("README.md".to_owned(), b"# x".to_vec()),
    ];
    let fake = Fake::start(hub(files)).await;
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    let (progress, mut events) = Progress::channel();
    let policy = Policy { license_required: true, ..Policy::default() };
    let model =
        client(&fake, Some("hf_test"), policy).pull(&store, &name("hf.co/Org/Repo"), progress).await.unwrap();
    assert_eq!(model.flavour, Flavour::DockerV01);
    assert_eq!(model.display_name(), "hf.co/Org/Repo:latest");
    assert_eq!(model.licenses, ["apache-2.0"]);
    let weights: Vec<_> = model.files_of(Role::Weights).collect();
    assert_eq!((weights.len(), std::fs::read(&weights[0].path).unwrap()), (1, gguf(4)));
    let mut warned = false;
    while let Some(event) = events.recv().await {
        warned |= matches!(&event, Event::Warning(text) if text.contains("will not run"));
    }
    assert!(warned, "a damaged file must not come in silence");
    // The same files make the same artifact.
    let again = client(&fake, Some("hf_test"), Policy::default())
        .pull(&store, &name("huggingface.co/Org/Repo:LATEST"), Progress::none())
        .await;
    assert_eq!(again.unwrap().digest, model.digest);
    assert_eq!(store.list().unwrap().len(), 1);
    let other = name("hf.co/Org/Repo:Q8_0");
    let other = client(&fake, Some("hf_test"), Policy::default())
        .pull(&store, &other, Progress::none())
        .await
        .unwrap();
    assert_ne!(other.digest, model.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_safetensors_repository_comes_whole() {
    let folder = scratch();
    let weights = std::fs::read(weights(&folder, "w.safetensors", 300_000, 3)).unwrap();
    let files = vec![
        ("model.safetensors".to_owned(), weights.clone()),
        (
            "config.json".to_owned(),
            br#"{"model_type":"bert","architectures":["BertModel"],"num_hidden_layers":6}"#.to_vec(),
        ),
        ("modeling.py".to_owned(), b"import os".to_vec()),
        ("tokenizer.json".to_owned(), b"{}".to_vec()),
    ];
    let fake = Fake::start(hub(files)).await;
    let store = Store::open(folder.path().join("store")).unwrap();
    let client = client(&fake, Some("hf_test"), Policy::default());
    let model = client.pull(&store, &name("hf.co/Org/Repo"), Progress::none()).await.unwrap();
    assert_eq!((model.flavour, model.config.architecture.as_str()), (Flavour::DockerV02, "bert"));
    let bundle = store.bundle(&model).unwrap();
    assert_eq!(std::fs::read(bundle.dir.join("model.safetensors")).unwrap(), weights);
    assert!(bundle.dir.join("tokenizer.json").exists() && !bundle.dir.join("modeling.py").exists());
    let facts = store.facts(&model).unwrap();
    assert_eq!((facts.mode, facts.layers), (pontoon_models::check::Mode::Embedding, 6));
}

#[tokio::test]
async fn a_missing_token_and_a_lying_hub_are_clear_errors() {
    let fake = Fake::start(hub(Vec::new())).await;
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    let error = client(&fake, None, Policy::default())
        .pull(&store, &name("hf.co/Org/Repo"), Progress::none())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }) && error.to_string().contains("HF_TOKEN"), "{error}");

    let bytes = gguf(1);
    let honest = hub(vec![("m-Q4_0.gguf".to_owned(), bytes)]);
    let liar = Fake::start(move |request| {
        let mut answer = honest(request);
        if answer.body.len() > 1000 {
            answer.body[999] ^= 1;
        }
        answer
    });
    let error = client(&liar.await, Some("hf_test"), Policy::default())
        .pull(&store, &name("hf.co/Org/Repo"), Progress::none())
        .await;
    assert!(matches!(error, Err(Error::Digest { .. })), "{error:?}");
    assert!(store.list().unwrap().is_empty());
}
