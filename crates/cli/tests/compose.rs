//! What `docker compose` asks of Pontoon, in its own words: as a provider, and as the plug-in `docker-model`; and
//! `pontoon compose check`. Compose's part is played by the lines that it sends; with Compose itself, see `docker.rs`.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::Daemon;
use common::models::{CHAT, start};
use pontoon_testbed::Scratch;
use serde_json::Value;

/// The JSON lines of an answer, as `type message`.
fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        format!("{} {}", value["type"].as_str().unwrap(), value["message"].as_str().unwrap())
    };
    text.lines().map(line).collect()
}

fn up(daemon: &Daemon, options: &[&str]) -> Output {
    let config = daemon.folder().join("pontoon.toml");
    let head = ["compose", "--config", config.to_str().unwrap(), "--project-name=shop", "up"];
    daemon.pontoon(&[&head[..], options, &["llm"]].concat())
}

#[track_caller]
fn fails(output: &Output, words: &str) {
    let lines = lines(output);
    let last = lines.last().cloned().unwrap_or_default();
    assert!(!output.status.success() && last.starts_with("error ") && last.contains(words), "{lines:?}");
}

#[test]
fn a_provider_waits_for_the_model_and_tells_its_dependants() {
    let policies = "[[policies]]\nname = 'mute'\ndevice = true\nmodels = false\n";
    let Some(daemon) = start(policies) else { return };
    let model = format!("--model={CHAT}");
    for round in 0..2 {
        let output = up(&daemon, &[&model, "--context-size=512"]);
        let lines = lines(&output);
        assert!(output.status.success(), "{lines:?}");
        for set in [
            "setenv MODEL=demo/toy-chat:latest",
            "setenv URL=http://127.0.0.1:12434/v1",
            "setenv PONTOON_HOST=unix:/run/pontoon/pontoon.sock",
            "setenv DEVICE=pontoon.dev/gpu=all",
        ] {
            assert!(lines.iter().any(|line| line == set), "round {round}: {set} is missing in {lines:?}");
        }
        let loaded: Value =
            serde_json::from_slice(&daemon.pontoon(&["model", "ps", "--json"]).stdout).unwrap();
        assert!(loaded.to_string().contains(CHAT), "it is loaded when `up` ends: {loaded}");
    }
    fails(&up(&daemon, &["--model=demo/none", "--pull=never"]), "demo/none");
    fails(&up(&daemon, &["--model=localhost:1/demo/none"]), "cannot be fetched");
    fails(&up(&daemon, &[&model, "--mode=rerank"]), "cannot serve");
    fails(
        &up(&daemon, &[&model, "--device=gone"]),
        "no device 'gone'; the host's configuration has all, mute",
    );
    fails(&up(&daemon, &[&model, "--device=mute"]), "gives no models");
    fails(&up(&daemon, &["--speed=high"]), "no option 'speed'");
    let down = daemon.pontoon(&["compose", "--project-name=shop", "down", "llm"]);
    assert!(down.status.success() && lines(&down)[0].starts_with("info "), "{down:?}");
    let metadata = daemon.pontoon(&["compose", "metadata"]);
    assert_eq!(metadata.stdout, b"{}\n", "Compose passes every option on only where it is told of none");
}

#[test]
fn without_a_daemon_up_fails_with_the_reason() {
    let Some(mut daemon) = start("") else { return };
    daemon.kill();
    fails(&up(&daemon, &[&format!("--model={CHAT}")]), "start one with `pontoon serve`");
}

/// The plug-in, as it is installed.
struct Plugin {
    folder: PathBuf,
    host: String,
    data: PathBuf,
}

