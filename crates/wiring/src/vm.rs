//! What to write where, so that a virtual machine that somebody else starts reaches this host: lines for its monitor,
//! for `pontoon.toml`, and for the guest.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::WiringError;
use crate::request::path_error;

/// A monitor of virtual machines, or a program that starts one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Monitor {
    /// QEMU with the kernel's `vhost-vsock` (Linux).
    Qemu,
    /// QEMU with `vhost-device-vsock`, which needs nothing of the kernel.
    QemuUser,
    /// cloud-hypervisor.
    CloudHypervisor,
    /// Firecracker.
    Firecracker,
    /// krunkit and vfkit, whose command lines agree here (macOS).
    Vfkit,
    /// A program of one's own on libkrun.
    Libkrun,
    /// Lima, which has no vsock to configure: TLS to the host's loopback.
    Lima,
}

impl Monitor {
    /// All of them, as they are named on the command line.
    pub const ALL: [(&'static str, Monitor); 8] = [
        ("qemu", Self::Qemu),
        ("qemu-user", Self::QemuUser),
        ("cloud-hypervisor", Self::CloudHypervisor),
        ("firecracker", Self::Firecracker),
        ("krunkit", Self::Vfkit),
        ("vfkit", Self::Vfkit),
        ("libkrun", Self::Libkrun),
        ("lima", Self::Lima),
    ];
}

impl FromStr for Monitor {
    type Err = WiringError;

    fn from_str(name: &str) -> Result<Self, WiringError> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, monitor)| *monitor);
        found.ok_or_else(|| WiringError::Unknown {
            what: "monitor",
            value: name.to_owned(),
            choices: "qemu, qemu-user, cloud-hypervisor, firecracker, krunkit, vfkit, libkrun or lima",
        })
    }
}

/// A machine that is to reach this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its vsock context id; 3 or more.
    pub cid: u32,
    /// The unix socket by which its monitor offers its vsock, where it does; a port is appended.
    pub uds: PathBuf,
    /// The port that the guest dials.
    pub port: u32,
    /// A file for memory that it shares with this host; QEMU makes it.
    pub memory: Option<PathBuf>,
}

/// Bytes of such memory, in QEMU's words.
const MEMORY: &str = "256M";

/// What to write where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// For the monitor: options or configuration, a line each.
    pub monitor: Vec<String>,
    /// For `pontoon.toml`.
    pub host: Vec<String>,
    /// For the guest's environment.
    pub guest: Vec<String>,
}

/// The lines for a machine.
///
/// # Errors
/// [`WiringError::Path`] for a path that no monitor's line can carry, or for shared memory with a monitor that has none
/// for us.
pub fn vm_lines(monitor: Monitor, machine: &Machine) -> Result<Lines, WiringError> {
    let Machine { cid, port, .. } = machine;
    let uds = plain("vsock socket", &machine.uds)?;
    let kernel = vec!["[listen]".to_owned(), format!("vsock = {port}")];
    let by_socket = vec![format!("[[listen.vms]]\ncid = {cid}\nuds = \"{uds}\"\nport = {port}")];
    let guest = vec![format!("PONTOON_HOST=vsock:2:{port}")];
    let memory = machine.memory.as_deref().map(|path| plain("shared memory", path)).transpose()?;
    if let (Some(_), true, Some(path)) = (memory, monitor != Monitor::QemuUser, &machine.memory) {
        let why = "shared memory is for qemu-user alone: other monitors' machines do without";
        return Err(path_error("shared memory", path, why));
    }
    Ok(match monitor {
        Monitor::Qemu => {
            Lines { monitor: vec![format!("-device vhost-vsock-pci,guest-cid={cid}")], host: kernel, guest }
        }
        Monitor::QemuUser => Lines {
            monitor: [
                format!("vhost-device-vsock --guest-cid {cid} --socket {uds}.vhost --uds-path {uds} &"),
                "-object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem".to_owned(),
                format!("-chardev socket,id=pontoon,path={uds}.vhost -device vhost-user-vsock-pci,chardev=pontoon"),
            ]
            .into_iter()
            .chain(memory.map(|path| {
                format!(
                    "-object memory-backend-file,id=shared,share=on,mem-path={path},size={MEMORY} -device ivshmem-plain,memdev=shared"
                )
            }))
            .collect(),
            host: by_socket.into_iter().chain(memory.map(|path| format!("memory = \"{path}\""))).collect(),
            guest,
        },
        Monitor::CloudHypervisor => {
            Lines { monitor: vec![format!("--vsock cid={cid},socket={uds}")], host: by_socket, guest }
        }
        Monitor::Firecracker => Lines {
            monitor: vec![format!("\"vsock\": {{ \"guest_cid\": {cid}, \"uds_path\": \"{uds}\" }}")],
            host: by_socket,
            guest,
        },
        Monitor::Vfkit => Lines {
            monitor: vec![format!("--device virtio-vsock,port={port},socketURL={uds}_{port},listen")],
            host: by_socket,
            guest,
        },
        Monitor::Libkrun => Lines {
            monitor: vec![format!("krun_add_vsock_port(context, {port}, \"{uds}_{port}\");")],
            host: by_socket,
            guest,
        },
        Monitor::Lima => Lines {
            monitor: Vec::new(),
            host: vec!["[listen]".to_owned(), "tls = \"127.0.0.1:7301\"".to_owned()],
            guest: vec![
                "PONTOON_HOST=$(pontoon token create --address host.lima.internal:7301)    # made on the host".to_owned(),
            ],
        },
    })
}

