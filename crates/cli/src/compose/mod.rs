//! `pontoon compose`: what `docker compose` asks of a provider, and what people ask about Compose files.

mod check;
pub mod plan;
mod plugin;
mod provider;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::ConfigFile;

pub use plugin::{is_plugin, run as run_plugin};

/// Models and GPUs in Compose files
///
/// As a provider (Compose 2.36 and later), a service of the file is a model and a GPU tenant for those that depend on it:
///
///   services:
///     llm:
///       provider: { type: pontoon, options: { model: ai/smollm2 } }
///     app:
///       image: IMAGE
///       depends_on: [llm]
///       devices: [pontoon.dev/gpu=all]
///
/// `up` waits until the model is loaded, and fails with the reason. `app` gets LLM_URL, LLM_MODEL and LLM_PONTOON_HOST.
/// Installed as Docker's CLI plug-in `docker-model` (`pontoon compose install`), Pontoon answers for `models:` too.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// What Compose calls the project
    #[arg(long, hide = true)]
    project_name: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Say what each service of a Compose file will get
    Check {
        /// The file; `-` reads it from standard input, as `docker compose config` writes it
        #[arg(value_name = "FILE", default_value = "compose.yaml")]
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Become Docker's CLI plug-in `docker-model`, which Compose asks for `models:`
    Install {
        /// Also where another program is that plug-in; `uninstall` puts it back
        #[arg(long)]
        force: bool,
    },
    /// Undo `install`
    Uninstall,
    /// What Compose asks first: which options there are
    #[command(hide = true)]
    Metadata,
    /// What Compose starts for `up`
    #[command(hide = true)]
    Up {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// What Compose starts for `down`
    #[command(hide = true)]
    Down {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

pub fn run(arguments: Arguments) -> Result<ExitCode, String> {
    match arguments.verb {
        Verb::Check { file, json } => check::run(&arguments.config.read()?, &file, json),
        Verb::Install { force } => plugin::install(force),
        Verb::Uninstall => plugin::uninstall(),
        Verb::Metadata => provider::metadata(),
        Verb::Up { words } => provider::up(&arguments.config, &words),
        Verb::Down { words } => provider::down(&words),
    }
}
