//! CDI devices with a real podman: one option gives a container without a network the GPU and the models; a policy's
//! device gives what the policy gives, and to nobody else.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::Context;
use common::models::{CHAT, asset, package, variable};
use common::{Daemon, Setup, wait_until};
use pontoon_testbed::{Podman, Scratch, Service, busybox_rootfs, ready};
use serde_json::Value;

const ALL: &str = "pontoon.dev/gpu=all";

/// A daemon with a model, podman with its devices, and a root file system with a static guest program.
struct Bench {
    podman: Podman,
    rootfs: PathBuf,
    daemon: Daemon,
    _service: Service,
    scratch: Scratch,
}

impl Bench {
    /// Nothing, visibly, where the machine lacks a part.
    fn new(policies: &str) -> Option<Self> {
        let setup = Setup::gpu()?;
        match Self::open(setup, policies) {
            Ok(bench) => Some(bench),
            Err(reason) => {
                ready(Err(reason));
                None
            }
        }
    }

    fn open(setup: Setup, policies: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(
            rustix::process::geteuid().is_root(),
            "podman 4 looks for CDI in /etc only, which needs root"
        );
        variable("PONTOON_LLAMA_SERVER")?;
        let guests = variable("PONTOON_GUEST_BIN")?;
        let scratch = Scratch::new("cdi")?;
        let rootfs = busybox_rootfs(scratch.path())?;
        std::fs::copy(guests.join("digits"), rootfs.join("bin/digits"))
            .context("the static guest program digits")?;
        // As it is installed: the program, and a folder of programs for guests beside it.
        let tools = scratch.path().join("bin/guest");
        std::fs::create_dir_all(&tools)?;
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pontoon"), scratch.path().join("bin/pontoon"))?;
        std::fs::copy(guests.join("pontoon-doctor"), tools.join("pontoon-doctor"))
            .context("the static pontoon-doctor")?;
        let cdi = scratch.path().join("cdi");
        let podman = Podman::new(scratch.path())?.with_cdi(&cdi)?;
        podman.available(&rootfs)?;
        let api = scratch.path().join("podman.sock");
        let service = podman.service(&api)?;
        let toml = format!("[callers]\nengines = ['{}']\n{policies}", api.display());
        let daemon = setup.models().toml(&toml).start();
        package(&daemon, &asset("toy-chat-q8_0.gguf"), CHAT);
        let bench = Self { podman, rootfs, daemon, _service: service, scratch };
        let written = bench.cdi(&["generate"]);
        anyhow::ensure!(written.status.success(), "{written:?}");
        Ok(bench)
    }

    fn specification(&self) -> PathBuf {
        self.scratch.path().join("cdi/pontoon.json")
    }

    fn cdi(&self, verb: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
        command.arg("cdi").args(verb).arg("--output").arg(self.specification());
        command.arg("--config").arg(self.daemon.folder().join("pontoon.toml"));
        command.arg("--socket").arg(self.daemon.socket());
        command.arg("--program").arg(self.scratch.path().join("bin/pontoon")).output().unwrap()
    }

    fn podman(&self, options: &[&str], command: &[&str]) -> Command {
        let mut overlay = self.rootfs.as_os_str().to_owned();
        overlay.push(":O");
        let mut podman = self.podman.command();
        podman.args(["run", "--rm"]).args(options).arg("--rootfs").arg(overlay).args(command);
        podman
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Output {
        self.podman(options, command).output().unwrap()
    }
}

#[track_caller]
fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn refused(output: &Output, words: &str) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(!output.status.success() && text.contains(words), "{text}");
}

const ASK: &str = r#"wget -q -O - --header 'Content-Type: application/json' --header "Authorization: Bearer $OPENAI_API_KEY" \
    --post-data '{"model":"demo/toy-chat","temperature":0,"max_tokens":30,"messages":[{"role":"user","content":"What is the capital of France?"}]}' \
    $OPENAI_BASE_URL/chat/completions"#;

/// Containers in whose networks the daemon listens: a thread waits for the end of each.
fn listening(daemon: &Daemon) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten();
    let name =
        |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
    threads.map(name).filter(|name| name.trim() == "container").count()
}

