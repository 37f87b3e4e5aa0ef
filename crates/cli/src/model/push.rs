//! `pontoon model push`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use super::{bars, reference, store};
use crate::config::block_on;

/// Send a model to a registry
///
/// Layers that the registry has are not sent again. Logins are those of `docker login`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the model, which is where it goes
    #[arg(value_name = "MODEL")]
    name: String,
    /// Print progress as JSON lines
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: Arguments) -> Result<ExitCode, String> {
    let (name, store) = (reference(&arguments.name)?, store(config)?);
    let client = super::client(config)?;
    let digest = block_on(async {
        let progress = bars::progress(arguments.json.then_some(pontoon_models::Transfer::Push));
        client.push(&store, &arguments.name, &name, progress).await.map_err(|error| error.to_string())
    })?;
    if !arguments.json {
        println!("{digest}");
    }
    Ok(ExitCode::SUCCESS)
}
