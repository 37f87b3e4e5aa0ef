//! `pontoon serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use pontoon_daemon::config::{Backend, Config, Token};

use crate::config::ConfigFile;

/// Serve this host's GPU to guests, until interrupted
///
/// Guests connect to a unix socket that lies alone in its folder; mount that folder into a container, or
/// let `pontoon run --gpu` do it. Each guest gets a worker process of its own, confined by Landlock and
/// seccomp. Limits are in the configuration file; docs/configuration.md explains every key.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// The guests' socket [default: $XDG_RUNTIME_DIR/pontoon/guest/pontoon.sock, for root /run/pontoon/guest/pontoon.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Listen on TCP too (host:port); needs a token
    #[arg(long, value_name = "ADDRESS")]
    tcp: Option<String>,
    /// File that holds a bearer token for TCP, for the tenant `default`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Offer only adapters whose name contains TEXT
    #[arg(long, value_name = "TEXT")]
    adapter: Option<String>,
    /// End when standard input closes: for programs that start a daemon of their own
    #[arg(long)]
    until_stdin_closes: bool,
    /// Execute nothing, only validate: for tests of the protocol
    #[arg(long, hide = true)]
    noop: bool,
}

fn config(arguments: &Arguments) -> Result<Config, String> {
    let mut config = arguments.config.read()?;
    if let Some(file) = &arguments.token_file {
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("--token-file {}: {error}", file.display()))?;
        config.listen.tokens.push(Token { tenant: "default".into(), token: text.trim().to_owned() });
    }
    config.listen.socket = arguments.socket.clone().or(config.listen.socket);
    config.listen.tcp = arguments.tcp.clone().or(config.listen.tcp);
    config.gpu.adapter = arguments.adapter.clone().or(config.gpu.adapter);
    if arguments.noop {
        config.gpu.backend = Backend::Noop;
    }
    Ok(config)
}

/// Asks this process to end, as an interrupt would, once standard input is at its end.
fn end_with_stdin() -> Result<(), String> {
    let watch = || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    };
    std::thread::Builder::new().name("stdin".into()).spawn(watch).map_err(|error| error.to_string())?;
    Ok(())
}

pub fn run(arguments: Arguments) -> Result<ExitCode, String> {
    pontoon_daemon::logging::start("");
    let config = config(&arguments)?;
    if arguments.until_stdin_closes {
        end_with_stdin()?;
    }
    pontoon_daemon::serve::run(&config).map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}