#[test]
fn one_option_gives_a_container_the_gpu_and_the_models() {
    let Some(bench) = Bench::new("") else { return };
    for network in ["none", "bridge"] {
        let options = ["--network", network, "--device", ALL];
        let digits = ok(&bench.run(&options, &["/bin/digits", "--json"]));
        assert!(digits.contains("via Pontoon"), "{digits}");
        let answer = ok(&bench.run(&options, &["/bin/sh", "-c", ASK]));
        assert!(answer.contains("Paris"), "over {network}: {answer}");
        let env = ok(&bench.run(&options, &["/bin/sh", "-c", "env; ls -l /dev"]));
        for set in [
            "ANTHROPIC_BASE_URL=http://127.0.0.1:12434",
            "OLLAMA_HOST=http://127.0.0.1:12434",
            "OPENAI_API_KEY=",
        ] {
            assert!(env.contains(set), "{set} is missing in {env}");
        }
        assert!(!env.contains("dri") && !env.contains("nvidia"), "{env}");
    }
    // Management is not for guests, whichever way they come.
    let manage = "wget -q -O - --post-data '{\"from\":\"ai/x\"}' http://127.0.0.1:12434/models/create";
    refused(&bench.run(&["--network", "none", "--device", ALL], &["/bin/sh", "-c", manage]), "403");
    // Requests are the container's, under the name that its engine gave it.
    let options = ["--network", "none", "--device", ALL, "--name", "asker"];
    ok(&bench.run(&options, &["/bin/sh", "-c", ASK]));
    let requests = common::models::ok(&bench.daemon, &["model", "requests", "--json"]);
    assert!(requests.contains("container:"), "{requests}");
    // A container on the host's network has the host's port, or none, and starts all the same.
    ok(&bench.run(&["--network", "host", "--device", ALL], &["/bin/true"]));
    wait_until("listeners go with their containers", Duration::from_secs(10), || {
        listening(&bench.daemon) == 0
    });
}

#[test]
fn the_doctor_in_a_container_says_what_works_and_what_is_missing() {
    let Some(bench) = Bench::new(POLICIES) else { return };
    let doctor = "/opt/pontoon/pontoon-doctor";
    let text = ok(&bench.run(&["--network", "none", "--device", ALL], &[doctor]));
    for line in [
        "PONTOON_HOST says unix:/run/pontoon/pontoon.sock",
        "numbers came back doubled",
        "MiB/s",
        "offers 1: ",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    let json = ok(&bench.run(&["--network", "none", "--device", ALL], &[doctor, "--json"]));
    let findings: Value = serde_json::from_str(&json).unwrap();
    let value = |part: &str| {
        findings
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["part"] == part)
            .and_then(|one| one["value"].as_f64())
    };
    assert!(value("round trip").is_some_and(|micros| micros < 20_000.0), "{json}");
    assert!(value("upload").is_some_and(|rate| rate > 1.0), "{json}");
    // What each device does not give is named.
    let jobs = ["--network", "none", "--device", "pontoon.dev/gpu=jobs", "--name", "job-5"];
    refused(&bench.run(&jobs, &[doctor]), "policies.models");
    let words = ["--network", "none", "--device", "pontoon.dev/gpu=words"];
    refused(&bench.run(&words, &[doctor]), "policies.bridge");
    let tools = bench.scratch.path().join("bin/guest");
    let mounted = format!("{}:/opt/pontoon:ro", tools.display());
    let nothing = bench.run(&["--network", "none", "--volume", &mounted], &[doctor]);
    refused(&nothing, "PONTOON_HOST is not set, and nobody answers");
    refused(&nothing, "host.containers.internal:7300");
    refused(&nothing, "no model runner answers");
}

#[test]
fn a_device_costs_little_time() {
    let Some(bench) = Bench::new("") else { return };
    let start = |options: &[&str]| {
        let begun = Instant::now();
        ok(&bench.run(options, &["/bin/true"]));
        begun.elapsed()
    };
    let mut added: Vec<f64> = (0..9)
        .map(|_| {
            let without = start(&["--network", "none"]).as_secs_f64();
            start(&["--network", "none", "--device", ALL]).as_secs_f64() - without
        })
        .collect();
    added.sort_by(f64::total_cmp);
    let median = added[added.len() / 2] * 1e3;
    eprintln!("a CDI device adds {median:.1} ms to a container's start (median of {})", added.len());
    // The aim is 50 ms; a debug build on a busy machine gets more.
    assert!(median < 250.0, "{median} ms");
}

const POLICIES: &str = "
[[policies]]
name = 'jobs'
device = true
match = { container = 'job-*' }
tenant = 'farm'
models = false
limits = { sessions_per_tenant = 1 }

[[policies]]
name = 'words'
device = true
bridge = false
allowed_models = ['other/*']

[[policies]]
name = 'outcasts'
match = { container = 'outcast*' }
bridge = false
models = false
";

