//! `pontoon model rm`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use super::store;
use crate::table;

/// Remove models: the name, and the files once nothing needs them
///
/// A model that runs goes on running; its files go when it is unloaded.
#[derive(clap::Args)]
pub struct Arguments {
    /// Names or ids
    #[arg(value_name = "MODEL", required = true)]
    names: Vec<String>,
    /// Remove a model by its id although it has several names
    #[arg(long, short)]
    force: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let store = store(config)?;
    for name in &arguments.names {
        let removal = store.remove(name, arguments.force).map_err(|error| error.to_string())?;
        removal.untagged.iter().for_each(|name| println!("untagged {name}"));
        removal.deleted.iter().for_each(|digest| println!("deleted {digest}"));
        if removal.freed > 0 {
            println!("freed {}", table::bytes(removal.freed));
        }
    }
    Ok(ExitCode::SUCCESS)
}
