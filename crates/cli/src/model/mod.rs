//! `pontoon model`: one file per verb. What concerns the store works on the store itself, with or without a
//! daemon; what concerns running models asks the daemon over its admin socket.

mod archive;
mod bars;
mod bench;
mod configure;
mod df;
pub mod http;
mod inspect;
mod logs;
pub mod ls;
mod package;
mod prune;
mod ps;
mod pull;
mod push;
mod requests;
mod rm;
mod run;
mod show;
mod tag;
mod unload;
mod verify;

use std::process::ExitCode;

use pontoon_daemon::Config;

use crate::config::ConfigFile;

/// Models: fetch, package, run and manage them
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "Names are those of container images: `ai/smollm2:360M-Q4_K_M` is \
docker.io/ai/smollm2:360M-Q4_K_M, `hf.co/ORG/REPOSITORY:Q4_K_M` comes from the Hugging Face hub, `localhost:5000/a/b:c` \
from a registry of your own. Without an organisation `ai/` is meant, without a tag `:latest`.";

#[derive(clap::Subcommand)]
enum Verb {
    Run(run::Arguments),
    Pull(pull::Arguments),
    Push(push::Arguments),
    Package(package::Arguments),
    #[command(alias = "list")]
    Ls(ls::Arguments),
    Inspect(inspect::Arguments),
    Rm(rm::Arguments),
    Tag(tag::Arguments),
    Export(archive::Export),
    Load(archive::Load),
    Ps(ps::Arguments),
    Show(show::Arguments),
    Configure(configure::Arguments),
    Unload(unload::Arguments),
    Logs(logs::Arguments),
    Requests(requests::Arguments),
    Df(df::Arguments),
    Prune(prune::Arguments),
    Verify(verify::Arguments),
    Bench(bench::Arguments),
}

pub fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let config = arguments.config.read()?;
    match arguments.verb {
        Verb::Pull(arguments) => pull::run(&config, arguments),
        Verb::Push(arguments) => push::run(&config, arguments),
        Verb::Package(arguments) => package::run(&config, arguments),
        Verb::Ls(arguments) => ls::run(&config, &arguments),
        Verb::Inspect(arguments) => inspect::run(&config, &arguments),
        Verb::Rm(arguments) => rm::run(&config, &arguments),
        Verb::Tag(arguments) => tag::run(&config, &arguments),
        Verb::Export(arguments) => archive::export(&config, &arguments),
        Verb::Load(arguments) => archive::load(&config, &arguments),
        Verb::Run(arguments) => run::run(&config, arguments),
        Verb::Ps(arguments) => ps::run(&config, &arguments),
        Verb::Show(arguments) => show::run(&config, &arguments),
        Verb::Configure(arguments) => configure::run(&config, &arguments),
        Verb::Unload(arguments) => unload::run(&config, &arguments),
        Verb::Logs(arguments) => logs::run(&config, &arguments),
        Verb::Requests(arguments) => requests::run(&config, &arguments),
        Verb::Df(arguments) => df::run(&config, &arguments),
        Verb::Prune(arguments) => prune::run(&config, &arguments),
        Verb::Verify(arguments) => verify::run(&config, &arguments),
        Verb::Bench(arguments) => bench::run(&config, &arguments),
    }
}

/// Progress of a transfer, on standard error.
pub fn progress() -> pontoon_models::Progress {
    bars::progress(None)
}

/// A client of registries, as the configuration wants it.
pub fn client(config: &Config) -> Result<pontoon_models::registry::Client, String> {
    pontoon_models::registry::Client::new(config.models.registry()).map_err(|error| error.to_string())
}

/// The store, for verbs that need no daemon.
fn store(config: &Config) -> Result<pontoon_models::Store, String> {
    crate::config::store(config)
}

/// A name as people write it, as a reference.
fn reference(name: &str) -> Result<pontoon_models::Reference, String> {
    pontoon_models::Reference::parse(name).map_err(|error| error.to_string())
}

/// A digest as lists show it: twelve digits.
fn short(digest: &pontoon_models::Digest) -> String {
    digest.hex()[..12].to_owned()
}
