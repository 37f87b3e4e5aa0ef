//! What can be wrong with a request, as sentences that name the value and the way out.

use crate::engine::{Engine, names};

/// Why no command line can be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WiringError {
    #[error("mount '{value}': {reason} (write SOURCE:TARGET or SOURCE:TARGET:ro)")]
    Mount { value: String, reason: &'static str },

    #[error("environment '{value}': {reason} (write NAME=VALUE)")]
    Env { value: String, reason: &'static str },

    #[error("image '{value}': {reason}")]
    Image { value: String, reason: &'static str },

    #[error("{what} '{value}': {reason}")]
    Path { what: &'static str, value: String, reason: &'static str },

    #[error("unknown {what} '{value}': choose {choices}")]
    Unknown { what: &'static str, value: String, choices: &'static str },

    #[error("no command given: say what to run in '{image}'")]
    NoCommand { image: String },

    #[error("two mounts have the target '{target}'")]
    SameTarget { target: String },

    #[error("the mount on '{target}' would cover the GPU socket in '{guest_folder}'")]
    CoversSocket { target: String, guest_folder: String },

    #[error(
        "an argument holds a NUL byte, which no command line can carry: '{}'",
        .value.escape_debug()
    )]
    Nul { value: String },

    #[error(
        "{engine} cannot run the {kind} '{image}': choose one of {}",
        names(.able)
    )]
    EngineCannotRun { engine: Engine, image: String, kind: &'static str, able: &'static [Engine] },

    #[error(
        "no container engine here can run the {kind} '{image}': found {}, needed one of {}; install {}",
        names(.found),
        names(.able),
        .able[0].package()
    )]
    NoEngine { image: String, kind: &'static str, found: Vec<Engine>, able: &'static [Engine] },
}
