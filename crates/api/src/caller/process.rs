//! What `/proc` says of a process: its container, its namespaces, and whether it is the operator's own.

use std::net::SocketAddr;
use std::path::Path;

use super::{Caller, tcp};

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

/// The caller at the other end of a unix socket.
pub fn caller(pid: Option<i32>, uid: u32) -> Caller {
    let Some(pid) = pid.filter(|pid| *pid > 0) else {
        // A process outside our pid namespace: a user is all that can be told.
        return Caller { id: format!("uid:{uid}").into(), description: format!("uid {uid}").into() };
    };
    let name = read(pid, "comm");
    let name = if name.trim().is_empty() { "?".into() } else { name.trim().replace(char::is_control, "?") };
    match foreign_container(&read(pid, "cgroup")) {
        Some(id) => {
            let short = &id[..12];
            let description = format!("{name} (pid {pid}, uid {uid}, container {short})");
            Caller { id: format!("container:{short}").into(), description: description.into() }
        }
        None => Caller {
            id: format!("uid:{uid}").into(),
            description: format!("{name} (pid {pid}, uid {uid})").into(),
        },
    }
}

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
fn holders(inode: u64) -> Vec<i32> {
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
    if let Some(id) = foreign_container(&read(pid, "cgroup")) {
        return Err(format!("process {pid} is in container {}", &id[..12]));
    }
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.is_empty() || CARRIERS.iter().any(|carrier| name.starts_with(carrier)) {
        return Err(format!("process {pid} ({name}) carries connections of containers or virtual machines"));
    }
    Ok(())
}

/// The container of a process, unless it is the one that pontoon itself is in.
fn foreign_container(cgroup: &str) -> Option<String> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let id = container(cgroup)?;
    (container(&own) != Some(id)).then(|| id.to_owned())
}

/// The container id in `/proc/PID/cgroup`: 64 hexadecimal digits, as podman, docker, containerd and CRI-O
/// name their groups. The outermost one counts: a container that may make groups cannot pose as another.
fn container(cgroup: &str) -> Option<&str> {
    let is_id = |text: &&str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    cgroup.split(|character: char| !character.is_ascii_alphanumeric()).find(is_id)
}

fn read(pid: i32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn container_ids_are_found_whatever_surrounds_them() {
        let id = "0123456789abcdef".repeat(4);
        for group in [
            format!("0::/machine.slice/libpod-{id}.scope/container\n"),
            format!("12:pids:/docker/{id}\n0::/\n"),
            format!("0::/kubepods/pod1/cri-containerd-{id}.scope"),
        ] {
            assert_eq!(container(&group), Some(id.as_str()), "{group}");
        }
        assert_eq!(container("0::/user.slice/user-1000.slice/session-2.scope"), None);
    }

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
