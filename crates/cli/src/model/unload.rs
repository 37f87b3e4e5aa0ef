//! `pontoon model unload`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use serde_json::json;

use super::http::Daemon;

/// Unload models: what they hold in memory is free again, prompts in their caches are saved
#[derive(clap::Args)]
pub struct Arguments {
    /// Names or ids
    #[arg(value_name = "MODEL", required_unless_present = "all")]
    models: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "models")]
    all: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let body = json!({ "all": arguments.all, "models": arguments.models });
    let answer = Daemon::here(config)?.post("/engines/unload", &body)?;
    println!("{} unloaded", answer["unloaded_runners"]);
    Ok(ExitCode::SUCCESS)
}
