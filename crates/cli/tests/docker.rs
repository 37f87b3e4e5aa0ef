//! Docker's own engine and Docker's own Compose, which ask Pontoon for models, providers and devices.

mod common;

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::Context;
use common::models::{CHAT, asset, package, variable};
use common::{Daemon, Setup};
use pontoon_testbed::{Docker, Scratch, busybox_rootfs, ready};

/// A daemon with a model, an engine with its devices and an image, and Compose with its plug-in.
struct Bench {
    docker: Docker,
    daemon: Daemon,
    scratch: Scratch,
}

impl Bench {
    /// Nothing, visibly, where the machine lacks a part.
    fn new(policies: &str) -> Option<Self> {
        let Ok(programs) = variable("PONTOON_TEST_TESTING") else {
            eprintln!("SKIPPED: PONTOON_TEST_TESTING is not set: Debian's testing was not to be had");
            return None;
        };
        let setup = Setup::gpu()?;
        match Self::open(setup, programs, policies) {
            Ok(bench) => Some(bench),
            Err(reason) => {
                ready(Err(reason));
                None
            }
        }
    }

    fn open(setup: Setup, programs: PathBuf, policies: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(rustix::process::geteuid().is_root(), "Docker's engine needs root");
        variable("PONTOON_LLAMA_SERVER")?;
        let guests = variable("PONTOON_GUEST_BIN")?;
        let scratch = Scratch::new("docker")?;
        let rootfs = busybox_rootfs(scratch.path())?;
        let digits = rootfs.join("bin/digits");
        std::fs::copy(guests.join("digits"), digits).context("the static guest program digits")?;
        std::fs::create_dir_all(scratch.path().join("bin/guest"))?;
        let program = scratch.path().join("bin/pontoon");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pontoon"), &program)?;
        let doctor = scratch.path().join("bin/guest/pontoon-doctor");
        std::fs::copy(guests.join("pontoon-doctor"), doctor).context("the static pontoon-doctor")?;
        let cdi = scratch.path().join("cdi");
        let docker = Docker::start(scratch.path(), &programs, &cdi)?;
        docker.import(&rootfs, "guest")?;
        let toml = format!("[callers]\nengines = ['{}']\n{policies}", docker.socket().display());
        let daemon = setup.models().toml(&toml).start();
        package(&daemon, &asset("toy-chat-q8_0.gguf"), CHAT);
        let bench = Self { docker, daemon, scratch };
        let mut generate = bench.pontoon(&["cdi", "generate"]);
        generate.arg("--output").arg(cdi.join("pontoon.json")).arg("--program").arg(&program);
        let written = generate.arg("--socket").arg(bench.daemon.socket()).output()?;
        anyhow::ensure!(written.status.success(), "{written:?}");
        let installed = bench.pontoon(&["compose", "install"]).output()?;
        anyhow::ensure!(installed.status.success(), "{installed:?}");
        Ok(bench)
    }

    /// What a program needs to find the daemon, its configuration and Docker's.
    fn on_this_host(&self, command: &mut Command) {
        let folder = self.daemon.folder();
        command.env("PONTOON_HOST", format!("unix:{}", self.daemon.socket().display()));
        command.env("PONTOON_DATA", folder.join("data")).env("PONTOON_CONFIG", folder.join("pontoon.toml"));
        command.env("DOCKER_CONFIG", self.docker.config());
    }

    fn pontoon(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
        command.args(words);
        self.on_this_host(&mut command);
        command
    }

    fn compose(&self, project: &str, words: &[&str]) -> Output {
        let mut command = self.docker.compose();
        command.args(["--project-directory"]).arg(self.scratch.path().join(project)).args(words);
        self.on_this_host(&mut command);
        let path = std::env::var("PATH").unwrap_or_default();
        let own = self.scratch.path().join("bin");
        command.env("PATH", format!("{}:{path}", own.display())).output().unwrap()
    }

