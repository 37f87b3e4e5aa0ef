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

/// A container and its first process.
type Known = (Container, Option<i32>);

/// Knows callers and policies.
#[derive(Debug, Default)]
pub struct Directory {
    policies: Vec<Policy>,
    engines: Vec<PathBuf>,
    remembered: Mutex<HashMap<String, (Instant, Known)>>,
}

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The API bridge.
    Bridge,
    /// The model runner.
    Models,
}

impl Way {
    fn is_open(self, policy: &Policy) -> bool {
        match self {
            Self::Bridge => policy.bridge,
            Self::Models => policy.models,
        }
    }

    /// What it gives, and the key that closes it.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Bridge => ("the GPU", "policies.bridge"),
            Self::Models => ("the model runner", "policies.models"),
        }
    }
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

    /// What a caller gets by one of the two ways in: the tenant that it counts for, and the policy that is about it.
    ///
    /// # Errors
    /// The sentence for the caller: a policy keeps it out, or the socket is not for it.
    pub fn admit(&self, facts: &Facts, way: Way) -> Result<(String, Option<Policy>), String> {
        let policy = match self.decide(facts) {
            Verdict::Everybodys => None,
            Verdict::Policy(policy) if way.is_open(policy) => Some(policy.clone()),
            Verdict::Policy(policy) => {
                let (what, key) = way.words();
                return Err(format!(
                    "the host's policy '{}' does not give {} {what} ({key})",
                    policy.name,
                    facts.describe()
                ));
            }
            Verdict::Stranger(device) => {
                return Err(format!(
                    "this is the socket of the device '{device}', and {} is not among the callers of its policy",
                    facts.describe()
                ));
            }
        };
        let tenant =
            policy.as_ref().and_then(|policy| policy.tenant.clone()).unwrap_or_else(|| facts.tenant());
        Ok((tenant, policy))
    }

    /// The process at the other end of a unix socket, `device` naming the policy whose socket it is. May ask an
    /// engine, which takes milliseconds the first time, two seconds where it hangs. None where the process has ended,
    /// for then nobody can say where it was and who else holds its socket; and where it poses as a container.
    pub fn of_process(&self, pid: Option<i32>, uid: u32, device: Option<&str>) -> Option<Facts> {
        let facts = Facts { uid: Some(uid), device: device.map(str::to_owned), ..Facts::default() };
        // No id: a process outside our pid namespace. A user is all that can be told of it.
        let Some(pid) = pid.filter(|pid| *pid > 0) else { return Some(facts) };
        let groups = process::groups(pid)?;
        let container = match process::foreign_in(&groups) {
            Some(id) => Some(self.container_of(id, &groups)?),
            None => None,
        };
        Some(Facts { pid: Some(pid), process: Some(process::name(pid)), container, ..facts })
    }

    /// The container of a process with these control groups; none where its engine says that the container is elsewhere,
    /// so that the process only poses as it.
    fn container_of(&self, id: &str, groups: &str) -> Option<Container> {
        let fits = |first: Option<i32>| first.is_none_or(|first| process::is_in(groups, id, first));
        let (container, first) = self.container(id);
        if fits(first) {
            return Some(container);
        }
        // It may have been started again since: then its first process is another.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let (container, first) = self.container(id);
        if !fits(first) {
            log::warn!("a process poses as container {}, whose processes are elsewhere", container.short());
            return None;
        }
        Some(container)
    }

    /// A caller in a container's own network, where a listener of ours is.
    pub fn of_container(&self, id: &str, device: Option<&str>) -> Facts {
        Facts {
            via: Via::Forwarded,
            container: Some(self.container(id).0),
            device: device.map(str::to_owned),
            ..Facts::default()
        }
    }

    /// What is known of a container, and its first process where its engine says it.
    fn container(&self, id: &str) -> Known {
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
            Some((container, first)) => ((container, Some(first).filter(|first| *first > 0)), KNOWN),
            None => ((Container::unknown(id), None), UNKNOWN),
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
        let facts = Directory::default().of_process(Some(own), 1000, None).unwrap();
        assert_eq!((facts.pid, facts.uid), (Some(own), Some(1000)));
        assert_ne!(facts.process.as_deref(), Some("?"));
        assert_eq!(facts.container, None, "our own container is not a caller's");
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let pid = ended.id() as i32;
        ended.wait().unwrap();
        assert_eq!(Directory::default().of_process(Some(pid), 0, None), None, "who is gone is nobody");
    }
}
