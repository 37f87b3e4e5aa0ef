//! `pontoon cdi`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pontoon_daemon::cdi::{self, Written};
use pontoon_daemon::{Config, forward, paths};

use crate::config::ConfigFile;
use crate::table;

/// Devices for container engines: podman, Docker, containerd, Compose, Kubernetes
///
/// With a CDI specification in place, `podman run --device pontoon.dev/gpu=all IMAGE` gives a container the GPU and the
/// models: PONTOON_HOST for the bridge, and OPENAI_BASE_URL, ANTHROPIC_BASE_URL and OLLAMA_HOST for the model runner,
/// also with `--network none`. A policy with `device = true` in pontoon.toml is a device of its own name.
///
/// Examples:
///   pontoon cdi generate
///   podman run --rm --network none --device pontoon.dev/gpu=all IMAGE COMMAND
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Write the specification of this configuration's devices
    Generate {
        #[command(flatten)]
        host: Host,
        /// Where to [default: /etc/cdi/pontoon.json, for other users than root $XDG_CONFIG_HOME/cdi/pontoon.json];
        /// `-` prints it
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Bring the specification that is there up to date with the configuration; `pontoon serve` does so too
    Refresh {
        #[command(flatten)]
        host: Host,
        /// The specification, where it is not in a usual place
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List the devices that the configuration offers
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        host: Host,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What engines start when they create a container: not for people
    #[command(hide = true)]
    Hook {
        /// The guests' socket of the daemon
        #[arg(long)]
        socket: PathBuf,
        /// The device that the container was given
        #[arg(long)]
        device: Option<String>,
    },
}

/// What a specification is about.
#[derive(clap::Args)]
struct Host {
    /// The guests' socket, where `serve` was given one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// This program, as the engines on the host start it [default: this very file]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

impl Host {
    fn config(&self, file: &ConfigFile) -> Result<Config, String> {
        let mut config = file.read()?;
        let named = self.socket.as_ref().map(std::path::absolute).transpose();
        config.listen.socket = named.map_err(|error| error.to_string())?.or(config.listen.socket);
        Ok(config)
    }

    fn program(&self) -> Result<PathBuf, String> {
        let found = self.program.as_ref().map_or_else(std::env::current_exe, std::path::absolute);
        found.map_err(|error| format!("no path of this program: {error}"))
    }
}

pub fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let file = &arguments.config;
    match arguments.verb {
        Verb::Generate { host, output } => generate(&host.config(file)?, output, &host.program()?)?,
        Verb::Refresh { host, output } => refresh(&host.config(file)?, output, &host.program()?)?,
        Verb::Ls { host, json } => list(&host.config(file)?, json)?,
        Verb::Hook { socket, device } => {
            forward::hook(std::io::stdin(), &paths::admin_socket(&socket), device)?
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn generate(config: &Config, output: Option<PathBuf>, program: &Path) -> Result<(), String> {
    let text = cdi::text(config, program).map_err(|error| error.to_string())?;
    if output.as_deref() == Some(Path::new("-")) {
        print!("{text}");
        return Ok(());
    }
    let usual = output.is_none();
    let path = output.unwrap_or_else(|| cdi::folder().join(cdi::FILE));
    say(&path, cdi::write(&path, &text).map_err(|error| error.to_string())?);
    println!("try it: podman run --rm --device {}=all IMAGE COMMAND", pontoon_wiring::KIND);
    if usual && !rustix::process::geteuid().is_root() {
        eprintln!(
            "rootless Docker looks there; podman does if containers.conf has `cdi_spec_dirs = [\"{}\"]` under [engine]",
            cdi::folder().display()
        );
    }
    Ok(())
}

fn refresh(config: &Config, output: Option<PathBuf>, program: &Path) -> Result<(), String> {
    let places = output.map_or_else(cdi::places, |path| vec![path]);
    let written = cdi::refresh(config, program, &places).map_err(|error| error.to_string())?;
    if written.is_empty() {
        let places: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
        return Err(format!(
            "there is no specification for {} in {}: write one with `pontoon cdi generate`",
            config.socket().display(),
            places.join(" or ")
        ));
    }
    for (path, written) in written {
        say(&path, written);
    }
    Ok(())
}

fn say(path: &Path, written: Written) {
    let what = match written {
        Written::New => "written",
        Written::Replaced => "replaced",
        Written::Unchanged => "unchanged",
    };
    println!("{}: {what}", path.display());
}

fn list(config: &Config, json: bool) -> Result<(), String> {
    let devices = cdi::devices(config);
    let name = |device: &pontoon_wiring::CdiDevice| format!("{}={}", pontoon_wiring::KIND, device.name);
    if json {
        let rows: Vec<_> = devices
            .iter()
            .map(|device| {
                serde_json::json!({
                    "device": name(device), "socket": device.socket, "bridge": device.bridge, "models": device.models,
                })
            })
            .collect();
        return crate::print_json(&rows);
    }
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let row = |device: &pontoon_wiring::CdiDevice| {
        vec![name(device), yes(device.bridge), yes(device.models), device.socket.display().to_string()]
    };
    table::print(&["DEVICE", "GPU", "MODELS", "SOCKET"], &devices.iter().map(row).collect::<Vec<_>>());
    Ok(())
}
