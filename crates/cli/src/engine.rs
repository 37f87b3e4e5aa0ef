//! `pontoon engine`: the inference engines on this host.

use std::process::ExitCode;

use pontoon_daemon::{Config, paths};
use pontoon_engines::engine::{Catalog, Installed, Wanted};
use pontoon_models::Reference;

use crate::config::{ConfigFile, block_on, store};
use crate::table;

/// Inference engines: what is there, and getting others
///
/// The engine for GGUF models is llama.cpp's llama-server. It is looked for in this order: `engines.llama_server` in
/// pontoon.toml, PONTOON_LLAMA_SERVER, the version pinned here, PATH, then the newest installed here. Models in safetensors format run on
/// vLLM or mlx-lm, where those are.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List engines: installed here, and found elsewhere
    #[command(alias = "list")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Build an engine from its source release, as PyPI carries it, and install it
    ///
    /// Needs cmake, ninja and a C++ compiler. Takes some ten minutes of processor time. A version that ends in
    /// `+vulkan` is built with the Vulkan back end.
    Install {
        /// llama.cpp, or llama.cpp@VERSION
        #[arg(value_name = "ENGINE", default_value = "llama.cpp")]
        engine: String,
        /// Digest of the release, for one that Pontoon does not know
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// Optimise all but the arithmetic less, and save a fifth of the time
        #[arg(long)]
        quick: bool,
    },
    /// Fetch an engine pack from a registry and install it
    Pull {
        /// Name of the pack
        #[arg(value_name = "PACK")]
        name: String,
    },
    /// Make an engine pack of an installed engine, for other hosts
    Package {
        /// ENGINE@VERSION
        #[arg(value_name = "ENGINE")]
        engine: String,
        /// Name of the pack
        #[arg(value_name = "PACK")]
        name: String,
        /// Send it to its registry
        #[arg(long)]
        push: bool,
    },
    /// Use this version, whatever newer ones are installed
    Pin {
        /// ENGINE@VERSION, or ENGINE to use the newest again
        #[arg(value_name = "ENGINE")]
        engine: String,
        /// Go back to the version that was pinned before
        #[arg(long)]
        rollback: bool,
    },
    /// Remove an installed version
    Rm {
        /// ENGINE@VERSION
        #[arg(value_name = "ENGINE")]
        engine: String,
    },
}

pub fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let config = arguments.config.read()?;
    let catalog = Catalog::open(paths::engines_folder(), config.engines.clone());
    match arguments.verb {
        Verb::Ls { json } => list(&catalog, json)?,
        Verb::Install { engine, sha256, quick } => {
            let (name, version) = split(&engine);
            let installed = catalog
                .install(name, Wanted { version, sha256: sha256.as_deref(), quick }, &mut |line| {
                    eprintln!("{line}")
                })
                .map_err(|error| error.to_string())?;
            say(&installed);
        }
        Verb::Pull { name } => pull(&config, &catalog, &name)?,
        Verb::Package { engine, name, push } => package(&config, &catalog, &engine, &name, push)?,
        Verb::Pin { engine, rollback } => {
            let (name, version) = split(&engine);
            match rollback {
                true => {
                    println!("{name}@{}", catalog.rollback(name).map_err(|error| error.to_string())?)
                }
                false => catalog.pin(name, version).map_err(|error| error.to_string())?,
            }
        }
        Verb::Rm { engine } => {
            let (name, version) = exact(&engine)?;
            let bytes = catalog.remove(name, version).map_err(|error| error.to_string())?;
            println!("freed {}", table::bytes(bytes));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(catalog: &Catalog, json: bool) -> Result<(), String> {
    let engines = catalog.list();
    if json {
        return crate::print_json(&engines);
    }
    let row = |engine: &Installed| {
        vec![
            engine.name.clone(),
            engine.version.clone(),
            engine.origin.clone(),
            if engine.pinned { "yes" } else { "" }.to_owned(),
            if engine.bytes > 0 { table::bytes(engine.bytes) } else { String::new() },
            engine.path.display().to_string(),
        ]
    };
    table::print(
        &["ENGINE", "VERSION", "ORIGIN", "PINNED", "SIZE", "PROGRAM"],
        &engines.iter().map(row).collect::<Vec<_>>(),
    );
    if !engines.iter().any(|engine| engine.name == "llama.cpp") {
        eprintln!("there is no llama-server: `pontoon engine install llama.cpp` builds one");
    }
    Ok(())
}

fn pull(config: &Config, catalog: &Catalog, name: &str) -> Result<(), String> {
    let (reference, store) = (parse(name)?, store(config)?);
    let client = crate::model::client(config)?;
    let progress = crate::model::progress();
    block_on(async {
        client.pull_artifact(&store, &reference, progress).await.map_err(|error| error.to_string())
    })?;
    say(&catalog.unpack(&store, name).map_err(|error| error.to_string())?);
    Ok(())
}

fn package(config: &Config, catalog: &Catalog, engine: &str, name: &str, push: bool) -> Result<(), String> {
    let ((engine, version), reference, store) = (exact(engine)?, parse(name)?, store(config)?);
    let pack = catalog.package(&store, engine, version, &reference).map_err(|error| error.to_string())?;
    if push {
        let client = crate::model::client(config)?;
        let progress = crate::model::progress();
        block_on(async {
            client.push(&store, name, &reference, progress).await.map_err(|error| error.to_string())
        })?;
    }
    println!("{}  {}", pack.digest, reference.familiar());
    Ok(())
}

fn say(engine: &Installed) {
    println!("{}@{}  {}", engine.name, engine.version, engine.path.display());
}

fn parse(name: &str) -> Result<Reference, String> {
    Reference::parse(name).map_err(|error| error.to_string())
}

/// `llama.cpp@0.3.36` as name and version.
fn split(engine: &str) -> (&str, Option<&str>) {
    engine.split_once('@').map_or((engine, None), |(name, version)| (name, Some(version)))
}

fn exact(engine: &str) -> Result<(&str, &str), String> {
    match split(engine) {
        (name, Some(version)) => Ok((name, version)),
        (name, None) => {
            Err(format!("say which version of {name}: {name}@VERSION; `pontoon engine ls` shows them"))
        }
    }
}
