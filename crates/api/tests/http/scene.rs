//! What the tests stand on: a store with the toy model, a runner, a server, clients.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use pontoon_api::{Api, Config, LogTail, Server, start};
use pontoon_engines::engine::{Catalog, EngineConfig};
use pontoon_engines::instance::Launcher;
use pontoon_engines::{Memory, Options, Runner, Settings};
use pontoon_models::package::Builder;
use pontoon_models::{Policy, Progress, Reference, Store, registry};
use reqwest::{Client, Response};
use serde_json::{Value, json};

/// The toy model's name.
pub const TOY: &str = "test/toy:chat";

/// A server in a folder of its own.
pub struct Scene {
    pub folder: PathBuf,
    pub runner: Runner,
    server: Option<Server>,
    /// `http://127.0.0.1:PORT`.
    pub base: String,
}

impl Scene {
    /// With the usual configuration.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a configuration changed by `change`.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::at("127.0.0.1:0", change, 2).await
    }

    /// With so many requests at once on the model.
    pub async fn parallel(parallel: u32) -> Self {
        Self::at("127.0.0.1:0", |_| {}, parallel).await
    }

    async fn at(address: &str, change: impl FnOnce(&mut Config), parallel: u32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Short, because a socket's path must fit into 108 bytes.
        let folder = std::env::temp_dir().join(format!("pa-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let store = Store::open(folder.join("store")).unwrap();
        let name = Reference::parse(TOY).unwrap();
        Builder::gguf(toy()).build(&store, &name, &Policy::default(), &Progress::none()).unwrap();
        let launcher = Launcher {
            program: std::env::current_exe().unwrap(),
            arguments: vec!["worker".into(), "engine".into()],
        };
        let engines = Catalog::open(folder.join("engines"), EngineConfig::default());
        let mut options = Options::new(store.clone(), engines, folder.clone(), launcher);
        options.defaults = Settings {
            threads: Some(1),
            parallel: Some(parallel),
            context_size: Some(4096),
            ..Settings::default()
        };
        options.budget = Some(Memory::host(4 << 30));
        let runner = Runner::start(options).await.unwrap();
        let mut config = Config {
            listen: vec![address.parse().unwrap()],
            socket: Some(folder.join("g/models.sock")),
            admin: Some(folder.join("a/models.sock")),
            ..Config::default()
        };
        change(&mut config);
        let api = Api {
            config,
            runner: runner.clone(),
            store,
            registry: registry::Options { retries: 0, ..registry::Options::default() },
            version: "0.0.test".into(),
            log: LogTail::new(100),
            directory: Arc::default(),
            devices: Vec::new(),
            more_metrics: Some(Arc::new(|| "# HELP more More\n".to_owned())),
        };
        let server = start(api).await.unwrap();
        let base = server.addresses()[0].clone();
        Self { folder, runner, server: Some(server), base }
    }

    /// A URL of the loopback listener.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// All addresses.
    pub fn addresses(&self) -> &[String] {
        self.server.as_ref().unwrap().addresses()
    }

    /// A client of the guests' socket.
    pub fn guest(&self) -> Client {
        Client::builder().unix_socket(self.folder.join("g/models.sock")).build().unwrap()
    }

    /// A client of the operator's socket.
    pub fn admin(&self) -> Client {
        Client::builder().unix_socket(self.folder.join("a/models.sock")).build().unwrap()
    }

    /// Posts JSON on loopback.
    pub async fn post(&self, path: &str, body: Value) -> Response {
        client().post(self.url(path)).json(&body).send().await.unwrap()
    }

    /// Gets JSON on loopback.
    pub async fn get(&self, path: &str) -> Value {
        let answer = client().get(self.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    /// Requests that the engine works on now.
    pub async fn serving(&self) -> usize {
        self.runner.ps().await.iter().map(|running| running.serving).sum()
    }

    /// Ends the server as a daemon would.
    pub async fn shutdown(&mut self, grace: Duration) {
        if let Some(server) = self.server.take() {
            server.shutdown(grace).await;
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Sends a signal to the engine.
pub async fn signal(scene: &Scene, signal: rustix::process::Signal) {
    let pid = scene.runner.ps().await[0].pid.expect("a process");
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// The engine stands still until this is dropped.
pub struct Held(rustix::process::Pid);

impl Held {
    pub async fn new(scene: &Scene) -> Self {
        signal(scene, rustix::process::Signal::STOP).await;
        let pid = scene.runner.ps().await[0].pid.expect("a process");
        Self(rustix::process::Pid::from_raw(pid as i32).unwrap())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

/// A client that keeps nothing alive, so that tests do not share connections.
pub fn client() -> Client {
    Client::builder().pool_max_idle_per_host(0).build().unwrap()
}

/// A chat of one line.
pub fn chat(text: &str, tokens: u32) -> Value {
    json!({
        "model": TOY,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": true,
    })
}

/// The same, streamed.
pub fn streamed(text: &str, tokens: u32) -> Value {
    let mut body = chat(text, tokens);
    body["stream"] = true.into();
    body
}

/// Waits until something holds.
pub async fn until<F: Future<Output = bool>>(what: &str, within: Duration, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A test that needs the engine.
pub fn trial<F, R>(name: &str, run: F) -> Trial
where
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = ()>,
{
    let missing = missing();
    let required = std::env::var_os("PONTOON_TEST_REQUIRE").is_some_and(|value| value == "1");
    let ignored = missing.is_some() && !required;
    let trial = Trial::test(name, move || {
        if let Some(missing) = missing {
            return Err(Failed::from(missing));
        }
        provider();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let limit = Duration::from_secs(120);
            tokio::time::timeout(limit, run()).await.map_err(|_| format!("took longer than {limit:?}").into())
        })
    });
    trial.with_ignored_flag(ignored)
}

fn missing() -> Option<String> {
    if !toy().exists() {
        return Some(format!("there is no model at {}; set PONTOON_TEST_GGUF", toy().display()));
    }
    let named = std::env::var_os("PONTOON_LLAMA_SERVER").is_some_and(|path| PathBuf::from(path).exists());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named || std::env::split_paths(&path).any(|folder| folder.join("llama-server").exists());
    (!found).then(|| "there is no llama-server; set PONTOON_LLAMA_SERVER".into())
}

/// The model of the tests.
pub fn toy() -> PathBuf {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/models/toy-chat-q8_0.gguf");
    std::env::var_os("PONTOON_TEST_GGUF").map_or_else(|| fixture.into(), PathBuf::from)
}

/// TLS of clients is rustls with `ring`, once for the process.
fn provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Serves until killed.
pub fn serve(address: &str) {
    provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let scene = Scene::at(address, |_| {}, 2).await;
        println!("{}", scene.addresses().join(" "));
        std::future::pending::<()>().await;
    });
}
