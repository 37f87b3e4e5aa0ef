//! `pontoon model ls`.

use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use pontoon_daemon::Config;
use pontoon_models::{Model, Reference};

use super::{short, store};
use crate::table;

/// List the models in the store
#[derive(clap::Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print names alone
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let models = store(config)?.list().map_err(|error| error.to_string())?;
    if arguments.json {
        crate::print_json(&models.iter().map(as_json).collect::<Vec<_>>())?;
    } else if arguments.quiet {
        models.iter().for_each(|model| println!("{}", model.display_name()));
    } else {
        let headings = ["NAME", "PARAMETERS", "QUANTIZATION", "ARCHITECTURE", "FORMAT", "SIZE", "ID"];
        let rows: Vec<Vec<String>> = models.iter().flat_map(rows).collect();
        table::print(&headings, &rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// What Docker's own list has, and the rest beside it.
pub fn as_json(model: &Model) -> serde_json::Value {
    let created = model.created.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    serde_json::json!({
        "id": model.digest,
        "tags": model.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "created": created.map_or(0, |since| since.as_secs()),
        "size": model.size(),
        "config": model.config,
    })
}

/// A line for each name, or one for the id.
fn rows(model: &Model) -> Vec<Vec<String>> {
    let names = match model.names.is_empty() {
        true => vec!["<none>".to_owned()],
        false => model.names.iter().map(Reference::familiar).collect(),
    };
    let config = &model.config;
    let row = |name| {
        vec![
            name,
            config.parameters.clone(),
            config.quantization.clone(),
            config.architecture.clone(),
            format!("{:?}", config.format).to_lowercase(),
            table::bytes(model.size()),
            short(&model.digest),
        ]
    };
    names.into_iter().map(row).collect()
}
