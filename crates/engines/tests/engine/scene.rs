//! Owns what the tests stand on: a store with the toy model, a runner, requests.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use pontoon_engines::engine::{Catalog, EngineConfig};
use pontoon_engines::instance::{Launcher, post};
use pontoon_engines::{Caller, Lease, Memory, Mode, Options, Request, Runner, Settings};
use pontoon_models::{Policy, Progress, Reference, Store, package::Builder};
use serde_json::{Value, json};

pub const TOY: &str = "test/toy:chat";

/// A folder that goes with the test.
pub struct Scene {
    pub folder: PathBuf,
    pub store: Store,
}

impl Scene {
    /// With the toy model.
    pub fn new(name: &str) -> Scene {
        let scene = Scene::empty(name);
        scene.add(&toy(), TOY);
        scene
    }

    pub fn empty(name: &str) -> Scene {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Short, because a socket's path must fit into 108 bytes.
        let folder = std::env::temp_dir().join(format!("pe-{}-{number}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Scene::at(folder)
    }

    /// In a folder that is there.
    pub fn at(folder: PathBuf) -> Scene {
        let store = Store::open(folder.join("store")).unwrap();
        Scene { folder, store }
    }

    /// Packages a GGUF file under `name`.
    pub fn add(&self, gguf: &Path, name: &str) {
        self.try_add(gguf, name).unwrap();
    }

    pub fn try_add(&self, gguf: &Path, name: &str) -> pontoon_models::Result<pontoon_models::Model> {
        let name = Reference::parse(name).unwrap();
        Builder::gguf(gguf).build(&self.store, &name, &Policy::default(), &Progress::none())
    }

    /// Another model: the same weights under another name in the metadata would be the same blob, so its
    /// context size differs.
    pub fn add_sibling(&self, name: &str, context: u32) {
        let reference = Reference::parse(name).unwrap();
        let builder = Builder::gguf(toy()).context_size(context);
        builder.build(&self.store, &reference, &Policy::default(), &Progress::none()).unwrap();
    }

    pub fn options(&self) -> Options {
        let config = EngineConfig { mlx_python: mlx_python(), ..EngineConfig::default() };
        let engines = Catalog::open(self.folder.join("engines"), config);
        let launcher = Launcher {
            program: std::env::current_exe().unwrap(),
            arguments: vec!["worker".into(), "engine".into()],
        };
        let mut options = Options::new(self.store.clone(), engines, self.folder.clone(), launcher);
        options.defaults =
            Settings { threads: Some(1), parallel: Some(2), context_size: Some(256), ..Settings::default() };
        options.budget = Some(Memory::host(4 << 30));
        options
    }

    pub async fn runner(&self) -> Runner {
        Runner::start(self.options()).await.unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn toy() -> PathBuf {
    let named = std::env::var_os("PONTOON_TOY_MODEL").map(PathBuf::from);
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models/toy-chat-q8_0.gguf");
    named.unwrap_or(shared)
}

pub fn mlx_python() -> Option<PathBuf> {
    std::env::var_os("PONTOON_MLX_PYTHON").map(PathBuf::from)
}

fn llama_is_here() -> bool {
    let catalog = Catalog::open("/nonexistent", EngineConfig::default());
    toy().exists() && catalog.locate("llama.cpp", None).is_ok()
}

pub fn required() -> bool {
    std::env::var_os("PONTOON_TEST_REQUIRE").is_some_and(|value| value == "1")
}

/// A test that needs `llama-server`.
pub fn llama<F: Future<Output = ()>>(
    name: &'static str,
    test: impl FnOnce(Scene) -> F + Send + 'static,
) -> Trial {
    let here = llama_is_here();
    let run = move || {
        if !here {
            return Err(Failed::from("there is no llama-server or no toy model; set PONTOON_LLAMA_SERVER"));
        }
        block_on(test(Scene::new(name)));
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(!here && !required())
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

pub fn request(model: &str, caller: &str) -> Request {
    Request {
        model: model.to_owned(),
        caller: Caller { id: caller.into(), weight: 1 },
        mode: Mode::Chat,
        cost: 64,
        keep_alive: None,
        context_size: None,
    }
}

pub async fn turn(runner: &Runner, model: &str) -> Lease {
    runner.acquire(request(model, "tester")).await.unwrap_or_else(|e| panic!("{e}"))
}

/// Asks a question in chat and returns the whole answer.
pub async fn chat(lease: &Lease, content: &str, tokens: u32) -> Value {
    let body = json!({
        "model": lease.at.engine_model,
        "messages": [{ "role": "user", "content": content }],
        "max_tokens": tokens,
        "temperature": 0.0,
    });
    let answer =
        post(&lease.at.socket, "/v1/chat/completions", &body, Duration::from_secs(120)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json().unwrap()
}

pub fn said(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_default()
}

/// Waits until something holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "it did not come about: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn gone(runner: &Runner) {
    until("no engine is left", || async { runner.ps().await.is_empty() }).await;
}
