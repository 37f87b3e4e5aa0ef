//! `pontoon model pull`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use super::{bars, reference, short, store};
use crate::config::block_on;

/// Fetch a model from a registry or the Hugging Face hub
///
/// A pull that was interrupted goes on where it stopped. Every layer is verified. Logins are those of
/// `docker login` (~/.docker/config.json and its credential helpers); HF_TOKEN is for the hub.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the model
    #[arg(value_name = "MODEL")]
    name: String,
    /// Print progress as JSON lines
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: Arguments) -> Result<ExitCode, String> {
    let (name, store) = (reference(&arguments.name)?, store(config)?);
    let client = super::client(config)?;
    let model = block_on(async {
        client
            .pull(&store, &name, bars::progress(arguments.json.then_some(pontoon_models::Transfer::Pull)))
            .await
            .map_err(|error| error.to_string())
    })?;
    if !arguments.json {
        println!("{}  {}", short(&model.digest), name.familiar());
    }
    Ok(ExitCode::SUCCESS)
}