impl Plugin {
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.folder.join("cli-plugins/docker-model"));
        command.args(words).env("PONTOON_HOST", &self.host).env("PONTOON_DATA", &self.data).output().unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = self.run(words);
        // Compose merges standard error in.
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn the_plugin_answers_what_compose_asks_for_models() {
    let Some(daemon) = start("") else { return };
    let folder = daemon.folder().join("docker");
    let installed = installing(&folder, &["install"]);
    assert!(installed.status.success(), "{installed:?}");
    let host = format!("unix:{}", daemon.socket().display());
    let plugin = Plugin { folder, host, data: daemon.folder().join("data") };
    let metadata = plugin.json(&["docker-cli-plugin-metadata"]);
    assert_eq!((&metadata["SchemaVersion"], &metadata["Vendor"]), (&"0.1.0".into(), &"Pontoon".into()));
    let version = metadata["Version"].as_str().unwrap();
    assert!(version >= "v1.0.6", "Compose configures from 1.0.6 on: {version}");
    let models = plugin.json(&["ls", "--json"]);
    assert_eq!(models[0]["tags"][0], CHAT);
    assert!(
        models[0]["id"].as_str().unwrap().starts_with("sha256:") && models[0]["created"].is_u64(),
        "{models}"
    );
    assert_eq!(models, plugin.json(&["model", "ls", "--json"]), "Docker's CLI repeats the plug-in's name");
    let status = plugin.json(&["status", "--json"]);
    assert_eq!(
        (&status["endpoint"], &status["running"]),
        (&"http://127.0.0.1:12434/engines/v1/".into(), &true.into())
    );
    let configured = plugin.run(&["configure", "--context-size", "512", CHAT, "--", "--threads", "1"]);
    assert!(configured.status.success(), "{configured:?}");
    let shown = daemon.pontoon(&["model", "show", CHAT, "--json"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("512"), "{shown}");
    let unsafe_flag = plugin.run(&["configure", CHAT, "--", "--model", "/etc/passwd"]);
    assert!(!unsafe_flag.status.success(), "{unsafe_flag:?}");
    let missing = plugin.run(&["inspect", "demo/none"]);
    assert!(
        !missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("demo/none"),
        "{missing:?}"
    );
}

fn installing(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
    command.arg("compose").args(words).env("DOCKER_CONFIG", folder).output().unwrap()
}

#[test]
fn installing_takes_nothing_that_it_does_not_give_back() {
    let scratch = Scratch::new("plugin").unwrap();
    let plugin = scratch.path().join("cli-plugins/docker-model");
    std::fs::create_dir_all(plugin.parent().unwrap()).unwrap();
    std::fs::write(&plugin, "another program").unwrap();
    let refused = installing(scratch.path(), &["install"]);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--force"),
        "{refused:?}"
    );
    let untouched = installing(scratch.path(), &["uninstall"]);
    assert!(!untouched.status.success(), "another's plug-in is not removed: {untouched:?}");
    assert!(installing(scratch.path(), &["install", "--force"]).status.success());
    assert!(plugin.symlink_metadata().unwrap().is_symlink());
    assert!(installing(scratch.path(), &["install"]).status.success(), "once more changes nothing");
    assert!(installing(scratch.path(), &["uninstall"]).status.success());
    assert_eq!(std::fs::read_to_string(&plugin).unwrap(), "another program");
}

#[test]
fn check_says_what_each_service_gets() {
    let scratch = Scratch::new("check").unwrap();
    let file = scratch.path().join("compose.yaml");
    let text = "services:\n  llm:\n    provider:\n      type: pontoon\n      options:\n        model: ai/smollm2\n  app:\n    \
        image: x\n    depends_on: [llm]\n    devices: [pontoon.dev/gpu=all]\n";
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
        command.args(["compose", "check"]).arg(&file).output().unwrap()
    };
    let good = check(text);
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(
        good.status.success() && said.contains("LLM_URL") && said.contains("the GPU and the model runner"),
        "{said}"
    );
    let bad = check(&text.replace("    devices: [pontoon.dev/gpu=all]\n", ""));
    let said = String::from_utf8_lossy(&bad.stdout).into_owned();
    assert!(bad.status.code() == Some(1) && said.contains("MISSES  a way to the model runner"), "{said}");
    let broken = check("services: [");
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(!broken.status.success() && said.contains("compose.yaml"), "{said}");
}
