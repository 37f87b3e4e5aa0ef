//! Pontoon as Docker's CLI plug-in `docker-model`: what `docker compose` asks for `models:`, and what people type.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use serde_json::json;

use crate::model::http::Daemon;

/// Name of the plug-in's file.
const NAME: &str = "docker-model";
/// The release of Docker's own plug-in whose command line this one speaks. Compose configures models from 1.0.6 on.
const SPOKEN: &str = "v1.1.0";
/// Where another plug-in waits to be put back.
const BEFORE: &str = "docker-model.before-pontoon";

/// Whether this program was started under the plug-in's name.
pub fn is_plugin(program: &std::ffi::OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == NAME)
}

/// Answers as the plug-in.
pub fn run(words: Vec<OsString>) -> Result<ExitCode, String> {
    let mut words: Vec<String> =
        words.into_iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    // Docker's CLI repeats the plug-in's name, Compose does not.
    if words.first().is_some_and(|word| word == "model") {
        words.remove(0);
    }
    match words.first().map_or("help", String::as_str) {
        "docker-cli-plugin-metadata" => crate::print_json(&json!({
            "SchemaVersion": "0.1.0",
            "Vendor": "Pontoon",
            "Version": SPOKEN,
            "ShortDescription": "Models on this host, run by Pontoon",
        }))?,
        "version" => {
            println!("Pontoon {}, speaks as Docker Model Runner's CLI {SPOKEN}", env!("CARGO_PKG_VERSION"))
        }
        "status" => status(words.iter().any(|word| word == "--json"))?,
        "configure" => configure(&words[1..])?,
        "ls" | "list" if words.iter().any(|word| word == "--json") => list()?,
        "pull" => return pull(words),
        "install-runner" | "start-runner" | "reinstall-runner" => {
            println!("Pontoon runs models itself: `pontoon serve`");
        }
        _ => {
            let line = ["pontoon".to_owned(), "model".to_owned()].into_iter().chain(words);
            return crate::run(crate::Arguments::parse_from(line));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The models, under every spelling of their names: Compose looks for the very one that its file has.
fn list() -> Result<(), String> {
    let store = crate::config::store(&crate::config::ConfigFile::default().read()?)?;
    let models = store.list().map_err(|error| error.to_string())?;
    let rows = models.iter().map(|model| {
        let mut row = crate::model::ls::as_json(model);
        row["tags"] = model.names.iter().flat_map(|name| spellings(&name.familiar())).collect();
        row
    });
    crate::print_json(&rows.collect::<Vec<_>>())
}

/// A name with and without what may be left out of it: the tag `latest`, the organisation `ai`, Docker's registry.
fn spellings(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned()];
    let registry = name.split('/').next().filter(|first| name.contains('/') && first.contains(['.', ':']));
    if registry.is_none() {
        all.push(format!("docker.io/{name}"));
        all.extend(name.strip_prefix("ai/").map(str::to_owned));
    }
    let short = |name: &String| name.strip_suffix(":latest").map(str::to_owned);
    let untagged: Vec<String> = all.iter().filter_map(short).collect();
    all.extend(untagged);
    all
}

/// Fetches a model. Where that fails and the model is in the store, it will do: Compose pulls what it has not found under
/// its file's spelling, also without a network.
fn pull(words: Vec<String>) -> Result<ExitCode, String> {
    let model = words.iter().skip(1).find(|word| !word.starts_with('-')).cloned();
    let line = ["pontoon".to_owned(), "model".to_owned()].into_iter().chain(words);
    crate::run(crate::Arguments::parse_from(line)).or_else(|message| {
        let there = model.is_some_and(|model| {
            daemon().and_then(|daemon| daemon.post("/api/show", &json!({ "model": model }))).is_ok()
        });
        match there {
            true => {
                eprintln!("{message}; the one in the store will do");
                Ok(ExitCode::SUCCESS)
            }
            false => Err(message),
        }
    })
}

fn daemon() -> Result<Daemon, String> {
    Daemon::here(&crate::config::ConfigFile::default().read()?)
}

/// Compose reads the endpoint from here, and merges standard error in: nothing else may be printed.
fn status(as_json: bool) -> Result<(), String> {
    let endpoint = format!("http://127.0.0.1:{}/engines/v1/", pontoon_wiring::MODELS_PORT);
    let running = daemon()?.get("/health");
    match (as_json, running) {
        (true, running) => crate::print_json(&json!({
            "running": running.is_ok(), "backends": { "llama.cpp": if running.is_ok() { "running" } else { "not running" } }, "kind": "Pontoon", "endpoint": endpoint,
            "endpointHost": endpoint,
        })),
        (false, Ok(_)) => {
            println!("Pontoon's model runner is running; containers with a device find it at {endpoint}");
            Ok(())
        }
        (false, Err(message)) => Err(message),
    }
}

/// `configure [--context-size N] MODEL [-- FLAGS]`; the daemon judges the flags.
fn configure(words: &[String]) -> Result<(), String> {
    let (ours, flags) = match words.iter().position(|word| word == "--") {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[][..]),
    };
    let (mut model, mut context) = (None, None);
    let mut rest = ours.iter();
    while let Some(word) = rest.next() {
        let (name, value) =
            word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        match name {
            "--context-size" => {
                let value = value.or_else(|| rest.next().map(String::as_str)).unwrap_or_default();
                let tokens: u32 =
                    value.parse().map_err(|_| format!("--context-size '{value}' is no number of tokens"))?;
                context = Some(tokens);
            }
            option if option.starts_with('-') => {
                return Err(format!(
                    "configure does not know {option}; `pontoon model configure` sets every setting"
                ));
            }
            name if model.is_none() => model = Some(name.to_owned()),
            name => return Err(format!("one model at a time: '{name}' is one too many")),
        }
    }
    let model = model.ok_or("configure: no model is named")?;
    let mut body = json!({ "model": model, "runtime-flags": flags });
    if let Some(tokens) = context {
        body["context-size"] = json!(tokens);
    }
    daemon()?.post("/engines/_configure", &body).map(drop)
}

fn folder() -> Result<PathBuf, String> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || named("HOME").map(|home| home.join(".docker"));
    let found = named("DOCKER_CONFIG").or_else(home);
    Ok(found.ok_or("neither HOME nor DOCKER_CONFIG says where Docker's plug-ins are")?.join("cli-plugins"))
}

