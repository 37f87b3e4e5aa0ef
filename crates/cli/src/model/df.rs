//! `pontoon model df`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use super::store;
use crate::table;

/// Show what models, engine packs and unfinished downloads take on disk
#[derive(clap::Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let usage = store(config)?.df().map_err(|error| error.to_string())?;
    if arguments.json {
        crate::print_json(&usage)?;
        return Ok(ExitCode::SUCCESS);
    }
    let row =
        |what: &str, count: usize, bytes: u64| vec![what.into(), count.to_string(), table::bytes(bytes)];
    let rows = [
        row("models", usage.models, usage.models_bytes),
        row("other artifacts", usage.artifacts, usage.artifacts_bytes),
        row("unfinished downloads", usage.partial, usage.partial_bytes),
    ];
    table::print(&["WHAT", "COUNT", "SIZE"], &rows);
    println!("{} could be freed with `pontoon model prune`", table::bytes(usage.reclaimable_bytes));
    Ok(ExitCode::SUCCESS)
}
