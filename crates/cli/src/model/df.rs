//! `pontoon model df`.

use std::process::ExitCode;

use pontoon_daemon::{Config, paths};
use pontoon_engines::engine::Catalog;
use pontoon_engines::instance::SlotCache;
use pontoon_models::store::Usage;
use serde::Serialize;

use super::store;
use crate::table;

/// Show what models, engines, prompt caches and unfinished downloads take on disk
#[derive(clap::Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Disk {
    #[serde(flatten)]
    store: Usage,
    engines: usize,
    engines_bytes: u64,
    slot_caches: usize,
    slot_caches_bytes: u64,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let usage = disk(config)?;
    if arguments.json {
        crate::print_json(&usage)?;
        return Ok(ExitCode::SUCCESS);
    }
    let store = &usage.store;
    let row =
        |what: &str, count: usize, bytes: u64| vec![what.into(), count.to_string(), table::bytes(bytes)];
    let rows = [
        row("models", store.models, store.models_bytes),
        row("other artifacts", store.artifacts, store.artifacts_bytes),
        row("unfinished downloads", store.partial, store.partial_bytes),
        row("engines", usage.engines, usage.engines_bytes),
        row("prompt caches", usage.slot_caches, usage.slot_caches_bytes),
    ];
    table::print(&["WHAT", "COUNT", "SIZE"], &rows);
    println!("{} could be freed with `pontoon model prune`", table::bytes(store.reclaimable_bytes));
    Ok(ExitCode::SUCCESS)
}

fn disk(config: &Config) -> Result<Disk, String> {
    let store = store(config)?.df().map_err(|error| error.to_string())?;
    let engines = Catalog::open(paths::engines_folder(), config.engines.clone()).list();
    let (slot_caches_bytes, slot_caches) = slot_caches().usage();
    Ok(Disk {
        store,
        engines: engines.iter().filter(|engine| engine.bytes > 0).count(),
        engines_bytes: engines.iter().map(|engine| engine.bytes).sum(),
        slot_caches,
        slot_caches_bytes,
    })
}

/// What engines have saved of prompts.
pub fn slot_caches() -> SlotCache {
    SlotCache::at(&paths::data_folder().join("state/slots"))
}
