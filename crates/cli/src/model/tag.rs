//! `pontoon model tag`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use super::{reference, store};

/// Give a model a further name
#[derive(clap::Args)]
pub struct Arguments {
    /// Name or id of the model
    #[arg(value_name = "MODEL")]
    model: String,
    /// The further name
    #[arg(value_name = "NAME")]
    name: String,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let name = reference(&arguments.name)?;
    store(config)?.tag(&arguments.model, &name).map_err(|error| error.to_string())?;
    println!("{}", name.familiar());
    Ok(ExitCode::SUCCESS)
}
