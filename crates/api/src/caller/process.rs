//! What `/proc` says of a process: its container, its namespaces, and whether it is the operator's own.

use std::net::SocketAddr;
use std::path::Path;

use super::tcp;

/// Programs that carry connections of guests into the host's loopback. Whoever they are run by, what
/// arrives through them is not the operator's.
const CARRIERS: [&str; 12] = [
    "slirp4netns",
    "pasta",
    "passt",
    "gvproxy",
    "vpnkit",
    "rootlesskit",
    "rootlessport",
    "docker-proxy",
    "qemu-system-",
    "qemu-kvm",
    "vhost-user-vsock",
    "vhost-device-vsock",
];

/// Whether the process behind a loopback connection is the operator's own, outside any container.
///
/// # Errors
/// The sentence for the caller.
pub fn may_manage(ours: SocketAddr, theirs: SocketAddr) -> Result<(), String> {
    let way_out = "manage models with `pontoon model` or on the admin socket";
    let owner = tcp::owner(ours, theirs).ok_or_else(|| {
        format!("the process behind this connection cannot be found on this host; {way_out}")
    })?;
    let uid = rustix::process::geteuid().as_raw();
    if owner.uid != uid {
        let theirs = owner.uid;
        return Err(format!(
            "managing models is for user {uid}, who runs pontoon; you are user {theirs}; {way_out}"
        ));
    }
    let holders = holders(owner.inode);
    if holders.is_empty() {
        return Err(format!("the process behind this connection cannot be seen by pontoon; {way_out}"));
    }
    for pid in holders {
        operators_own(pid).map_err(|why| format!("managing models is refused: {why}; {way_out}"))?;
    }
    Ok(())
}

/// The processes that hold a socket.
pub fn holders(inode: u64) -> Vec<i32> {
    let wanted = format!("socket:[{inode}]");
    let holds = |pid: &i32| {
        let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&wanted)))
    };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(holds).collect()
}

/// Whether a process shares our namespaces and container, and speaks for itself.
fn operators_own(pid: i32) -> Result<(), String> {
    for kind in ["mnt", "pid", "net", "user"] {
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
        let (theirs, ours) = (namespace(&pid.to_string()), namespace("self"));
        if theirs.is_none() || theirs != ours {
            return Err(format!("process {pid} is in a container ({kind} namespace of its own)"));
        }
    }
    if let Some(id) = pontoon_callers::foreign_container(pid) {
        return Err(format!("process {pid} is in container {}", &id[..12]));
    }
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.is_empty() || CARRIERS.iter().any(|carrier| name.starts_with(carrier)) {
        return Err(format!("process {pid} ({name}) carries connections of containers or virtual machines"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn our_own_connection_may_manage() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, theirs) = listener.accept().unwrap();
        may_manage(server.local_addr().unwrap(), theirs).unwrap();
        drop(client);
        let gone = "127.0.0.1:9".parse().unwrap();
        assert!(may_manage(server.local_addr().unwrap(), gone).unwrap_err().contains("cannot be found"));
    }
}
