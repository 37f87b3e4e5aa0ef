//! `pontoon model bench`.

use std::process::ExitCode;

use pontoon_api::bench::{self, Options, Target};
use pontoon_daemon::Config;

use super::http::Daemon;
use crate::config::block_on;

/// Measure the model runner, beside the same engine asked directly if there is one
///
/// Both are asked in turns within one run, so that whatever else the machine does falls on both: start a
/// llama-server with the same GGUF file and name it with --against.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name or id of the model
    #[arg(value_name = "MODEL")]
    model: String,
    /// The other server: http://HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL")]
    against: Option<String>,
    /// How often each measurement is made
    #[arg(long, value_name = "COUNT", value_parser = at_least_one)]
    rounds: Option<usize>,
    /// Tokens of an answer whose speed is measured
    #[arg(long, value_name = "COUNT")]
    tokens: Option<u32>,
    /// Words of a prompt whose speed is measured
    #[arg(long, value_name = "COUNT")]
    prompt_words: Option<usize>,
    /// Words of the prefix that two callers share; 0 leaves that out
    #[arg(long, value_name = "COUNT")]
    prefix_words: Option<usize>,
    /// Idle connections that are opened; 0 leaves that out
    #[arg(long, value_name = "COUNT")]
    idle: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a whole number from 1".into())
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let parse = |text: &str| Target::parse(text).map_err(|error| error.to_string());
    let ours = parse(&format!("unix:{}", Daemon::here(config)?.socket().display()))?;
    let against = arguments.against.as_deref().map(parse).transpose()?;
    let usual = Options::new(ours, against, arguments.model.as_str());
    let options = Options {
        rounds: arguments.rounds.unwrap_or(usual.rounds),
        tokens: arguments.tokens.unwrap_or(usual.tokens),
        prompt_words: arguments.prompt_words.unwrap_or(usual.prompt_words),
        prefix_words: arguments.prefix_words.unwrap_or(usual.prefix_words),
        idle: arguments.idle.unwrap_or(usual.idle),
        ..usual
    };
    let report = block_on(async { bench::run(options).await.map_err(|error| error.to_string()) })?;
    match arguments.json {
        true => crate::print_json(&report)?,
        false => println!("{report}"),
    }
    Ok(ExitCode::SUCCESS)
}