    /// Writes a project's file, brings it up until all its services have ended, and takes it down; what it said.
    fn up(&self, project: &str, file: &str) -> (bool, String) {
        let folder = self.scratch.path().join(project);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("compose.yaml"), file).unwrap();
        let output = self.compose(project, &["up", "--no-color", "--pull", "never"]);
        let down = self.compose(project, &["down", "--timeout", "0"]);
        assert!(down.status.success(), "{down:?}");
        (output.status.success(), text(&output))
    }
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// The lines of one service.
fn of(service: &str, said: &str) -> String {
    let lines = said.lines().filter(|line| line.starts_with(service));
    lines.map(|line| format!("{line}\n")).collect()
}

/// A shell's question to the model `$$M` at `$$A`.
const ASK: &str = r#"wget -q -O - --header "Content-Type: application/json" --post-data "{\"model\":\"$$M\",\"temperature\":0,\"max_tokens\":30,\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of France?\"}]}" $$A/chat/completions"#;

const PARIS: &str = "The capital of France is Paris.";

#[test]
fn models_at_the_top_of_a_file_reach_its_services() {
    let Some(bench) = Bench::new("") else { return };
    // Without the tag, as people write it: nothing may be fetched, since there is no registry.
    let file = format!(
        r#"
services:
  short:
    image: guest
    network_mode: none
    devices: ["pontoon.dev/gpu=all"]
    models: [words]
    command: ["/bin/sh", "-c", 'echo $$WORDS_MODEL $$WORDS_URL; M=$$WORDS_MODEL; A=$$WORDS_URL; {ASK}']
  long:
    image: guest
    devices: ["pontoon.dev/gpu=all"]
    models: {{ words: {{ endpoint_var: AI_URL, model_var: AI_NAME }} }}
    command: ["/bin/sh", "-c", 'M=$$AI_NAME; A=$$AI_URL; {ASK}']
models:
  words: {{ model: demo/toy-chat, context_size: 512, runtime_flags: ["--threads", "1"] }}
"#
    );
    let (well, said) = bench.up("models", &file);
    assert!(well, "{said}");
    assert!(of("short-1", &said).contains("demo/toy-chat http://127.0.0.1:12434/engines/v1/"), "{said}");
    assert!(of("short-1", &said).contains(PARIS) && of("long-1", &said).contains(PARIS), "{said}");
    let shown = bench.pontoon(&["model", "show", "demo/toy-chat", "--json"]).output().unwrap();
    assert!(text(&shown).contains("512"), "the model is configured: {shown:?}");
    let (well, said) = bench.up("missing", &file.replace("demo/toy-chat", "localhost:1/demo/none"));
    assert!(!well && of("short-1", &said).is_empty(), "{said}");
}

#[test]
fn a_provider_is_asked_by_compose_itself() {
    let Some(bench) = Bench::new("") else { return };
    let file = |options: &str| {
        format!(
            r#"
services:
  llm:
    provider: {{ type: pontoon, options: {{ {options} }} }}
  app:
    image: guest
    depends_on: [llm]
    devices: ["pontoon.dev/gpu=all"]
    command: ["/bin/sh", "-c", 'env; M=$$LLM_MODEL; A=$$LLM_URL; {ASK}']
"#
        )
    };
    let (well, said) = bench.up("provider", &file("model: demo/toy-chat, context-size: 400"));
    assert!(well, "{said}");
    for line in [
        "LLM_MODEL=demo/toy-chat",
        "LLM_URL=http://127.0.0.1:12434/v1",
        "LLM_PONTOON_HOST=unix:/run/pontoon/pontoon.sock",
        "LLM_DEVICE=pontoon.dev/gpu=all",
        PARIS,
    ] {
        assert!(of("app-1", &said).contains(line), "{line} is missing: {said}");
    }
    let shown = bench.pontoon(&["model", "show", "demo/toy-chat", "--json"]).output().unwrap();
    assert!(text(&shown).contains("400"), "the model is configured: {shown:?}");
    for (options, words) in [
        ("model: demo/none, pull: never", "demo/none"),
        ("model: demo/toy-chat, mode: rerank", "cannot serve"),
        ("model: demo/toy-chat, device: batch", "there is no device 'batch'"),
        ("model: demo/toy-chat, colour: red", "there is no option 'colour'"),
    ] {
        let (well, said) = bench.up("failing", &file(options));
        assert!(!well && said.contains(words), "{options}: {said}");
        assert!(of("app-1", &said).is_empty(), "no service is started: {said}");
    }
}

