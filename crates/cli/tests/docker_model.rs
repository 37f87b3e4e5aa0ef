//! Docker's own plug-in `docker-model`, unmodified, with `MODEL_RUNNER_HOST` at the model runner. No package registry
//! carries it, so who has it names it: `PONTOON_TEST_DOCKER_MODEL=…/docker-model cargo test --test docker_model -- --ignored`.

mod common;

use std::process::{Command, Output};

use common::Daemon;
use common::models::{asset, ok, start, variable};
use serde_json::Value;

const MODEL: &str = "demo/stock";

/// The plug-in, which is a program of its own too.
struct Stock<'a>(&'a Daemon);

impl Stock<'_> {
    /// Whether it went well, and all that it said: it writes answers to either output.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let program = variable("PONTOON_TEST_DOCKER_MODEL").unwrap();
        let mut command = Command::new(program);
        // A home of its own: the plug-in's settings, and Docker's, are not those of whoever runs the test.
        command.env("HOME", self.0.folder()).env("DOCKER_CONFIG", self.0.folder().join("docker"));
        command.env("MODEL_RUNNER_HOST", self.0.models_url());
        let Output { status, stdout, stderr } = command.args(arguments).output().unwrap();
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        said
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }
}

#[test]
#[ignore = "needs Docker's plug-in: PONTOON_TEST_DOCKER_MODEL"]
fn the_stock_command_line_from_package_to_purge() {
    let daemon = start("").expect("llama-server: PONTOON_LLAMA_SERVER");
    let stock = Stock(&daemon);
    let status = stock.ok(&["status"]);
    assert!(status.contains("running"), "{status}");
    assert!(stock.ok(&["version"]).to_lowercase().contains("version"));
    stock.ok(&["package", "--gguf", asset("toy-chat-q8_0.gguf").to_str().unwrap(), MODEL]);
    assert!(stock.ok(&["list"]).contains("stock"));
    let listed = stock.json(&["list", "--json"]);
    let tags = |model: &Value| model["tags"].to_string();
    assert!(listed.as_array().unwrap().iter().any(|model| tags(model).contains(MODEL)), "{listed}");
    let theirs = stock.json(&["inspect", MODEL]);
    let ours: Value = serde_json::from_str(&ok(&daemon, &["model", "inspect", MODEL])).unwrap();
    assert_eq!(theirs["config"]["architecture"], ours["config"]["architecture"], "{theirs}");

    let said = stock.ok(&["run", MODEL, "What is the capital of France?"]);
    assert!(said.contains("Paris"), "{said}");
    assert!(stock.ok(&["ps"]).contains("stock"));
    assert!(stock.ok(&["requests", "--model", MODEL]).contains("chat/completions"));
    assert!(!stock.ok(&["logs"]).is_empty());
    stock.ok(&["unload", MODEL]);
    assert!(!stock.ok(&["ps"]).contains("stock"));

    stock.ok(&["configure", "--context-size", "256", MODEL]);
    let shown = ok(&daemon, &["model", "show", "--json", MODEL]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["settings"]["context_size"]["value"], 256, "{shown}");

    stock.ok(&["tag", MODEL, "demo/other:1"]);
    stock.ok(&["rm", "demo/other:1"]);
    assert!(stock.fails(&["inspect", "demo/none"]).contains("demo/none"));
    // A port where nobody listens, asked for longer than an answer waits to begin.
    let refused = stock.fails(&["pull", "127.0.0.1:9/demo/none"]);
    assert!(refused.contains("no answer from 127.0.0.1:9"), "{refused}");
    stock.ok(&["df"]);
    stock.ok(&["purge", "--force"]);
    assert_eq!(stock.json(&["list", "--json"]), Value::Array(Vec::new()));
}
