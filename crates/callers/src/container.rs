//! A container, as its engine knows it.

use serde::{Deserialize, Serialize};

/// A container. Everything but the id is what its engine says, and unknown where no engine answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Name, without a leading slash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image, as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Compose project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Compose service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

impl Container {
    /// A container of which nothing but its id is known.
    pub fn unknown(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// The first twelve digits of the id, as engines print it.
    pub fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// The container id in `/proc/PID/cgroup`: 64 hexadecimal digits, as podman, docker, containerd and CRI-O name
    /// their groups, whatever they put around them. The outermost one counts: a container that may make groups of
    /// its own cannot pose as another.
    pub fn id_in(cgroup: &str) -> Option<&str> {
        cgroup.split(|character: char| !character.is_ascii_alphanumeric()).find(|text| Self::is_id(text))
    }

    /// Whether a text has the form of a container id.
    pub fn is_id(text: &str) -> bool {
        text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

#[cfg(test)]
mod tests {
    use super::Container;

    #[test]
    fn container_ids_are_found_in_every_engines_groups() {
        let id = "0123456789abcdef".repeat(4);
        for group in [
            format!("0::/machine.slice/libpod-{id}.scope/container\n"),
            format!("12:pids:/docker/{id}\n0::/\n"),
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("0::/kubepods/besteffort/pod1/cri-containerd-{id}.scope"),
        ] {
            assert_eq!(Container::id_in(&group), Some(id.as_str()), "{group}");
        }
        assert_eq!(Container::id_in("0::/user.slice/user-1000.slice/session-2.scope"), None);
    }
}
