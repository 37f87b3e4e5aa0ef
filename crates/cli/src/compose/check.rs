//! `pontoon compose check`: what each service of a file will get, and what it will miss.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use pontoon_daemon::{Config, cdi};
use pontoon_wiring::{CdiDevice, KIND};
use serde::Deserialize;
use serde_json::{Value, json};

/// Bytes of a Compose file.
const MAX_FILE: u64 = 1 << 20;

/// A Compose file, as far as it concerns us.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    services: BTreeMap<String, Option<Service>>,
    #[serde(default)]
    models: BTreeMap<String, Option<Model>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Service {
    provider: Option<Provider>,
    devices: Vec<Value>,
    models: Value,
    depends_on: Value,
    network_mode: Option<String>,
    deploy: Value,
}

#[derive(Deserialize)]
struct Provider {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    options: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Model {
    model: Option<String>,
}

/// What is to be said about one service.
#[derive(Debug, Default, PartialEq)]
struct Report {
    gets: Vec<String>,
    misses: Vec<String>,
}

pub fn run(config: &Config, path: &Path, as_json: bool) -> Result<ExitCode, String> {
    let text = read(path)?;
    let file: File = serde_saphyr::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let reports = examine(&file, &cdi::devices(config));
    let misses = reports.iter().any(|(_, report)| !report.misses.is_empty());
    if reports.is_empty() {
        return Err(format!("{}: it has no services", path.display()));
    }
    if as_json {
        let rows: Vec<Value> = reports
            .iter()
            .map(|(name, report)| json!({ "service": name, "gets": report.gets, "misses": report.misses }))
            .collect();
        crate::print_json(&rows)?;
    } else {
        for (name, report) in &reports {
            println!("{name}");
            report.gets.iter().for_each(|line| println!("  gets    {line}"));
            report.misses.iter().for_each(|line| println!("  MISSES  {line}"));
        }
    }
    Ok(if misses { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |why: String| format!("{}: {why}", path.display());
    let found = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(failed(format!("it must be a file of at most {MAX_FILE} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}

fn examine(file: &File, devices: &[CdiDevice]) -> Vec<(String, Report)> {
    let report = |service: &Option<Service>| match service {
        Some(service) => one(file, service, devices),
        None => Report { misses: vec!["everything: it is empty".into()], ..Report::default() },
    };
    file.services.iter().map(|(name, service)| (name.clone(), report(service))).collect()
}

fn one(file: &File, service: &Service, devices: &[CdiDevice]) -> Report {
    let mut report = Report::default();
    if let Some(provider) = service.provider.as_ref().filter(|provider| provider.kind == "pontoon") {
        let option = |name: &str| provider.options.get(name).and_then(Value::as_str);
        match option("model") {
            Some(model) => {
                report.gets.push(format!("is the model {model}, loaded before its dependants start"))
            }
            None => report.gets.push("is a GPU tenant without a model".into()),
        }
        let words = provider.options.iter().map(|(key, value)| match value.as_str() {
            Some(text) => format!("--{key}={text}"),
            None => format!("--{key}={value}"),
        });
        let words: Vec<String> = words.chain(["service".to_owned()]).collect();
        if let Err(message) = super::provider::parse(&words) {
            report.misses.push(format!("what its options ask for: {message}"));
        }
        if let Some(name) = option("device")
            && !devices.iter().any(|device| device.name == name)
        {
            report.misses.push(no_device(name, devices));
        }
        return report;
    }
    let mut has_models = false;
    let wanted = wanted_devices(service);
    if wanted.len() > 1 {
        report
            .misses
            .push(format!("all but one of its devices: {} appear in the same place", wanted.join(" and ")));
    }
    for name in wanted {
        match devices.iter().find(|device| device.name == name) {
            Some(device) => {
                has_models |= device.models;
                let what = match (device.bridge, device.models) {
                    (true, true) => "the GPU and the model runner",
                    (true, false) => "the GPU",
                    (false, true) => "the model runner",
                    (false, false) => "nothing: its policy gives neither GPU nor models",
                };
                report.gets.push(format!("{what}, by {KIND}={name}"));
            }
            None => report.misses.push(no_device(&name, devices)),
        }
    }
    for provider in names(&service.depends_on) {
        let Some(other) = file.services.get(&provider) else {
            report
                .misses
                .push(format!("the service '{provider}', on which it depends: the file does not have it"));
            continue;
        };
        let of_ours = other.as_ref().and_then(|other| other.provider.as_ref());
        if of_ours.is_some_and(|other| other.kind == "pontoon") {
            let prefix = provider.to_uppercase().replace('-', "_");
            report.gets.push(format!(
                "{prefix}_URL, {prefix}_MODEL and {prefix}_PONTOON_HOST, from the provider {provider}"
            ));
        }
    }
    for name in names(&service.models) {
        let model =
            file.models.get(&name).and_then(|model| model.as_ref()).and_then(|model| model.model.clone());
        match model {
            Some(model) => report.gets.push(format!(
                "the address of the model {model}, as {}_URL",
                name.to_uppercase().replace('-', "_")
            )),
            None => report.misses.push(format!("the model '{name}': the file's `models:` does not have it")),
        }
    }
    let wants_models =
        !names(&service.models).is_empty() || report.gets.iter().any(|line| line.contains("_URL"));
    let on_host = service.network_mode.as_deref() == Some("host");
    if wants_models && !has_models && !on_host {
        report.misses.push(format!("a way to the model runner: add `devices: [{KIND}=all]` to the service"));
    }
    report
}

fn no_device(name: &str, devices: &[CdiDevice]) -> String {
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    format!("the device '{name}': the host's configuration has {}", names.join(", "))
}

/// Names of our CDI devices, in both of Compose's forms.
fn wanted_devices(service: &Service) -> Vec<String> {
    let reserved = service.deploy["resources"]["reservations"]["devices"].as_array();
    let ids = reserved
        .into_iter()
        .flatten()
        .flat_map(|device| device["device_ids"].as_array().into_iter().flatten());
    let all = service.devices.iter().chain(ids).filter_map(|device| {
        let text = device.as_str().or_else(|| device["source"].as_str())?;
        let rest = text.strip_prefix(KIND)?;
        Some(rest.strip_prefix('=').unwrap_or(rest).to_owned())
    });
    all.collect()
}

/// Compose has lists of names, and maps whose keys are names.
fn names(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Object(map) => map.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
services:
  llm:
    provider:
      type: pontoon
      options: { model: ai/smollm2 }
  app:
    image: x
    depends_on: [llm]
    devices: ['pontoon.dev/gpu=all']
  lonely:
    image: x
    depends_on: { llm: { condition: service_started } }
  reader:
    image: x
    models: { words: {} }
    deploy: { resources: { reservations: { devices: [{ driver: cdi, device_ids: ['pontoon.dev/gpu=batch'], capabilities: [gpu] }] } } }
  other:
    image: x
    models: [missing]
models:
  words: { model: ai/words }
";

    #[test]
    fn what_each_service_gets_and_misses_is_said() {
        let device = |name: &str, models| CdiDevice {
            name: name.into(),
            socket: "/run/pontoon/guest/pontoon.sock".into(),
            bridge: true,
            models,
            keys: false,
        };
        let file: File = serde_saphyr::from_str(FILE).unwrap();
        let reports: BTreeMap<String, Report> =
            examine(&file, &[device("all", true), device("batch", false)]).into_iter().collect();
        assert!(reports["app"].misses.is_empty(), "{:?}", reports["app"]);
        assert!(reports["app"].gets.iter().any(|line| line.contains("LLM_URL")), "{:?}", reports["app"]);
        assert!(
            reports["lonely"].misses[0].contains("devices: [pontoon.dev/gpu=all]"),
            "{:?}",
            reports["lonely"]
        );
        assert!(reports["reader"].gets[0].starts_with("the GPU, by"), "{:?}", reports["reader"]);
        assert!(reports["reader"].misses[0].contains("a way to the model runner"), "{:?}", reports["reader"]);
        assert!(reports["other"].misses[0].contains("'missing'"), "{:?}", reports["other"]);
    }
}
