//! The provider's side of Compose: words on the command line in, JSON lines on standard output out
//! (<https://github.com/docker/compose/blob/main/docs/extension.md>).

use std::process::ExitCode;

use hyper::Method;
use pontoon_daemon::{Config, cdi};
use pontoon_wiring::{KIND, MODELS_PORT};
use serde_json::json;

use crate::config::{ConfigFile, block_on};
use crate::model::http::Daemon;

/// The options of a service, as Compose passes them: `--key=value`, then the service's name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    service: String,
    model: Option<String>,
    mode: Option<Mode>,
    context_size: Option<u32>,
    device: Option<String>,
    pull: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Chat,
    Embedding,
    Rerank,
}

/// What the options are, for who misspells one.
const OPTIONS: [&str; 5] = ["model", "mode", "context_size", "device", "pull"];

fn say(kind: &str, message: impl std::fmt::Display) {
    println!("{}", json!({ "type": kind, "message": message.to_string() }));
}

pub fn parse(words: &[String]) -> Result<Options, String> {
    let (mut options, mut seen) = (Options { pull: true, ..Options::default() }, Vec::new());
    for word in words {
        let Some(option) = word.strip_prefix("--") else {
            if !options.service.is_empty() {
                return Err(format!("two services are named: '{}' and '{word}'", options.service));
            }
            options.service.clone_from(word);
            continue;
        };
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("the option '{name}' has no value", name = option))?;
        let name = name.replace('-', "_");
        if seen.contains(&name) {
            return Err(format!("{name} is said twice"));
        }
        seen.push(name.clone());
        match name.as_str() {
            "model" if value.is_empty() => return Err("model is empty".into()),
            "model" => options.model = Some(value.to_owned()),
            "mode" => {
                options.mode = Some(match value {
                    "chat" | "completion" => Mode::Chat,
                    "embedding" | "embeddings" => Mode::Embedding,
                    "rerank" | "reranking" => Mode::Rerank,
                    other => return Err(format!("mode is '{other}'; it must be chat, embedding or rerank")),
                });
            }
            "context_size" => {
                let tokens = value.parse().ok().filter(|tokens| *tokens > 0);
                options.context_size = Some(tokens.ok_or_else(|| {
                    format!("context_size is '{value}'; it must be a whole number of at least 1")
                })?);
            }
            "device" => options.device = Some(value.to_owned()),
            "pull" => {
                options.pull = match value {
                    "missing" | "true" => true,
                    "never" | "false" => false,
                    other => return Err(format!("pull is '{other}'; it must be missing or never")),
                };
            }
            // Compose 2.36 passes the provider's own type along.
            "type" | "project_name" => {}
            other => {
                return Err(format!("there is no option '{other}'; there are {}", OPTIONS.join(", ")));
            }
        }
    }
    match options.service.is_empty() {
        true => Err("no service is named".into()),
        false => Ok(options),
    }
}

/// Nothing about the options: Compose passes on all that a file has only where it is told of none, and so a misspelled
/// one is heard of.
pub fn metadata() -> Result<ExitCode, String> {
    println!("{{}}");
    Ok(ExitCode::SUCCESS)
}

/// What Compose puts before the variables of a provider's dependants, and whether shells can read such names.
pub fn prefix(service: &str) -> (String, bool) {
    let readable = service.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    (service.to_uppercase(), readable && !service.starts_with(|first: char| first.is_ascii_digit()))
}