const POLICIES: &str = "
[[policies]]
name = 'trainers'
match = { project = 'shop', service = 'trainer' }
tenant = 'training'
models = false
[[policies]]
name = 'talkers'
match = { project = 'shop', service = 'talker' }
tenant = 'talking'
bridge = false
";

#[test]
fn two_services_share_a_model_and_a_gpu_under_two_policies() {
    let Some(bench) = Bench::new(POLICIES) else { return };
    let file = r#"
services:
  llm:
    provider: { type: pontoon, options: { model: demo/toy-chat } }
  trainer:
    image: guest
    depends_on: [llm]
    devices: ["pontoon.dev/gpu=all"]
    command: ["/bin/sh", "-c", "/bin/digits --json && wget -q -O - $$LLM_URL/models; echo models: $$?"]
  talker:
    image: guest
    depends_on: [llm]
    devices: ["pontoon.dev/gpu=all"]
    command: ["/bin/sh", "-c", "/bin/digits --json; echo digits: $$?; wget -q -O - $$LLM_URL/models"]
"#;
    let (well, said) = bench.up("shop", file);
    assert!(well, "{said}");
    let (trainer, talker) = (of("trainer-1", &said), of("talker-1", &said));
    assert!(trainer.contains("via Pontoon") && trainer.contains("models: 1"), "{said}");
    assert!(talker.contains("'talkers' does not give") && talker.contains("demo/toy-chat"), "{said}");
    let log = bench.daemon.log();
    let known = "service trainer of project shop) over unix+arena, tenant training";
    assert!(log.contains(known), "{log}");
    let metrics = Command::new("curl")
        .args(["-s", &format!("{}/metrics", bench.daemon.models_url())])
        .output()
        .unwrap();
    let counted = r#"pontoon_bridge_sessions_total{tenant="training",policy="trainers"} 1"#;
    assert!(text(&metrics).contains(counted), "{metrics:?}");
    assert!(text(&metrics).ends_with("# EOF\n"), "{metrics:?}");
    // The same words before anything is started; Compose's own form of the file included.
    let whole = bench.compose("shop", &["config"]);
    let folder = bench.scratch.path().join("shop");
    let mut check = bench.pontoon(&["compose", "check", "-"]);
    std::fs::write(folder.join("whole.yaml"), &whole.stdout).unwrap();
    check.stdin(std::fs::File::open(folder.join("whole.yaml")).unwrap());
    let checked = text(&check.output().unwrap());
    assert!(
        checked.contains("gets    the GPU, by pontoon.dev/gpu=all, under the policy 'trainers'"),
        "{checked}"
    );
}

#[test]
fn services_in_one_network_inherit_its_port() {
    let Some(bench) = Bench::new("") else { return };
    let file = r#"
services:
  first:
    image: guest
    network_mode: none
    devices: ["pontoon.dev/gpu=all"]
    command: ["/bin/nc", "-l", "-p", "9999"]
  second:
    image: guest
    network_mode: "service:first"
    depends_on: [first]
    devices: ["pontoon.dev/gpu=all"]
    command: ["/bin/sh", "-c", "ask() { wget -q -O - $$OPENAI_BASE_URL/models > /dev/null 2>&1; }; ask && echo together; until nc 127.0.0.1 9999 < /dev/null; do sleep 0.1; done; sleep 1; for i in $$(seq 100); do ask && echo alone && break; sleep 0.1; done"]
"#;
    let (well, said) = bench.up("pod", file);
    assert!(well && said.contains("together") && said.contains("alone"), "{said}{}", bench.daemon.log());
    let opened = bench.daemon.log().matches("models are in the network of container").count();
    assert_eq!(opened, 2, "one after the other: {}", bench.daemon.log());
}
