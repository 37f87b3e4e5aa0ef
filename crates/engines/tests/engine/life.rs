//! The life of one model: load, serve, evict, restore, die, fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use pontoon_engines::instance::{memory_of, post};
use pontoon_engines::{Change, KeepAlive, Mode, Refusal, Runner, Settings, Usage, Which};
use serde_json::json;

use crate::scene::{Scene, TOY, chat, gone, llama, request, said, toy, turn, until};

pub fn trials() -> Vec<Trial> {
    vec![
        llama("load_answer_and_measure", load_answer_and_measure),
        llama("one_process_chats_and_embeds", one_process_chats_and_embeds),
        llama("an_idle_model_leaves", an_idle_model_leaves),
        llama("saved_slots_give_a_faster_first_token", saved_slots_give_a_faster_first_token),
        llama("kill_9_is_noticed_and_mended", kill_9_is_noticed_and_mended),
        llama("an_engine_that_wants_ever_more_is_refused_it", bounded),
        llama("a_corrupt_model_is_refused_while_others_are_served", corrupt),
        llama("settings_are_layered_durable_and_shown", settings),
        llama("a_request_may_raise_the_context_and_no_further", raise),
        llama("engines_end_with_their_supervisor", with_supervisor),
        llama("any_other_command_line_is_an_engine_too", custom),
        encoder(),
        llama("a_draft_model_drafts", draft),
        llama("every_option_is_one_that_this_engine_takes", every_option),
        llama("what_does_not_exist_or_cannot_do_it_is_said", refusals),
    ]
}

async fn load_answer_and_measure(scene: Scene) {
    let runner = scene.runner().await;
    let lease = turn(&runner, TOY).await;
    println!("loaded in {:?}, waited {:?} in all", lease.load, lease.wait);
    assert!(lease.load > Duration::ZERO && lease.wait >= lease.load);
    let answer = chat(&lease, "What is the capital of France?", 20).await;
    assert_eq!(said(&answer), "The capital of France is Paris.");
    assert_eq!(answer["model"], lease.at.engine_model);
    let running = runner.ps().await.remove(0);
    assert_eq!((running.state.as_str(), running.serving, running.estimated), ("busy", 1, false));
    assert!(running.memory.host > 5 << 20 && running.memory.host < 1 << 30, "{}", running.memory);
    lease.finish(Usage { prompt_tokens: 20, completion_tokens: 12 });
    let again = turn(&runner, TOY).await;
    assert_eq!(again.load, Duration::ZERO, "it was there already");
    drop(again);
    assert_eq!(runner.unload(Which::All).await.unwrap(), ["test/toy:chat"]);
    gone(&runner).await;
    let shown = runner.show(TOY).await.unwrap();
    assert!(shown.measured, "what was seen is remembered: {shown:?}");
    drop(runner);
    let later = scene.runner().await;
    assert!(later.show(TOY).await.unwrap().measured, "also across a restart");
}

async fn one_process_chats_and_embeds(scene: Scene) {
    let runner = scene.runner().await;
    drop(turn(&runner, TOY).await);
    let mut wish = request(TOY, "tester");
    wish.mode = Mode::Embedding;
    let lease = runner.acquire(wish).await.unwrap();
    let body = json!({ "model": lease.at.engine_model, "input": ["hello", "good morning"] });
    let answer = post(&lease.at.socket, "/v1/embeddings", &body, Duration::from_secs(20)).await.unwrap();
    let vectors = answer.json().unwrap();
    assert_eq!(vectors["data"].as_array().map(Vec::len), Some(2), "{vectors}");
    let second = turn(&runner, TOY).await;
    assert_eq!(second.at.socket, lease.at.socket, "the same process");
    assert_eq!(
        said(&chat(&second, "What is the capital of Italy?", 20).await),
        "The capital of Italy is Rome."
    );
    assert_eq!(runner.ps().await.len(), 1);
    assert_eq!(runner.counters().await.loads, 2, "begun anew once, to do both");
}