/// Whether a file is a link to this program.
fn is_ours(path: &Path) -> bool {
    let own = std::env::current_exe().ok();
    own.is_some() && std::fs::canonicalize(path).ok() == own.and_then(|own| std::fs::canonicalize(own).ok())
}

/// Whether a file is a link to some `pontoon`.
fn is_pontoon(path: &Path) -> bool {
    std::fs::read_link(path).is_ok_and(|link| link.file_name() == Some("pontoon".as_ref()))
}

pub fn install(force: bool) -> Result<ExitCode, String> {
    let folder = folder()?;
    let (plugin, before) = (folder.join(NAME), folder.join(BEFORE));
    let failed = |error: std::io::Error| format!("{}: {error}", plugin.display());
    let program = std::env::current_exe().map_err(failed)?;
    if is_ours(&plugin) {
        println!("{} is Pontoon already", plugin.display());
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(&folder).map_err(failed)?;
    if plugin.symlink_metadata().is_ok() {
        if !force {
            return Err(format!(
                "{} is another program: --force takes its place, `uninstall` puts it back",
                plugin.display()
            ));
        }
        if is_pontoon(&plugin) {
            // Of another place: nothing to keep.
            std::fs::remove_file(&plugin).map_err(failed)?;
        } else if before.symlink_metadata().is_ok() {
            return Err(format!("{} is kept already: put it back first, with `uninstall`", before.display()));
        } else {
            std::fs::rename(&plugin, &before).map_err(failed)?;
        }
    }
    if let Err(error) = std::os::unix::fs::symlink(&program, &plugin) {
        let _ = std::fs::rename(&before, &plugin);
        return Err(failed(error));
    }
    println!("{} is Pontoon now; `docker compose` asks it for `models:`", plugin.display());
    Ok(ExitCode::SUCCESS)
}

pub fn uninstall() -> Result<ExitCode, String> {
    let (plugin, before) = (folder()?.join(NAME), folder()?.join(BEFORE));
    let failed = |error: std::io::Error| format!("{}: {error}", plugin.display());
    if plugin.symlink_metadata().is_ok() {
        if !is_ours(&plugin) && !is_pontoon(&plugin) {
            return Err(format!("{} is not Pontoon's; it is left alone", plugin.display()));
        }
        std::fs::remove_file(&plugin).map_err(failed)?;
    }
    if before.symlink_metadata().is_ok() {
        std::fs::rename(&before, &plugin).map_err(failed)?;
        println!("{} is again what it was", plugin.display());
    } else {
        println!("{} is not there any more", plugin.display());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_under_every_spelling() {
        assert_eq!(
            spellings("ai/x:latest"),
            ["ai/x:latest", "docker.io/ai/x:latest", "x:latest", "ai/x", "docker.io/ai/x", "x"]
        );
        assert_eq!(spellings("hf.co/a/b:Q4"), ["hf.co/a/b:Q4"]);
        assert_eq!(spellings("localhost:5000/a:latest"), ["localhost:5000/a:latest", "localhost:5000/a"]);
    }
}
