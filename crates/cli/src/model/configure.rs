//! `pontoon model configure`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use pontoon_engines::Settings;
use serde_json::{Value, json};

use super::http::Daemon;
use super::show;

/// Set how a model is run on this host; it holds from its next load on, and after a restart
///
/// Settings are given as NAME=VALUE: `context_size=8192`, `keep_alive=1h`, `cache_type_k=q8_0`, `preset=code`.
/// NAME= takes a setting back. docs/models.md explains each; `pontoon model show` lists what holds. After `--`,
/// options of llama-server are understood as far as they are harmless, as Docker's CLI passes them.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name or id of the model
    #[arg(value_name = "MODEL")]
    model: String,
    /// Settings
    #[arg(value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Tokens of context, as Docker's CLI has it
    #[arg(long, value_name = "TOKENS")]
    context_size: Option<u32>,
    /// Keep the model loaded, or no longer
    #[arg(long, value_name = "TRUE-OR-FALSE")]
    pin: Option<bool>,
    /// Forget all settings that were made before
    #[arg(long)]
    reset: bool,
    /// Options of llama-server
    #[arg(last = true, value_name = "OPTION")]
    flags: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let flags = Settings::from_flags(&arguments.flags).map_err(|error| error.to_string())?;
    let mut settings = serde_json::to_value(flags).map_err(|error| error.to_string())?;
    let fields = settings.as_object_mut().ok_or("settings are an object")?;
    let mut taken_back = Vec::new();
    for setting in &arguments.settings {
        let (name, value) = setting.split_once('=').ok_or_else(|| {
            format!("'{setting}' is no setting: write NAME=VALUE, or NAME= to take it back")
        })?;
        match value {
            "" => taken_back.push(name.to_owned()),
            value => drop(fields.insert(name.to_owned(), parse(value))),
        }
    }
    if let Some(tokens) = arguments.context_size {
        fields.insert("context_size".into(), tokens.into());
    }
    if let Some(pinned) = arguments.pin {
        fields.insert("pinned".into(), pinned.into());
    }
    let body = json!({
        "model": arguments.model, "replace": arguments.reset, "unset": taken_back, "settings": settings,
    });
    let shown = Daemon::here(config)?.post("/pontoon/v1/configure", &body)?;
    match arguments.json {
        true => crate::print_json(&shown)?,
        false => show::print(&shown),
    }
    Ok(ExitCode::SUCCESS)
}

/// A number, a truth, a list, or else text.
fn parse(value: &str) -> Value {
    serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))
}
