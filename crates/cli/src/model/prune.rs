//! `pontoon model prune`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use super::store;
use crate::table;

/// Remove what nobody needs: unfinished downloads and files that belong to no model
#[derive(clap::Args)]
pub struct Arguments {
    /// Models without a name, too
    #[arg(long)]
    untagged: bool,
    /// Every model
    #[arg(long, conflicts_with = "untagged")]
    all: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let store = store(config)?;
    let mut freed = 0;
    if arguments.all {
        let removal = store.purge().map_err(|error| error.to_string())?;
        removal.untagged.iter().for_each(|name| println!("untagged {name}"));
        freed += removal.freed;
    }
    let pruned = store.prune(arguments.untagged).map_err(|error| error.to_string())?;
    pruned.deleted.iter().for_each(|digest| println!("deleted {digest}"));
    println!("freed {}", table::bytes(freed + pruned.freed));
    Ok(ExitCode::SUCCESS)
}
