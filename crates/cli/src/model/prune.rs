//! `pontoon model prune`.

use std::process::ExitCode;

use pontoon_daemon::Config;

use super::store;
use crate::table;

/// Remove what nobody needs: unfinished downloads, files that belong to no model, prompt caches
#[derive(clap::Args)]
pub struct Arguments {
    /// Models without a name, too
    #[arg(long)]
    untagged: bool,
    /// Every model
    #[arg(long, conflicts_with = "untagged")]
    all: bool,
    /// Prompt caches that engines have saved, too
    #[arg(long)]
    slots: bool,
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
    if arguments.slots {
        let saved = super::df::slot_caches();
        let before = saved.usage().0;
        saved.clear();
        freed += before - saved.usage().0.min(before);
    }
    println!("freed {}", table::bytes(freed + pruned.freed));
    Ok(ExitCode::SUCCESS)
}
