//! Which engines there are, what each can run, and which one serves a request.

use std::{fmt, str::FromStr};

use crate::{
    error::WiringError,
    request::{ImageRef, RunRequest},
};

/// A program that starts containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    Podman,
    Docker,
    Nerdctl,
    /// Runs folders only; needs no daemon, no storage and, where the kernel allows user
    /// namespaces, no privilege.
    Bubblewrap,
}

impl Engine {
    /// In the order of preference.
    pub const ALL: [Engine; 4] = [Engine::Podman, Engine::Docker, Engine::Nerdctl, Engine::Bubblewrap];

    /// The executable to look for on `PATH`; also the name that `--engine` takes.
    pub fn program(self) -> &'static str {
        match self {
            Engine::Podman => "podman",
            Engine::Docker => "docker",
            Engine::Nerdctl => "nerdctl",
            Engine::Bubblewrap => "bwrap",
        }
    }

    /// What to install to have it.
    pub fn package(self) -> &'static str {
        match self {
            Engine::Podman => "podman",
            Engine::Docker => "docker.io",
            Engine::Nerdctl => "nerdctl",
            Engine::Bubblewrap => "bubblewrap",
        }
    }

    pub(crate) fn can_run(self, image: &ImageRef) -> bool {
        Engine::able_to_run(image).contains(&self)
    }

    /// In the order of preference, never empty. `nerdctl --rootfs` is left out because it writes
    /// into the folder that it runs.
    pub(crate) fn able_to_run(image: &ImageRef) -> &'static [Engine] {
        match image {
            ImageRef::Name(_) => &[Engine::Podman, Engine::Docker, Engine::Nerdctl],
            ImageRef::RootFs(_) => &[Engine::Podman, Engine::Bubblewrap],
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

impl FromStr for Engine {
    type Err = WiringError;

    fn from_str(name: &str) -> Result<Self, WiringError> {
        match name {
            "podman" => Ok(Engine::Podman),
            "docker" => Ok(Engine::Docker),
            "nerdctl" => Ok(Engine::Nerdctl),
            "bwrap" | "bubblewrap" => Ok(Engine::Bubblewrap),
            _ => Err(WiringError::Unknown {
                what: "engine",
                value: name.to_owned(),
                choices: "podman, docker, nerdctl or bwrap",
            }),
        }
    }
}

/// The engine for `request` among those that the caller `found`, or a sentence that says what was
/// found and what to install.
pub fn choose_engine(found: &[Engine], request: &RunRequest) -> Result<Engine, WiringError> {
    let able = Engine::able_to_run(&request.image);
    able.iter().copied().find(|engine| found.contains(engine)).ok_or_else(|| WiringError::NoEngine {
        image: request.image.to_string(),
        kind: request.image.kind(),
        found: found.to_vec(),
        able,
    })
}

/// `podman, docker`, or `none`.
pub(crate) fn names(engines: &[Engine]) -> String {
    if engines.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<_> = engines.iter().map(|engine| engine.program()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> RunRequest {
        RunRequest::new(ImageRef::Name("debian:12".into()), ["true"])
    }

    fn folder() -> RunRequest {
        RunRequest::new(ImageRef::RootFs("/srv/rootfs".into()), ["true"])
    }

    #[test]
    fn prefers_podman_for_both_kinds() {
        assert_eq!(choose_engine(&Engine::ALL, &image()), Ok(Engine::Podman));
        assert_eq!(choose_engine(&Engine::ALL, &folder()), Ok(Engine::Podman));
    }

    #[test]
    fn a_folder_without_podman_goes_to_bubblewrap() {
        let found = [Engine::Docker, Engine::Bubblewrap];
        assert_eq!(choose_engine(&found, &folder()), Ok(Engine::Bubblewrap));
        assert_eq!(choose_engine(&found, &image()), Ok(Engine::Docker));
    }

    #[test]
    fn says_what_was_found_and_what_to_install() {
        let error = choose_engine(&[Engine::Bubblewrap], &image()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no container engine here can run the image 'debian:12': found bwrap, needed one of \
             podman, docker, nerdctl; install podman"
        );
        let error = choose_engine(&[], &folder()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no container engine here can run the root file system '/srv/rootfs': found none, \
             needed one of podman, bwrap; install podman"
        );
    }

    #[test]
    fn names_round_trip() {
        for engine in Engine::ALL {
            assert_eq!(engine.program().parse(), Ok(engine));
        }
        assert_eq!(
            "lxc".parse::<Engine>().unwrap_err().to_string(),
            "unknown engine 'lxc': choose podman, docker, nerdctl or bwrap"
        );
    }
}
