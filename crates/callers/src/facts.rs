//! What is known of one caller.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::Container;

/// How a caller came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A unix socket of this host.
    #[default]
    Unix,
    /// A listener of ours in the container's own network.
    Forwarded,
    /// A virtual machine's vsock; its context id.
    Vsock(u32),
    /// TCP, from here.
    Tcp(SocketAddr),
}

/// What is known of one caller, none of it from its own mouth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// How it came.
    pub via: Via,
    /// Its process, where that is one of this host's.
    pub pid: Option<i32>,
    /// The process's name.
    pub process: Option<String>,
    /// The process's user.
    pub uid: Option<u32>,
    /// The container that the process is in.
    pub container: Option<Container>,
    /// The tenant of the token that it presented.
    pub token: Option<String>,
    /// The policy by whose own socket it came.
    pub device: Option<String>,
}

impl Facts {
    /// Whom limits count for where no policy names a tenant: the token's, the container, the virtual machine, or the
    /// user.
    pub fn tenant(&self) -> String {
        match (&self.token, &self.container, &self.via, self.uid) {
            (Some(token), ..) => token.clone(),
            (_, Some(container), ..) => format!("container:{}", container.short()),
            (_, _, Via::Vsock(cid), _) => format!("vm:{cid}"),
            (_, _, _, Some(uid)) => format!("uid:{uid}"),
            (_, _, Via::Tcp(address), _) if address.ip().is_loopback() => "loopback".to_owned(),
            (_, _, Via::Tcp(address), _) => format!("remote:{}", address.ip()),
            _ => "unknown".to_owned(),
        }
    }

    /// For people: `train (pid 17, uid 0, container 3f2a… web of acme/train, service trainer of project ml)`.
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.pid.map(|pid| format!("pid {pid}")));
        parts.extend(self.uid.map(|uid| format!("uid {uid}")));
        parts.extend(self.container.as_ref().map(describe_container));
        match &self.via {
            Via::Vsock(cid) => parts.push(format!("virtual machine {cid}")),
            Via::Tcp(address) => parts.push(format!("from {address}")),
            Via::Unix | Via::Forwarded => {}
        }
        let name = self.process.clone().or_else(|| self.token.clone()).unwrap_or_else(|| self.tenant());
        match parts.is_empty() {
            true => name,
            false => format!("{name} ({})", parts.join(", ")),
        }
    }
}

fn describe_container(container: &Container) -> String {
    let printable = |text: &str| text.replace(char::is_control, "?");
    let mut text = format!("container {}", container.short());
    if let Some(name) = &container.name {
        let _ = write!(text, " {}", printable(name));
    }
    if let Some(image) = &container.image {
        let _ = write!(text, " of {}", printable(image));
    }
    if let (Some(project), Some(service)) = (&container.project, &container.service) {
        let _ = write!(text, ", service {} of project {}", printable(service), printable(project));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_apart_and_described() {
        let container = Container {
            id: "3f2a".repeat(16),
            name: Some("web".into()),
            image: Some("acme/train".into()),
            project: Some("ml".into()),
            service: Some("trainer".into()),
        };
        let mut facts = Facts {
            pid: Some(17),
            process: Some("train".into()),
            uid: Some(0),
            container: Some(container),
            ..Facts::default()
        };
        assert_eq!(facts.tenant(), "container:3f2a3f2a3f2a");
        assert_eq!(
            facts.describe(),
            "train (pid 17, uid 0, container 3f2a3f2a3f2a web of acme/train, service trainer of project ml)"
        );
        facts.container = None;
        assert_eq!(facts.tenant(), "uid:0");
        let remote = Facts {
            via: Via::Tcp("10.0.0.7:99".parse().unwrap()),
            token: Some("farm".into()),
            ..Facts::default()
        };
        assert_eq!(
            (remote.tenant().as_str(), remote.describe().as_str()),
            ("farm", "farm (from 10.0.0.7:99)")
        );
        assert_eq!(Facts { via: Via::Vsock(4), ..Facts::default() }.describe(), "vm:4 (virtual machine 4)");
    }
}