/// `down` changes nothing: models are shared, and leave by themselves when nobody has used them for a while.
pub fn down(words: &[String]) -> Result<ExitCode, String> {
    match parse(words) {
        Ok(options) => {
            say("info", format!("{}: nothing to stop; an idle model unloads by itself", options.service))
        }
        Err(message) => say("info", message),
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes sure of all that was asked for, then says what dependants get. Done again, it changes nothing.
pub fn up(file: &ConfigFile, words: &[String]) -> Result<ExitCode, String> {
    match parse(words).and_then(|options| serve(&file.read()?, &options)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(message) => {
            say("error", message);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn serve(config: &Config, options: &Options) -> Result<(), String> {
    if let (prefix, false) = prefix(&options.service) {
        say("info", format!("shells cannot read {prefix}_URL and its like: call the service otherwise"));
    }
    let name = options.device.as_deref().unwrap_or(pontoon_wiring::ALL);
    let devices = cdi::devices(config);
    let device = devices.iter().find(|device| device.name == name).ok_or_else(|| {
        let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        format!("there is no device '{name}'; the host's configuration has {}", names.join(", "))
    })?;
    let daemon = Daemon::here(config)?;
    // Nothing is fetched for a host that serves nobody.
    daemon.get("/health")?;
    if let Some(model) = &options.model {
        if !device.models {
            return Err(format!(
                "the device '{name}' gives no models (policies.models), and the service wants {model}"
            ));
        }
        let model = load(config, &daemon, options, model)?;
        let url = format!("http://127.0.0.1:{MODELS_PORT}/v1");
        say("setenv", format!("MODEL={model}"));
        say("setenv", format!("URL={url}"));
    }
    if device.bridge {
        say("setenv", "PONTOON_HOST=unix:/run/pontoon/pontoon.sock");
    }
    say("setenv", format!("DEVICE={KIND}={name}"));
    Ok(())
}

/// Fetches, configures and loads a model; the name that dependants use.
fn load(config: &Config, daemon: &Daemon, options: &Options, wanted: &str) -> Result<String, String> {
    let show = || daemon.post("/api/show", &json!({ "model": wanted }));
    let card = match show() {
        Ok(card) => card,
        Err(_) if options.pull => {
            say("info", format!("{wanted} is not in the store; fetching it"));
            fetch(config, wanted)?;
            show()?
        }
        Err(message) => return Err(format!("{message} (and pull is 'never')")),
    };
    if let Some(tokens) = options.context_size {
        daemon.post(
            "/pontoon/v1/configure",
            &json!({ "model": wanted, "settings": { "context_size": tokens } }),
        )?;
    }
    let able = |what: &str| card["capabilities"].as_array().into_iter().flatten().any(|one| one == what);
    let mode = options.mode.unwrap_or_else(|| match (able("embedding"), able("rerank")) {
        (true, _) => Mode::Embedding,
        (_, true) => Mode::Rerank,
        _ => Mode::Chat,
    });
    let (path, body) = match mode {
        Mode::Chat => (
            "/v1/chat/completions",
            json!({ "model": wanted, "max_tokens": 1, "messages": [{ "role": "user", "content": "Hello" }] }),
        ),
        Mode::Embedding => ("/v1/embeddings", json!({ "model": wanted, "input": "Hello" })),
        Mode::Rerank => ("/v1/rerank", json!({ "model": wanted, "query": "Hello", "documents": ["Hello"] })),
    };
    say("info", format!("loading {wanted}"));
    // A real request: what answers it is loaded, in the right mode, and works.
    let begun = std::time::Instant::now();
    block_on(daemon.json(Method::POST, path, Some(&body)))
        .map_err(|message| format!("{wanted} cannot serve: {message}"))?;
    say("info", format!("{wanted} is loaded ({:.1} s)", begun.elapsed().as_secs_f64()));
    Ok(wanted.to_owned())
}

fn fetch(config: &Config, name: &str) -> Result<(), String> {
    let store = crate::config::store(config)?;
    let reference = pontoon_models::Reference::parse(name).map_err(|error| error.to_string())?;
    let client = crate::model::client(config)?;
    let pulled = block_on(async {
        client
            .pull(&store, &reference, pontoon_models::Progress::none())
            .await
            .map_err(|error| error.to_string())
    });
    pulled.map(drop).map_err(|message| format!("{name} cannot be fetched: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_read_and_wrong_ones_named() {
        let options =
            parse(&words("--model=ai/x --mode=embedding --context-size=4096 --device=batch llm")).unwrap();
        assert_eq!(
            options,
            Options {
                service: "llm".into(),
                model: Some("ai/x".into()),
                mode: Some(Mode::Embedding),
                context_size: Some(4096),
                device: Some("batch".into()),
                pull: true,
            }
        );
        for (line, word) in [
            ("--colour=red llm", "no option 'colour'; there are model, mode"),
            ("--mode=sing llm", "mode is 'sing'"),
            ("--context_size=0 llm", "context_size is '0'"),
            ("--model llm", "'model' has no value"),
            ("--model=x", "no service"),
            ("a b", "two services"),
            ("--model=a --model=b llm", "model is said twice"),
        ] {
            let error = parse(&words(line)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
