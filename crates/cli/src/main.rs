//! `pontoon`: the command line. One file per verb; what they do is in the crates below.

mod bench;
mod cdi;
mod compose;
mod config;
mod doctor;
mod engine;
mod gpu;
mod model;
mod passed;
mod ps;
mod run;
mod serve;
mod table;
mod token;
mod vfio;
mod vm;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Give containers, virtual machines and other machines the use of this host's GPU, without handing
/// them the device.
///
/// Start with `pontoon serve` in one terminal. In another, `pontoon gpu list` shows what is offered,
/// and `pontoon run --gpu IMAGE COMMAND` starts a container whose wgpu programs compute on this host's GPU.
#[derive(Parser)]
#[command(name = "pontoon", version, propagate_version = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "Exit codes: 0 success; 1 failure, with one sentence on standard error; 2 wrong usage; \
`run` passes on the exit code of the command in the container.

Environment: PONTOON_HOST (where the host listens: unix:PATH, tcp:HOST:PORT, vsock:CID:PORT, or a ticket of `pontoon token create`), PONTOON_TOKEN (bearer token for TCP), \
PONTOON_LOG (error, warn, info, debug or trace).";

#[derive(Subcommand)]
enum Verb {
    Serve(serve::Arguments),
    /// The host's GPUs
    #[command(subcommand)]
    Gpu(gpu::Verb),
    Model(model::Arguments),
    Engine(engine::Arguments),
    Ps(ps::Arguments),
    /// Measure this host, natively and through Pontoon
    #[command(subcommand)]
    Bench(bench::Verb),
    Run(run::Arguments),
    Cdi(cdi::Arguments),
    Token(token::Arguments),
    Compose(compose::Arguments),
    /// Virtual machines
    #[command(subcommand)]
    Vm(vm::Verb),
    /// Whole PCI devices for virtual machines, and back
    #[command(subcommand)]
    Vfio(vfio::Verb),
    #[command(subcommand)]
    Sriov(vfio::Sriov),
    #[command(subcommand)]
    Mdev(vfio::Mdev),
    Doctor(doctor::Arguments),
    /// What `serve` starts: not for people
    #[command(subcommand, hide = true)]
    Worker(worker::Verb),
}

/// Makes a failure to write what a verb prints a sentence. The standard library panics there. Whoever closes a pipe
/// has read enough, and hears nothing.
fn say_where_output_fails() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        match said.strip_prefix("failed printing to stdout: ") {
            Some(why) if why.contains("Broken pipe") => std::process::exit(1),
            Some(why) => {
                eprintln!("pontoon: the output cannot be written: {why}");
                std::process::exit(1);
            }
            None => usual(panic),
        }
    }));
}

/// What others wrote, without what would move a terminal's cursor or colour it.
fn for_a_terminal(text: &str) -> String {
    let shown = |character: char| match character {
        '\n' | '\t' => character.to_string(),
        control if control.is_control() => control.escape_default().to_string(),
        other => other.to_string(),
    };
    text.chars().map(shown).collect()
}

fn main() -> ExitCode {
    say_where_output_fails();
    let words: Vec<_> = std::env::args_os().collect();
    let result = match words.first().is_some_and(|program| compose::is_plugin(program)) {
        true => compose::run_plugin(words),
        false => run(Arguments::parse()),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("pontoon: {}", for_a_terminal(&message));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, String> {
    match arguments.verb {
        Verb::Serve(arguments) => serve::run(arguments),
        Verb::Gpu(verb) => gpu::run(&verb),
        Verb::Engine(arguments) => engine::run(arguments),
        Verb::Model(arguments) => model::run(arguments),
        Verb::Ps(arguments) => ps::run(&arguments),
        Verb::Bench(verb) => bench::run(&verb),
        Verb::Run(arguments) => run::run(arguments),
        Verb::Cdi(arguments) => cdi::run(arguments),
        Verb::Token(arguments) => token::run(arguments),
        Verb::Compose(arguments) => compose::run(arguments),
        Verb::Vm(verb) => vm::run(&verb),
        Verb::Vfio(verb) => vfio::run(&verb),
        Verb::Sriov(verb) => vfio::sriov(&verb),
        Verb::Mdev(verb) => vfio::mdev(&verb),
        Verb::Doctor(arguments) => doctor::run(&arguments),
        Verb::Worker(verb) => worker::run(verb),
    }
}

/// Prints a value as one line of JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), String> {
    println!("{}", serde_json::to_string(value).map_err(|error| error.to_string())?);
    Ok(())
}

/// The guests' socket that `PONTOON_HOST` or the configuration names, or the usual one; management is only on this
/// machine.
fn local_socket() -> Result<std::path::PathBuf, String> {
    match std::env::var("PONTOON_HOST").ok().filter(|host| !host.is_empty()) {
        None => config::socket(),
        Some(host) => match host.parse() {
            Ok(pontoon_transport::Endpoint::Unix(path)) => Ok(path),
            // Shown without a ticket's secret.
            Ok(other) => Err(format!(
                "PONTOON_HOST is {other}: this verb asks the daemon on this machine, over unix:PATH"
            )),
            Err(error) => Err(format!("PONTOON_HOST: {error}")),
        },
    }
}
