//! `pontoon model inspect`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use super::{reference, store};
use crate::config::block_on;

/// Show everything known of a model, as JSON: configuration, files, and what the weights say
#[derive(clap::Args)]
pub struct Arguments {
    /// Name or id of the model
    #[arg(value_name = "MODEL")]
    name: String,
    /// Ask the registry which digest the name has there now, too
    #[arg(long)]
    remote: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let inspection = store(config)?.inspect(&arguments.name).map_err(|error| error.to_string())?;
    let mut shown = serde_json::to_value(&inspection).map_err(|error| error.to_string())?;
    if arguments.remote {
        let (client, name) = (super::client(config)?, reference(&arguments.name)?);
        let store = store(config)?;
        let there = async { client.remote_model(&store, &name).await.map_err(|error| error.to_string()) };
        let digest = block_on(there)?.digest;
        shown["remote"] = serde_json::json!({ "digest": digest, "newer": digest != inspection.id });
    }
    println!("{}", serde_json::to_string_pretty(&shown).map_err(|error| error.to_string())?);
    Ok(ExitCode::SUCCESS)
}
