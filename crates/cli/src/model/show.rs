//! `pontoon model show`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use serde_json::Value;

use super::http::{Daemon, query};
use crate::table;

/// Show how a model would be run, or is: each setting and where it comes from, and the engine's command line
#[derive(clap::Args)]
pub struct Arguments {
    /// Name or id of the model
    #[arg(value_name = "MODEL")]
    model: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let shown = Daemon::here(config)?.get(&format!("/pontoon/v1/show?model={}", query(&arguments.model)))?;
    if arguments.json {
        crate::print_json(&shown)?;
    } else {
        print(&shown);
    }
    Ok(ExitCode::SUCCESS)
}

/// For people: also what `configure` prints.
pub fn print(shown: &Value) {
    let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    let memory = |kind: &str| table::bytes(shown["footprint"][kind].as_u64().unwrap_or_default());
    println!("{}  {}", text("model"), text("digest"));
    println!("engine: {} ({})", text("engine"), text("engine_found"));
    let how = if shown["measured"] == true { "measured" } else { "estimated from its metadata" };
    println!("memory: {} on the host, {} on the GPU, {how}", memory("host"), memory("gpu"));
    let settings = shown["settings"].as_object().into_iter().flatten();
    let row = |(name, setting): (&String, &Value)| {
        let value = setting["value"].as_str().map_or_else(|| setting["value"].to_string(), str::to_owned);
        let origin = setting["origin"].as_str().map_or_else(|| setting["origin"].to_string(), str::to_owned);
        vec![name.clone(), value, origin]
    };
    table::print(&["SETTING", "VALUE", "FROM"], &settings.map(row).collect::<Vec<_>>());
    let words = shown["argv"].as_array().into_iter().flatten().filter_map(Value::as_str);
    println!("{}", words.collect::<Vec<_>>().join(" "));
}
