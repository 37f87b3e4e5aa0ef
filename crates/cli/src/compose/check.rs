//! `pontoon compose check`: what each service of a file will get, and what it will miss.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use pontoon_callers::{Container, Directory, Facts, Verdict};
use pontoon_daemon::{Config, cdi};
use pontoon_wiring::{CdiDevice, KIND};
use serde::Deserialize;
use serde_json::{Value, json};

/// Bytes of a Compose file.
const MAX_FILE: u64 = 1 << 20;

/// A Compose file, as far as it concerns us.
#[derive(Deserialize)]
struct File {
    /// What the project is called; else as its folder.
    name: Option<String>,
    include: Option<Value>,
    #[serde(default)]
    services: BTreeMap<String, Option<Service>>,
    #[serde(default)]
    models: BTreeMap<String, Option<Model>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Service {
    provider: Option<Provider>,
    image: Option<String>,
    extends: Option<Value>,
    container_name: Option<String>,
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
    let elsewhere =
        file.include.is_some() || file.services.values().flatten().any(|one| one.extends.is_some());
    if (elsewhere || text.replace("$$", "").contains('$')) && path != Path::new("-") {
        eprintln!(
            "note: variables are not filled in, `include` and `extends` not followed; `docker compose config | pontoon compose check -` does so"
        );
    }
    let reports = examine(&file, &project(&file, path), config);
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

pub fn read(path: &Path) -> Result<String, String> {
    let failed = |why: String| format!("{}: {why}", path.display());
    let mut text = String::new();
    if path == Path::new("-") {
        let read = std::io::stdin().lock().take(MAX_FILE + 1).read_to_string(&mut text);
        read.map_err(|error| failed(error.to_string()))?;
        return match text.len() as u64 <= MAX_FILE {
            true => Ok(text),
            false => Err(failed(format!("it has more than {MAX_FILE} bytes"))),
        };
    }
    let found = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(failed(format!("it must be a file of at most {MAX_FILE} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}

/// What Compose calls the project: the file's word, else its folder's name, in small letters.
fn project(file: &File, path: &Path) -> String {
    let folder = || {
        let folder =
            std::fs::canonicalize(path).ok()?.parent()?.file_name()?.to_string_lossy().to_lowercase();
        let fits = |letter: &char| letter.is_ascii_alphanumeric() || "_-".contains(*letter);
        Some(folder.chars().filter(fits).collect::<String>().trim_start_matches(['_', '-']).to_owned())
    };
    file.name.clone().or_else(folder).unwrap_or_default()
}

fn examine(file: &File, project: &str, config: &Config) -> Vec<(String, Report)> {
    let directory = Directory::new(&config.callers, config.policies.clone());
    let desk = Desk { project, devices: cdi::devices(config), directory };
    let report = |name: &String, service: &Option<Service>| match service {
        Some(service) => desk.one(file, name, service),
        None => Report { misses: vec!["everything: it is empty".into()], ..Report::default() },
    };
    file.services.iter().map(|(name, service)| (name.clone(), report(name, service))).collect()
}

/// What the host has to say about a file.
struct Desk<'a> {
    project: &'a str,
    devices: Vec<CdiDevice>,
    directory: Directory,
}

/// The words of an option: Compose writes a list of them, people one.
fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Array(list) => list.iter().map(text).collect(),
        other => vec![text(other)],
    }
}

impl Desk<'_> {
    fn one(&self, file: &File, name: &str, service: &Service) -> Report {
        let ours = service.provider.as_ref().filter(|provider| provider.kind == "pontoon");
        if let Some(provider) = ours {
            return self.provider(name, provider);
        }
        let mut report = Report::default();
        let has_models = self.given(name, service, &mut report);
        promised(file, service, &mut report);
        let wants_models =
            !names(&service.models).is_empty() || report.gets.iter().any(|line| line.contains("_URL"));
        let network = service.network_mode.as_deref().unwrap_or_default();
        let on_host = network == "host";
        // The port in a network is there for all who share it.
        let shared = network
            .strip_prefix("service:")
            .and_then(|name| Some((name, file.services.get(name)?.as_ref()?)));
        let has_models =
            has_models || shared.is_some_and(|(name, other)| self.given(name, other, &mut Report::default()));
        if wants_models && !has_models && !on_host {
            let way = format!("a way to the model runner: add `devices: [{KIND}=all]` to the service");
            report.misses.push(way);
        }
        report
    }

    /// A service that is a model.
    fn provider(&self, name: &str, provider: &Provider) -> Report {
        let mut report = Report::default();
        let option = |name: &str| provider.options.get(name).and_then(|value| texts(value).pop());
        let words = provider
            .options
            .iter()
            .flat_map(|(key, value)| texts(value).into_iter().map(move |text| format!("--{key}={text}")));
        let words: Vec<String> = words.chain(["service".to_owned()]).collect();
        match (super::provider::parse(&words), option("model")) {
            (Err(message), _) => report.misses.push(format!("what its options ask for: {message}")),
            (Ok(_), Some(model)) => {
                report.gets.push(format!("to be the model {model}, loaded before its dependants start"));
            }
            (Ok(_), None) => report.gets.push("to be a GPU tenant without a model".into()),
        }
        if let (prefix, false) = super::provider::prefix(name) {
            report.misses.push(format!(
                "dependants that can read its variables: shells cannot read {prefix}_URL and its like, call it otherwise"
            ));
        }
        if let Some(name) = option("device")
            && !self.devices.iter().any(|device| device.name == name)
        {
            report.misses.push(self.no_device(&name));
        }
        report
    }

    /// What its devices and the policy about it give; whether models are among that.
    fn given(&self, name: &str, service: &Service, report: &mut Report) -> bool {
        let mut has_models = false;
        let wanted = wanted_devices(service);
        if wanted.len() > 1 {
            let all = wanted.join(" and ");
            report.misses.push(format!("all but one of its devices: {all} appear in the same place"));
        }
        for wanted in wanted {
            let Some(device) = self.devices.iter().find(|device| device.name == wanted) else {
                report.misses.push(self.no_device(&wanted));
                continue;
            };
            let container = Container {
                name: service.container_name.clone().or_else(|| Some(format!("{}-{name}-1", self.project))),
                image: service.image.clone(),
                project: Some(self.project.to_owned()),
                service: Some(name.to_owned()),
                ..Container::default()
            };
            let own = (wanted != pontoon_wiring::ALL).then(|| wanted.clone());
            let facts = Facts { container: Some(container), device: own, ..Facts::default() };
            let (bridge, models, policy) = match self.directory.decide(&facts) {
                Verdict::Everybodys => (true, true, String::new()),
                Verdict::Policy(policy) => {
                    (policy.bridge, policy.models, format!(", under the policy '{}'", policy.name))
                }
                Verdict::Stranger(device) => {
                    report.misses.push(format!("the device '{device}': its policy is not for this service"));
                    continue;
                }
            };
            let (bridge, models) = (bridge && device.bridge, models && device.models);
            has_models |= models;
            let what = match (bridge, models) {
                (true, true) => "the GPU and the model runner",
                (true, false) => "the GPU",
                (false, true) => "the model runner",
                (false, false) => "nothing: its policy gives neither GPU nor models",
            };
            report.gets.push(format!("{what}, by {KIND}={wanted}{policy}"));
        }
        has_models
    }

    fn no_device(&self, name: &str) -> String {
        let names: Vec<&str> = self.devices.iter().map(|device| device.name.as_str()).collect();
        format!("the device '{name}': the host's configuration has {}", names.join(", "))
    }
}

/// The variables that a service gets of models and providers.
fn promised(file: &File, service: &Service, report: &mut Report) {
    for provider in names(&service.depends_on) {
        let Some(other) = file.services.get(&provider) else {
            let missing = "on which it depends: the file does not have it";
            report.misses.push(format!("the service '{provider}', {missing}"));
            continue;
        };
        let of_ours = other.as_ref().and_then(|other| other.provider.as_ref());
        if of_ours.is_some_and(|other| other.kind == "pontoon") {
            let (prefix, _) = super::provider::prefix(&provider);
            report.gets.push(format!(
                "{prefix}_URL, {prefix}_MODEL and {prefix}_PONTOON_HOST, from the provider {provider}"
            ));
        }
    }
    for name in names(&service.models) {
        let model = file.models.get(&name).and_then(|model| model.as_ref());
        let Some(model) = model.and_then(|model| model.model.clone()) else {
            report.misses.push(format!("the model '{name}': the file's `models:` does not have it"));
            continue;
        };
        let usual = name.to_uppercase().replace('-', "_");
        let own = |key: &str| service.models[&name][key].as_str().map(str::to_owned);
        let address = own("endpoint_var").unwrap_or_else(|| format!("{usual}_URL"));
        let called = own("model_var").unwrap_or_else(|| format!("{usual}_MODEL"));
        report.gets.push(format!("the address of the model {model} as {address}, its name as {called}"));
    }
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

    fn reports(file: &str, config: &str) -> BTreeMap<String, Report> {
        let file: File = serde_saphyr::from_str(file).unwrap();
        examine(&file, "shop", &toml::from_str(config).unwrap()).into_iter().collect()
    }

    #[test]
    fn what_each_service_gets_and_misses_is_said() {
        let batch = "[[policies]]\nname = 'batch'\ndevice = true\nmodels = false";
        let reports = reports(FILE, batch);
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

    #[test]
    fn policies_and_composes_own_form_are_understood() {
        let file = "
services:
  my-llm: { provider: { type: pontoon, options: { model: [demo/x], mode: [chat] } } }
  trainer: { image: x, devices: [{ source: pontoon.dev/gpu=all }], models: { words: { endpoint_var: AI_URL } } }
  talker: { image: x, devices: ['pontoon.dev/gpu=all'] }
  thief: { image: x, devices: ['pontoon.dev/gpu=jobs'] }
models:
  words: { model: demo/x }
";
        let config = "
[[policies]]
name = 'trainers'
match = { project = 'shop', service = 'trainer' }
models = false
[[policies]]
name = 'jobs'
device = true
match = { service = 'job' }
";
        let reports = reports(file, config);
        let provider = &reports["my-llm"];
        assert!(provider.gets[0].contains("to be the model demo/x,"), "{provider:?}");
        assert!(provider.misses.len() == 1 && provider.misses[0].contains("MY-LLM_URL"), "{provider:?}");
        let trainer = &reports["trainer"];
        assert_eq!(trainer.gets[0], "the GPU, by pontoon.dev/gpu=all, under the policy 'trainers'");
        assert!(trainer.gets[1].ends_with("as AI_URL, its name as WORDS_MODEL"), "{trainer:?}");
        assert!(trainer.misses[0].contains("a way to the model runner"), "{trainer:?}");
        assert_eq!(reports["talker"].gets[0], "the GPU and the model runner, by pontoon.dev/gpu=all");
        assert!(reports["thief"].misses[0].contains("'jobs'"), "{:?}", reports["thief"]);
    }
}
