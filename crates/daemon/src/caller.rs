//! Who is calling, as far as the transport can say.

use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Whom limits count for: `uid:1000`, `container:3f2a…`, or the name that goes with a token.
    pub tenant: String,
    /// What people read: process, user, container or address.
    pub description: String,
}

impl Caller {
    /// The process at the other end of a unix socket (`SO_PEERCRED`), and its container if it is in one.
    ///
    /// # Errors
    /// What the system said.
    pub fn of_unix(socket: &UnixStream) -> std::io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        let (pid, uid) = (credentials.pid.as_raw_nonzero().get(), credentials.uid.as_raw());
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let name = read("comm");
        let name =
            if name.trim().is_empty() { "?".into() } else { name.trim().replace(char::is_control, "?") };
        Ok(match container(&read("cgroup")) {
            Some(id) => {
                let short = &id[..12];
                Self {
                    tenant: format!("container:{short}"),
                    description: format!("{name} (pid {pid}, uid {uid}, container {short})"),
                }
            }
            None => {
                Self { tenant: format!("uid:{uid}"), description: format!("{name} (pid {pid}, uid {uid})") }
            }
        })
    }
}

/// The container id in `/proc/PID/cgroup`: 64 hexadecimal digits, as podman, docker, containerd and
/// CRI-O name their groups, whatever they put around them. The outermost one counts: a container that may
/// make groups of its own cannot pose as another.
fn container(cgroup: &str) -> Option<&str> {
    let is_id = |text: &&str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    cgroup.split(|character: char| !character.is_ascii_alphanumeric()).find(is_id)
}

#[cfg(test)]
mod tests {
    use super::container;

    #[test]
    fn container_ids_are_found_in_every_engines_groups() {
        let id = "0123456789abcdef".repeat(4);
        for group in [
            format!("0::/machine.slice/libpod-{id}.scope/container\n"),
            format!("12:pids:/docker/{id}\n0::/\n"),
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("0::/kubepods/besteffort/pod1/cri-containerd-{id}.scope"),
        ] {
            assert_eq!(container(&group), Some(id.as_str()), "{group}");
        }
        assert_eq!(container("0::/user.slice/user-1000.slice/session-2.scope"), None);
    }
}
