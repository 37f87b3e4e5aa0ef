//! Container-engine command lines as pure text: this crate decides what to run and runs nothing.
//!
//! A [`RunRequest`] says what a guest needs; [`choose_engine`] picks an engine from those that the
//! caller found; [`command_line`] writes the line. No function here reads a file, a clock, the
//! environment or the current folder, so every line can be asserted in a test, argument by argument.
//!
//! What each line guarantees, whatever the engine:
//!
//! * no GPU device node is passed in: the guest's way to the GPU is a unix socket and nothing else;
//! * no network unless [`Network::Host`] is asked for;
//! * a root file system given as a folder is left as it was: podman runs it below a throw-away
//!   overlay, bubblewrap mounts it read-only;
//! * the folder that holds the daemon's guest socket is mounted read-only. The folder and not the
//!   socket, because a restarted daemon makes a new socket and a mount of the old one would stay
//!   dead; read-only, because connecting needs no more.

mod bubblewrap;
mod cdi;
mod engine;
mod error;
mod oci;
mod parse;
mod request;
mod vm;

use std::ffi::OsString;

pub use bubblewrap::mount_points;
pub use cdi::{ALL, CdiCommon, CdiDevice, KIND, MODELS_PORT, cdi_spec};
pub use engine::{Engine, choose_engine};
pub use error::WiringError;
pub use parse::{parse_env, parse_image, parse_mount};
pub use request::{EnvVar, GpuAccess, ImageRef, Mount, Network, RunRequest};
pub use vm::{Lines, Machine, Monitor, vm_lines};

/// A program and its arguments, ready to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    pub program: OsString,
    pub args: Vec<OsString>,
}

/// The line that makes `engine` run `request`.
pub fn command_line(engine: Engine, request: &RunRequest) -> Result<CommandLine, WiringError> {
    if !engine.can_run(&request.image) {
        return Err(WiringError::EngineCannotRun {
            engine,
            image: request.image.to_string(),
            kind: request.image.kind(),
            able: Engine::able_to_run(&request.image),
        });
    }
    request.check()?;
    let args = match engine {
        Engine::Bubblewrap => bubblewrap::args(request)?,
        Engine::Podman | Engine::Docker | Engine::Nerdctl => oci::args(request)?,
    };
    Ok(CommandLine { program: engine.program().into(), args })
}