#[test]
fn a_policys_device_gives_what_the_policy_gives() {
    let Some(bench) = Bench::new(POLICIES) else { return };
    let gpu = ["/bin/digits", "--json"];
    let on =
        |device: &'static str, name: &'static str| ["--network", "none", "--device", device, "--name", name];
    let jobs = "pontoon.dev/gpu=jobs";
    ok(&bench.run(&on(jobs, "job-1"), &gpu));
    let env = ok(&bench.run(&on(jobs, "job-2"), &["/bin/env"]));
    assert!(env.contains("PONTOON_HOST=") && !env.contains("OPENAI_BASE_URL"), "{env}");
    refused(&bench.run(&on(jobs, "thief"), &gpu), "not among the callers of its policy");
    // The device's socket, mounted by hand into another container.
    let folder = bench.daemon.folder().join("g-devices/jobs");
    let stolen = format!("{}:/run/pontoon:ro", folder.display());
    let options =
        ["--network", "none", "--volume", &stolen, "--env", "PONTOON_HOST=unix:/run/pontoon/pontoon.sock"];
    refused(&bench.run(&options, &gpu), "not among the callers of its policy");

    let words = "pontoon.dev/gpu=words";
    let host = "export PONTOON_HOST=unix:/run/pontoon/pontoon.sock; ";
    refused(
        &bench.run(&on(words, "w1"), &["/bin/sh", "-c", &format!("{host}/bin/digits --json")]),
        "'words' does not give",
    );
    refused(&bench.run(&on(words, "w2"), &["/bin/sh", "-c", ASK]), "403");
    let models = ok(&bench.run(&on(words, "w3"), &["/bin/sh", "-c", "wget -q -O - $OPENAI_BASE_URL/models"]));
    assert!(!models.contains("toy-chat"), "models that the policy does not give are not listed: {models}");

    refused(&bench.run(&on(ALL, "outcast"), &gpu), "'outcasts' does not give");
    refused(&bench.run(&on(ALL, "outcast"), &["/bin/sh", "-c", ASK]), "403");
    ok(&bench.run(&on(ALL, "citizen"), &gpu));
}

#[test]
fn ps_names_container_image_and_policy() {
    let Some(bench) = Bench::new(POLICIES) else { return };
    let options = [
        "--network",
        "none",
        "--device",
        "pontoon.dev/gpu=jobs",
        "--name",
        "job-9",
        "--label",
        "com.docker.compose.project=ml",
        "--label",
        "com.docker.compose.service=trainer",
    ];
    let mut running = bench.podman(&options, &["/bin/digits", "--epochs", "1000"]).spawn().unwrap();
    let mut seen = Value::Null;
    wait_until("the session is listed", Duration::from_secs(30), || {
        let output = bench.daemon.pontoon(&["ps", "--json"]);
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        seen = rows[0].clone();
        seen.is_object()
    });
    let _ = bench.podman.command().args(["kill", "job-9"]).output();
    let _ = running.wait();
    assert_eq!((&seen["tenant"], &seen["policy"]), (&"farm".into(), &"jobs".into()), "{seen}");
    let container = &seen["container"];
    assert_eq!(
        (&container["name"], &container["service"], &container["project"]),
        (&"job-9".into(), &"trainer".into(), &"ml".into()),
        "{seen}"
    );
    assert!(seen["who"].as_str().unwrap().contains("service trainer of project ml"), "{seen}");
}

