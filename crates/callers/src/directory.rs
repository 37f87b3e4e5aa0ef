//! Finds out who is calling, and remembers what engines said of containers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{Container, Facts, Policy, Verdict, Via, decide, engine, process};

/// How long an engine's word holds: containers can be renamed.
const KNOWN: Duration = Duration::from_secs(300);
/// How long an engine that knew nothing is not asked again.
const UNKNOWN: Duration = Duration::from_secs(2);
/// Containers that are remembered.
const MAX_REMEMBERED: usize = 4096;

/// `[callers]` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallersConfig {
    /// Sockets of container engines that are asked for a container's name, image and Compose service; by default
    /// docker's and podman's, of the system and of the daemon's user.
    pub engines: Option<Vec<PathBuf>>,
}

impl CallersConfig {
    fn sockets(&self) -> Vec<PathBuf> {
        if let Some(named) = &self.engines {
            return named.clone();
        }
        let mut sockets: Vec<PathBuf> =
            ["/run/podman/podman.sock", "/var/run/docker.sock"].iter().map(PathBuf::from).collect();
        if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
            let folder = Path::new(&folder);
            sockets.extend([folder.join("podman/podman.sock"), folder.join("docker.sock")]);
        }
        sockets
    }
}

/// Knows callers and policies.
#[derive(Debug, Default)]
pub struct Directory {
    policies: Vec<Policy>,
    engines: Vec<PathBuf>,
    remembered: Mutex<HashMap<String, (Instant, Container)>>,
}

impl Directory {
    /// A directory with these policies.
    pub fn new(config: &CallersConfig, policies: Vec<Policy>) -> Self {
        Self { policies, engines: config.sockets(), remembered: Mutex::default() }
    }

    /// The policies.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// What the policies say to a caller.
    pub fn decide<'a>(&'a self, facts: &'a Facts) -> Verdict<'a> {
        decide(&self.policies, facts)
    }

    /// The process at the other end of a unix socket, `device` naming the policy whose socket it is. May ask an
    /// engine, which takes milliseconds the first time, two seconds where it hangs.
    pub fn of_process(&self, pid: Option<i32>, uid: u32, device: Option<&str>) -> Facts {
        // No id: a process outside our pid namespace. A user is all that can be told of it.
        let pid = pid.filter(|pid| *pid > 0);
        Facts {
            via: Via::Unix,
            pid,
            process: pid.map(process::name),
            uid: Some(uid),
            container: pid.and_then(process::foreign_container).map(|id| self.container(&id)),
            token: None,
            device: device.map(str::to_owned),
        }
    }

    /// A caller in a container's own network, where a listener of ours is.
    pub fn of_container(&self, id: &str, device: Option<&str>) -> Facts {
        Facts {
            via: Via::Forwarded,
            container: Some(self.container(id)),
            device: device.map(str::to_owned),
            ..Facts::default()
        }
    }

    fn container(&self, id: &str) -> Container {
        let now = Instant::now();
        {
            let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((until, container)) = remembered.get(id)
                && *until > now
            {
                return container.clone();
            }
        }
        let found =
            self.engines.iter().filter(|socket| socket.exists()).find_map(|one| engine::inspect(one, id));
        let (container, holds) = match found {
            Some(container) => (container, KNOWN),
            None => (Container::unknown(id), UNKNOWN),
        };
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, (until, _)| *until > now);
        }
        if remembered.len() < MAX_REMEMBERED {
            remembered.insert(id.to_owned(), (Instant::now() + holds, container.clone()));
        }
        container
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let facts = Directory::default().of_process(Some(own), 1000, None);
        assert_eq!((facts.pid, facts.uid), (Some(own), Some(1000)));
        assert_ne!(facts.process.as_deref(), Some("?"));
        assert_eq!(facts.container, None, "our own container is not a caller's");
    }
}