async fn an_idle_model_leaves(scene: Scene) {
    let runner = scene.runner().await;
    let mut wish = request(TOY, "tester");
    wish.keep_alive = Some(KeepAlive::For(Duration::from_millis(400)));
    let lease = runner.acquire(wish.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(runner.ps().await.len(), 1, "not while it serves");
    let socket = lease.at.socket.clone();
    drop(lease);
    let idle = Instant::now();
    gone(&runner).await;
    assert!(idle.elapsed() >= Duration::from_millis(390), "{:?}", idle.elapsed());
    assert!(!socket.exists() && !socket.parent().unwrap().exists());
    wish.keep_alive = Some(KeepAlive::For(Duration::ZERO));
    drop(runner.acquire(wish).await.unwrap());
    gone(&runner).await;
}

/// The same long beginning, before and after an eviction. Restored, nearly all of it comes from the
/// cache; without saved slots nothing does.
async fn saved_slots_give_a_faster_first_token(scene: Scene) {
    let mut options = scene.options();
    options.defaults.context_size = Some(512);
    options.defaults.parallel = Some(1);
    let runner = pontoon_engines::Runner::start(options).await.unwrap();
    let long = "Tell me a story about a fox and a river. ".repeat(32);
    let lease = turn(&runner, TOY).await;
    let cold = chat(&lease, &long, 1).await;
    lease.finish(Usage::default());
    runner.unload(Which::All).await.unwrap();
    gone(&runner).await;
    assert!(runner.df().await.slots_bytes > 0);
    let lease = turn(&runner, TOY).await;
    let warm = chat(&lease, &long, 1).await;
    lease.finish(Usage::default());
    let number = |answer: &serde_json::Value, name: &str| answer["timings"][name].as_f64().unwrap();
    println!(
        "first token: cold {} ms, restored {} ms",
        number(&cold, "prompt_ms"),
        number(&warm, "prompt_ms")
    );
    assert!(number(&cold, "cache_n") < 10.0, "{cold}");
    assert!(number(&warm, "cache_n") > 0.9 * number(&cold, "prompt_n"), "{warm}");
    // One sample of a few milliseconds on a busy machine; `pontoon model bench` measures it well.
    assert!(number(&warm, "prompt_ms") * 2.0 < number(&cold, "prompt_ms"), "{cold} {warm}");
    runner.unload(Which::All).await.unwrap();
    gone(&runner).await;
    runner.clear_slots().await;
    let lease = turn(&runner, TOY).await;
    let forgotten = chat(&lease, &long, 1).await;
    assert!(number(&forgotten, "cache_n") < 10.0, "{forgotten}");
}

async fn kill_9_is_noticed_and_mended(scene: Scene) {
    let runner = scene.runner().await;
    let lease = turn(&runner, TOY).await;
    let pid = runner.ps().await[0].pid.unwrap();
    kill(pid);
    tokio::time::timeout(Duration::from_secs(5), lease.gone())
        .await
        .expect("whoever has the turn hears of it");
    let after = turn(&runner, TOY).await;
    assert_ne!(runner.ps().await[0].pid, Some(pid));
    let folder = lease.at.socket.parent().unwrap().to_owned();
    until("the folder of its socket is gone", || async { !folder.exists() }).await;
    assert!(said(&chat(&after, "Hello", 10).await).len() > 1);
    assert_eq!(runner.counters().await.deaths, 1);
    drop(lease);
    assert_eq!(runner.ps().await[0].serving, 1, "a turn at a dead engine gives nothing back");
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// What the HTTP side refuses is asked of the engine itself: rules that it writes out until its memory is full.
async fn bounded(scene: Scene) {
    let mut options = scene.options();
    options.growth = Some(256 << 20);
    options.defaults.prompt_cache_mib = Some(0);
    let runner = Runner::start(options).await.unwrap();
    let lease = turn(&runner, TOY).await;
    let (pid, ready) = (runner.ps().await[0].pid.unwrap(), runner.ps().await[0].memory.host);
    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    let watching = tokio::task::spawn_blocking(move || {
        while let Some(memory) = memory_of(pid) {
            seen.fetch_max(memory.host, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let schema = json!({ "type": "array", "items": { "type": "string" }, "minItems": 5, "maxItems": 2 });
    let format = json!({ "type": "json_schema", "json_schema": { "schema": schema } });
    let body = json!({ "messages": [{ "role": "user", "content": "x" }], "response_format": format });
    let answer = post(&lease.at.socket, "/v1/chat/completions", &body, Duration::from_secs(120)).await;
    println!("it answered {answer:?}");
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 400), "it got what it wanted");
    drop(lease);
    let again = turn(&runner, TOY).await;
    assert_eq!(runner.ps().await[0].pid, Some(pid), "it lives on");
    let answer = chat(&again, "What is the capital of France?", 20).await;
    assert_eq!(said(&answer), "The capital of France is Paris.");
    drop(again);
    runner.unload(Which::All).await.unwrap();
    watching.await.unwrap();
    let grown = most.load(Ordering::Relaxed).saturating_sub(ready);
    println!("it grew by {} MiB", grown >> 20);
    assert!((64 << 20..300 << 20).contains(&grown), "it grew by {} MiB", grown >> 20);
}

/// A file that goes bad after it was packaged.
async fn corrupt(scene: Scene) {
    let runner = scene.runner().await;
    let good = turn(&runner, TOY).await;
    let pid = runner.ps().await[0].pid;
    let bad = scene.folder.join("bad.gguf");
    let bytes = std::fs::read(toy()).unwrap();
    // Valid when it is packaged; another byte each time makes another blob.
    let mut other = bytes.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    std::fs::write(&bad, &other).unwrap();
    let model = scene.try_add(&bad, "test/bad:chat").unwrap();
    let blob = &model.files[0].path;
    make_writable(blob);
    let mut absurd = other.clone();
    // The number of metadata entries, as a GGUF file has it behind magic, version and tensors.
    absurd[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut flipped = other.clone();
    flipped[24..2000].iter_mut().for_each(|byte| *byte ^= 0x10);
    for (what, damage) in [
        ("absurd", absurd.as_slice()),
        ("flipped bits", &flipped),
        ("truncated", &other[..other.len() / 2]),
        ("not GGUF", b"this is not a model".as_slice()),
        ("empty", b"".as_slice()),
    ] {
        std::fs::write(blob, damage).unwrap();
        runner.refresh();
        let error = runner.acquire(request("test/bad:chat", "tester")).await.unwrap_err();
        assert!(matches!(error.kind, Refusal::LoadFailed { .. }), "{what}: {error:?}");
        println!("{what}: {error}");
        let folder = scene.folder.display().to_string();
        assert!(!error.message.contains(&folder), "a guest learns nothing of the host's folders");
    }
    // Where no header tells it: one bit of one weight.
    let mut weight = other.clone();
    weight[last - 5000] ^= 1;
    std::fs::write(blob, &weight).unwrap();
    runner.refresh();
    let error = runner.acquire(request("test/bad:chat", "tester")).await.unwrap_err();
    assert!(matches!(error.kind, Refusal::LoadFailed { .. }), "{error:?}");
    assert!(error.message.contains("other content than its name says"), "{error}");
    assert_eq!(
        said(&chat(&good, "What is the capital of Spain?", 20).await),
        "The capital of Spain is Madrid."
    );
    assert_eq!(runner.ps().await[0].pid, pid, "nobody else was disturbed");
    // Put right, it is loaded; the pause after the failure is short.
    std::fs::write(blob, &other).unwrap();
    until("it is loaded again", || async {
        runner.acquire(request("test/bad:chat", "tester")).await.is_ok()
    })
    .await;
}

fn make_writable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

async fn settings(scene: Scene) {
    let runner = scene.runner().await;
    let lease = turn(&runner, TOY).await;
    let flags = Settings::from_flags(&["--ctx-size", "128", "--temp", "0.5", "-ctk", "q8_0"]).unwrap();
    let shown = runner.configure(TOY, flags, Change::Merge).await.unwrap();
    let origin = |name: &str| shown.settings[name].origin.to_string();
    assert_eq!((origin("context_size"), origin("prompt_cache_mib")), ("host".into(), "default".into()));
    assert!(shown.argv.windows(2).any(|pair| pair == ["--ctx-size", "256"]), "two slots: {:?}", shown.argv);
    assert_eq!(lease.at.context_size, 256);
    assert_eq!(runner.ps().await[0].state, "draining", "it begins anew when it has answered");
    drop(lease);
    let lease = turn(&runner, TOY).await;
    assert_eq!(lease.at.context_size, 128);
    drop(lease);
    drop(runner);
    let later = scene.runner().await;
    assert_eq!(later.show(TOY).await.unwrap().settings["temperature"].value, json!(0.5));
    let nonsense = Settings { draft_model: Some("test/none:x".into()), ..Settings::default() };
    later.configure(TOY, nonsense, Change::Merge).await.unwrap_err();
    assert_eq!(later.configuration(TOY).await.unwrap().draft_model, None, "what cannot work is not kept");
    let empty = later.configure(TOY, Settings::default(), Change::Replace).await.unwrap();
    assert!(!empty.settings.contains_key("temperature"));
}

async fn raise(scene: Scene) {
    let runner = scene.runner().await;
    drop(turn(&runner, TOY).await);
    let mut wish = request(TOY, "tester");
    wish.context_size = Some(1_000_000);
    let lease = runner.acquire(wish).await.unwrap();
    let trained = scene.store.facts(&scene.store.resolve(TOY).unwrap()).unwrap().context_length;
    assert_eq!(lease.at.context_size, trained, "as far as the model was trained");
    assert_eq!(runner.ps().await[0].slots, 2, "as many slots as before");
    drop(lease);
    runner.unload(Which::All).await.unwrap();
    gone(&runner).await;
    assert_eq!(turn(&runner, TOY).await.at.context_size, 256, "what a request raised ends with the process");
}

async fn refusals(scene: Scene) {
    let mut options = scene.options();
    options.defaults.engine = Some("no-such-engine".to_owned());
    let without = pontoon_engines::Runner::start(options).await.unwrap();
    let error = without.acquire(request(TOY, "t")).await.unwrap_err();
    assert_eq!(error.kind, Refusal::NoEngine, "{error}");
    let runner = scene.runner().await;
    let error = runner.acquire(request("test/none:x", "t")).await.unwrap_err();
    assert_eq!(error.kind, Refusal::NotFound, "{error}");
    let error = runner.acquire(request("../../etc/passwd", "t")).await.unwrap_err();
    assert!(matches!(error.kind, Refusal::Invalid | Refusal::NotFound), "{error:?}");
    let mut wish = request(TOY, "t");
    wish.mode = Mode::Rerank;
    let error = runner.acquire(wish).await.unwrap_err();
    assert_eq!(error.kind, Refusal::WrongMode, "{error}");
    runner.drain().await;
    let error = runner.acquire(request(TOY, "t")).await.unwrap_err();
    assert_eq!(error.kind, Refusal::Draining, "{error}");
    until("it is empty", || async { runner.ps().await.is_empty() }).await;
}

/// The toy drafts for itself, so nearly everything is accepted.
async fn draft(scene: Scene) {
    let runner = scene.runner().await;
    let settings = Settings { draft_model: Some(TOY.into()), draft_max: Some(4), ..Settings::default() };
    runner.configure(TOY, settings, Change::Merge).await.unwrap();
    let lease = turn(&runner, TOY).await;
    let answer = chat(&lease, "What is the capital of France?", 20).await;
    assert_eq!(said(&answer), "The capital of France is Paris.");
    let timing = |name: &str| answer["timings"][name].as_u64().unwrap_or(0);
    println!("{} drafted, {} accepted", timing("draft_n"), timing("draft_n_accepted"));
    assert!(timing("draft_n") > 0 && timing("draft_n_accepted") * 2 > timing("draft_n"), "{answer}");
}

async fn every_option(scene: Scene) {
    let runner = scene.runner().await;
    let all = json!({
        "batch": 256, "ubatch": 128, "threads": 1, "threads_batch": 1, "gpu_layers": 0, "main_gpu": 0,
        "split_mode": "layer", "cpu_moe_layers": 0, "cache_type_k": "q8_0", "cache_type_v": "q8_0",
        "flash_attention": "on", "kv_offload": false, "kv_unified": true, "loading": "none",
        "rope_scaling": "linear", "rope_scale": 1.0, "rope_freq_base": 10000.0, "rope_freq_scale": 1.0,
        "yarn_orig_ctx": 512, "pooling": "mean", "embeddings": true, "jinja": true, "reasoning_format": "deepseek",
        "reasoning": "off", "reasoning_budget": 0, "cache_reuse": 16, "prompt_cache_mib": 32,
        "slot_similarity": 0.3, "save_slots": true, "keep_alive": "10m", "pinned": true, "preset": "code",
        "temperature": 0.0, "top_k": 20, "top_p": 0.9, "min_p": 0.1, "repeat_penalty": 1.1,
        "presence_penalty": 0.1, "frequency_penalty": 0.1, "seed": 7, "max_tokens": 16,
    });
    let settings: Settings = serde_json::from_value(all).unwrap();
    let shown = runner.configure(TOY, settings, Change::Replace).await.unwrap();
    println!("{}", shown.argv.join(" "));
    let lease = turn(&runner, TOY).await;
    assert!(!said(&chat(&lease, "Hello", 8).await).is_empty());
    let props =
        pontoon_engines::instance::get(&lease.at.socket, "/props", Duration::from_secs(5)).await.unwrap();
    let params = &props.json().unwrap()["default_generation_settings"]["params"];
    assert_eq!((&params["top_k"], &params["seed"]), (&json!(20), &json!(7)), "{params}");
    drop(lease);
    runner.unload(Which::All).await.unwrap();
    gone(&runner).await;
}

/// The first argument of this program when it is a supervisor to be killed; the second is the folder.
pub const SUPERVISE: &str = "supervise";

/// Loads the model, says the engine's process id and waits for its end.
pub fn supervise() -> ! {
    let folder = std::env::args().nth(2).expect("a folder");
    crate::scene::block_on(async {
        let scene = Scene::at(folder.into());
        let runner = scene.runner().await;
        let _lease = turn(&runner, TOY).await;
        println!("{}", runner.ps().await[0].pid.unwrap());
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    std::process::exit(1)
}

async fn with_supervisor(scene: Scene) {
    use std::io::BufRead;
    let mut supervisor = std::process::Command::new("/proc/self/exe")
        .arg(SUPERVISE)
        .arg(&scene.folder)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let engine = std::path::Path::new("/proc").join(line.trim());
    assert!(engine.join("status").exists());
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    until("the engine has ended too", || async {
        std::fs::read_to_string(engine.join("status")).map_or(true, |status| status.contains("State:\tZ"))
    })
    .await;
    let left = || std::fs::read_dir(scene.folder.join("run")).unwrap().count();
    assert_eq!(left(), 1);
    let _runner = scene.runner().await;
    assert_eq!(left(), 0, "what it left is tidied up at the next start");
}

/// `llama-server` as if nobody knew it.
async fn custom(scene: Scene) {
    use pontoon_engines::engine::{Catalog, Custom, EngineConfig};
    let mut options = scene.options();
    let program = options.engines.locate("llama.cpp", None).unwrap().program.display().to_string();
    let words = [
        &program,
        "--model",
        "{model}",
        "--host",
        "{socket}",
        "--ctx-size",
        "{context}",
        "--alias",
        "{name}",
    ];
    let custom = Custom {
        command: words.map(str::to_owned).to_vec(),
        read: vec![program.clone().into()],
        environment: [("OMP_NUM_THREADS".to_owned(), "1".to_owned())].into(),
        health: "/health".to_owned(),
    };
    let config = EngineConfig { custom: [("mine".to_owned(), custom)].into(), ..EngineConfig::default() };
    options.engines = Catalog::open(scene.folder.join("engines"), config);
    options.defaults.engine = Some("mine".to_owned());
    let runner = pontoon_engines::Runner::start(options).await.unwrap();
    let lease = turn(&runner, TOY).await;
    assert_eq!((lease.at.engine.as_str(), lease.at.engine_model.as_str()), ("mine custom", "test/toy:chat"));
    assert_eq!(
        said(&chat(&lease, "What is the capital of France?", 20).await),
        "The capital of France is Paris."
    );
}

/// A model that only embeds is known by its metadata, and its texts fit into one batch.
fn encoder() -> Trial {
    let path = std::env::var_os("PONTOON_MINILM_GGUF").map(std::path::PathBuf::from);
    let here = path.is_some();
    let test = |scene: Scene| async move {
        scene.add(&path.expect("a path"), "test/minilm:f16");
        let mut options = scene.options();
        options.defaults.context_size = None;
        let runner = pontoon_engines::Runner::start(options).await.unwrap();
        let error = runner.acquire(request("test/minilm:f16", "t")).await.unwrap_err();
        assert_eq!(error.kind, Refusal::WrongMode, "{error}");
        let mut wish = request("test/minilm:f16", "t");
        wish.mode = Mode::Embedding;
        let lease = runner.acquire(wish).await.unwrap();
        let long = "many words about the sea ".repeat(80);
        let texts =
            ["A cat sits on the mat.", "A kitten rests on a rug.", "Stock prices fell on Monday.", &long];
        let body = json!({ "model": lease.at.engine_model, "input": texts });
        let answer = post(&lease.at.socket, "/v1/embeddings", &body, Duration::from_secs(60)).await.unwrap();
        let answer = answer.json().unwrap();
        let vector = |at: usize| -> Vec<f64> {
            let numbers = answer["data"][at]["embedding"].as_array().unwrap_or_else(|| panic!("{answer}"));
            numbers.iter().map(|number| number.as_f64().unwrap()).collect()
        };
        let product =
            |a: usize, b: usize| -> f64 { vector(a).iter().zip(vector(b)).map(|(x, y)| x * y).sum() };
        println!("cat and kitten {:.3}, cat and stocks {:.3}", product(0, 1), product(0, 2));
        assert!(product(0, 1) > 0.5 && product(0, 2) < 0.2);
    };
    llama("an_encoder_embeds", test).with_ignored_flag(!here && !crate::scene::required())
}
