//! The ports that the daemon serves in containers' networks, remembered for the daemon that is started after it: the
//! containers go on meanwhile.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::forward::Forward;

/// A port, and how its container's first process is known again: numbers of processes are given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Port {
    forward: Forward,
    /// When the process began, in ticks since the system did.
    began: u64,
}

/// All of them, in a file beside the admin socket: it ends with the system, as the containers do.
#[derive(Debug)]
pub struct Ports {
    path: PathBuf,
    ports: Mutex<Vec<Port>>,
}

/// When a process began, in ticks since the system did (`proc_pid_stat(5)`, field 22).
pub fn began(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

impl Ports {
    /// The file in the folder of the admin socket, and what in it still holds.
    pub fn beside(admin_socket: &Path) -> (Self, Vec<Forward>) {
        let name = admin_socket.file_stem().unwrap_or_default().to_string_lossy();
        let path = admin_socket.with_file_name(format!("{name}-ports.json"));
        let text = std::fs::read(&path).unwrap_or_default();
        let mut ports: Vec<Port> = serde_json::from_slice(&text).unwrap_or_default();
        ports.retain(|port| began(port.forward.pid) == Some(port.began));
        let forwards = ports.into_iter().map(|port| port.forward).collect();
        (Self { path, ports: Mutex::default() }, forwards)
    }

    /// Remembers a port.
    pub fn add(&self, forward: &Forward) {
        let Some(began) = began(forward.pid) else { return };
        self.change(|ports| {
            ports.retain(|port| port.forward.pid != forward.pid);
            ports.push(Port { forward: forward.clone(), began });
        });
    }

    /// Forgets the ports of a process.
    pub fn remove(&self, pid: i32) {
        self.change(|ports| ports.retain(|port| port.forward.pid != pid));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Port>)) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut ports);
        if let Err(error) = self.write(&ports) {
            log::warn!(
                "{}: {error}; a daemon that is started next will not serve containers' ports",
                self.path.display()
            );
        }
    }

    fn write(&self, ports: &[Port]) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        let mut options = std::fs::File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(ports)?)?;
        std::fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_remembered_while_their_processes_live() {
        let folder = std::env::temp_dir().join(format!("pontoon-ports-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("pontoon.sock");
        let (ports, none) = Ports::beside(&socket);
        assert!(none.is_empty());
        let forward = |pid| Forward { container: "a".repeat(64), pid, device: None };
        let own = forward(std::process::id() as i32);
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        ports.add(&own);
        ports.add(&forward(other.id() as i32));
        assert_eq!(Ports::beside(&socket).1, [own.clone(), forward(other.id() as i32)]);
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(Ports::beside(&socket).1, std::slice::from_ref(&own), "what has ended is left out");
        ports.remove(own.pid);
        assert!(Ports::beside(&socket).1.is_empty());
        std::fs::write(folder.join("pontoon-ports.json"), b"nonsense").unwrap();
        assert!(Ports::beside(&socket).1.is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