#[test]
fn the_specification_follows_the_configuration() {
    let Some(bench) = Bench::new("") else { return };
    let devices = || {
        let spec: Value =
            serde_json::from_str(&std::fs::read_to_string(bench.specification()).unwrap()).unwrap();
        spec["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(devices(), ["all"]);
    assert!(ok(&bench.cdi(&["refresh"])).contains("unchanged"));
    let toml = bench.daemon.folder().join("pontoon.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, format!("{text}\n[[policies]]\nname = 'batch'\ndevice = true\n")).unwrap();
    assert!(ok(&bench.cdi(&["refresh"])).contains("replaced"));
    assert_eq!(devices(), ["all", "batch"]);
    let ours = std::fs::read(bench.specification()).unwrap();
    std::fs::write(
        bench.specification(),
        r#"{"cdiVersion":"0.5.0","kind":"example.com/other","devices":[]}"#,
    )
    .unwrap();
    refused(&bench.cdi(&["generate"]), "no specification of Pontoon's");
    std::fs::write(bench.specification(), ours).unwrap();
    std::fs::remove_file(bench.specification()).unwrap();
    refused(&bench.cdi(&["refresh"]), "pontoon cdi generate");
}

#[test]
fn without_a_daemon_the_container_is_told_so() {
    let Some(mut bench) = Bench::new("") else { return };
    bench.daemon.kill();
    refused(
        &bench.run(&["--network", "none", "--device", ALL], &["/bin/true"]),
        "start one with `pontoon serve`",
    );
}

#[test]
fn paths_that_containers_must_not_see_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_pontoon"))
        .args(["cdi", "generate", "--output", "-", "--socket", "/tmp/pontoon.sock"])
        .output()
        .unwrap();
    // Whichever is noticed first: what the folder is, or what lies in it.
    refused(&output, "listen.socket");
    refused(&output, "folder");
    assert!(!Path::new("/tmp/pontoon.json").exists());
}

const PROJECT: &str = r#"
services:
  trainer:
    image: localhost/guest
    devices: ["pontoon.dev/gpu=all"]
    command: ["/bin/sh", "-c", "/bin/digits --json && wget -q -O - $$OPENAI_BASE_URL/models; echo models: $$?"]
  talker:
    image: localhost/guest
    devices: ["pontoon.dev/gpu=all"]
    command: ["/bin/sh", "-c", "/bin/digits --json; echo digits: $$?; wget -q -O - $$OPENAI_BASE_URL/models"]
"#;

const SERVICES: &str = "
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
fn services_of_one_project_have_policies_of_their_own() {
    let Some(bench) = Bench::new(SERVICES) else { return };
    let compose = bench.podman.compose();
    if !ready(compose.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error:#}"))) {
        return;
    }
    bench.podman.import(&bench.rootfs, "localhost/guest").unwrap();
    let folder = bench.scratch.path().join("shop");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("docker-compose.yml"), PROJECT).unwrap();
    let mut compose = compose.unwrap();
    let output =
        compose.args(["--project-name", "shop", "up", "--no-color"]).current_dir(&folder).output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    // The trainer computes and has no models; the talker has models and does not compute.
    assert!(said.contains("via Pontoon") && said.contains("models: 1"), "{said}");
    assert!(
        said.contains("'talkers' does not give") && said.contains("digits: 1") && said.contains("toy-chat"),
        "{said}"
    );
    let log = bench.daemon.log();
    assert!(log.contains("tenant training") && log.contains("service trainer of project shop"), "{log}");
}

#[test]
fn a_daemon_that_starts_again_finds_its_containers() {
    let Some(mut bench) = Bench::new("") else { return };
    let script = "while true; do wget -q -O /dev/null $OPENAI_BASE_URL/models 2> /dev/null && echo yes || echo no; sleep 0.1; done";
    let mut podman = bench.podman(&["--network", "none", "--device", ALL], &["/bin/sh", "-c", script]);
    let mut container = podman.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let said = std::io::BufReader::new(container.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(said).map(Result::unwrap);
    assert!(lines.by_ref().take(50).any(|line| line == "yes"), "the container has models");
    bench.daemon.kill();
    assert!(lines.by_ref().take(50).any(|line| line == "no"), "without a daemon it has none");
    bench.daemon.restart();
    assert!(lines.by_ref().take(100).any(|line| line == "yes"), "and has them again: {}", bench.daemon.log());
    let id = bench.podman.command().args(["ps", "--quiet", "--no-trunc"]).output().unwrap();
    let id = String::from_utf8(id.stdout).unwrap();
    let stopped = bench.podman.command().args(["kill", id.trim()]).output().unwrap();
    assert!(stopped.status.success(), "{stopped:?}");
    container.wait().unwrap();
}

/// A token is for those whom nothing else makes known: a container that has got hold of another's is itself all the same.
#[test]
fn a_container_that_presents_anothers_token_is_itself() {
    let token = "the token of somebody else";
    let toml = format!(
        "[[listen.tokens]]\ntenant = 'acme'\ntoken = '{token}'\n\
         [[policies]]\nname = 'acme'\nmatch = {{ token = 'acme' }}\ntenant = 'acme'\n"
    );
    let Some(bench) = Bench::new(&toml) else { return };
    let presented = format!("PONTOON_TOKEN={token}");
    let options = ["--network", "none", "--device", ALL, "--env", &presented];
    ok(&bench.run(&options, &["/bin/digits", "--json"]));
    let log = bench.daemon.log();
    assert!(log.contains("tenant container:") && !log.contains("acme"), "{log}");
}
