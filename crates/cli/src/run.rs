//! `pontoon run`.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use pontoon_wiring::{Engine, GpuAccess, ImageRef, Network, RunRequest};

/// Start a container, with the use of this host's GPU if asked
///
/// Uses podman, docker or nerdctl, whichever is installed, and bubblewrap for a root file system folder
/// where none is. With --gpu the container gets the daemon's socket and PONTOON_HOST, and no device:
/// programs that take their wgpu instance from pontoon-client compute on the host, also with the
/// default --network none.
///
/// Examples:
///   pontoon run --gpu debian:12 /opt/train
///   pontoon run --gpu -v ./out:/out ./rootfs /bin/scene --out /out/scene.png
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Give the container the use of the GPU
    #[arg(long)]
    gpu: bool,
    /// Mount SRC of this host at DST in the container; `:ro` behind it makes it read-only
    #[arg(short = 'v', long = "volume", value_name = "SRC:DST[:ro]")]
    volumes: Vec<OsString>,
    /// Set a variable in the container
    #[arg(short = 'e', long = "env", value_name = "KEY=VALUE")]
    variables: Vec<OsString>,
    /// Network of the container
    #[arg(long, value_name = "none|host", default_value = "none")]
    network: Network,
    /// Container engine: podman, docker, nerdctl or bwrap [default: the first that is installed and can]
    #[arg(long)]
    engine: Option<Engine>,
    /// Working folder in the container
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Print the engine's command line instead of running it
    #[arg(long)]
    dry_run: bool,
    /// Image name, or a root file system folder (with a slash in it, or `.`)
    #[arg(value_name = "IMAGE-OR-ROOTFS")]
    image: OsString,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

pub fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let text = |error: pontoon_wiring::WiringError| error.to_string();
    let folder = std::env::current_dir().map_err(|error| format!("the working folder: {error}"))?;
    let image = pontoon_wiring::parse_image(&arguments.image, &folder).map_err(text)?;
    let mut request = RunRequest::new(image, arguments.command.clone());
    for volume in &arguments.volumes {
        request.mounts.push(pontoon_wiring::parse_mount(volume, &folder).map_err(text)?);
    }
    for variable in &arguments.variables {
        request.env.push(pontoon_wiring::parse_env(variable).map_err(text)?);
    }
    request.network = arguments.network;
    request.workdir = arguments.workdir.clone();
    request.tty = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    request.interactive = request.tty;
    let enforcing = std::fs::read_to_string("/sys/fs/selinux/enforce");
    request.selinux_enforcing = enforcing.is_ok_and(|text| text.trim() == "1");
    if arguments.gpu {
        request.gpu = Some(GpuAccess::new(running_socket()?));
    }
    let engine = match arguments.engine {
        Some(engine) => engine,
        None => pontoon_wiring::choose_engine(&installed(), &request).map_err(text)?,
    };
    let line = pontoon_wiring::command_line(engine, &request).map_err(text)?;
    if engine == Engine::Bubblewrap {
        check_mount_points(&request)?;
    }
    if arguments.dry_run {
        let words = std::iter::once(&line.program).chain(&line.args).map(|word| quote(word));
        println!("{}", words.collect::<Vec<_>>().join(" "));
        return Ok(ExitCode::SUCCESS);
    }
    let status = Command::new(&line.program).args(&line.args).status().map_err(|error| {
        format!(
            "{} cannot be started: {error}; install the package {}",
            line.program.display(),
            engine.package()
        )
    })?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// The daemon's socket, where one listens: a container without a host would only find out later.
fn running_socket() -> Result<PathBuf, String> {
    let socket = crate::local_socket()?;
    match std::os::unix::net::UnixStream::connect(&socket) {
        Ok(_) => match socket.parent().and_then(pontoon_daemon::paths::other_file) {
            Some(other) => Err(format!(
                "{} lies beside the guests' socket, and the container would see it: give the socket a folder of its own (listen.socket)",
                other.display()
            )),
            None => std::path::absolute(&socket).map_err(|error| error.to_string()),
        },
        Err(error) => Err(format!(
            "no Pontoon daemon listens on {}: {error}; start one with `pontoon serve`",
            socket.display()
        )),
    }
}

fn installed() -> Vec<Engine> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |engine: &Engine| std::env::split_paths(&path).any(|folder| folder.join(engine.program()).is_file());
    Engine::ALL.iter().copied().filter(is_there).collect()
}

/// bubblewrap cannot create mount points in a read-only root, and says so in its own words only.
fn check_mount_points(request: &RunRequest) -> Result<(), String> {
    let ImageRef::RootFs(root) = &request.image else { return Ok(()) };
    for point in pontoon_wiring::mount_points(request) {
        let inside = root.join(point.strip_prefix("/").unwrap_or(Path::new("")));
        if !inside.exists() {
            return Err(format!(
                "{} does not exist in {}, and bubblewrap mounts the root read-only: create it first (mkdir -p {})",
                point.display(),
                root.display(),
                inside.display()
            ));
        }
    }
    Ok(())
}

/// A word as a shell reads it.
fn quote(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./=:,@%+".contains(character);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