/// Monitors give commas meanings of their own, and one of the lines is for a shell.
fn plain<'a>(what: &'static str, path: &'a Path) -> Result<&'a str, WiringError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match path.to_str().filter(|text| path.is_absolute() && text.chars().all(fits)) {
        Some(text) => Ok(text),
        None => Err(path_error(
            what,
            path,
            "it must be an absolute path of letters, digits, '/', '.', '_' and '-'",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(name: &str) -> Lines {
        let machine = Machine { cid: 4, uds: "/run/vm4.vsock".into(), port: 7300, memory: None };
        vm_lines(name.parse().unwrap(), &machine).unwrap()
    }

    #[test]
    fn each_monitor_has_its_own_words_for_the_same_way() {
        assert_eq!(lines("qemu").monitor, ["-device vhost-vsock-pci,guest-cid=4"]);
        assert_eq!(lines("qemu").host, ["[listen]", "vsock = 7300"]);
        assert_eq!(lines("cloud-hypervisor").monitor, ["--vsock cid=4,socket=/run/vm4.vsock"]);
        assert!(lines("firecracker").monitor[0].contains("\"uds_path\": \"/run/vm4.vsock\""));
        assert!(lines("vfkit").monitor[0].contains("socketURL=/run/vm4.vsock_7300,listen"));
        assert!(lines("firecracker").host[0].contains("uds = \"/run/vm4.vsock\""));
        for (name, monitor) in Monitor::ALL {
            let guest = &lines(name).guest;
            assert_eq!(
                guest[0].starts_with("PONTOON_HOST=vsock:2:7300"),
                monitor != Monitor::Lima,
                "{guest:?}"
            );
        }
    }

    #[test]
    fn shared_memory_is_qemus() {
        let memory = Some("/dev/shm/vm4".into());
        let machine = Machine { cid: 4, uds: "/run/vm4.vsock".into(), port: 7300, memory };
        let lines = vm_lines(Monitor::QemuUser, &machine).unwrap();
        assert!(lines.monitor[3].contains("mem-path=/dev/shm/vm4,size=256M -device ivshmem-plain"));
        assert_eq!(lines.host[1], "memory = \"/dev/shm/vm4\"");
        let error = vm_lines(Monitor::Firecracker, &machine).unwrap_err().to_string();
        assert!(error.contains("'/dev/shm/vm4'") && error.contains("qemu-user"), "{error}");
    }

    #[test]
    fn what_no_line_can_carry_is_refused() {
        assert!("bhyve".parse::<Monitor>().unwrap_err().to_string().contains("'bhyve'"));
        for path in ["vm.sock", "/run/a b", "/run/a,b", "/run/$(x)"] {
            let machine = Machine { cid: 4, uds: path.into(), port: 7300, memory: None };
            let error = vm_lines(Monitor::QemuUser, &machine).unwrap_err().to_string();
            assert!(error.contains(&format!("'{path}'")), "{error}");
        }
    }
}
