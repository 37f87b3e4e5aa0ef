//! A machine to start, and QEMU's options for it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::mounts::tag;
use crate::script::HOST;
use crate::{Accelerator, Error, Mount};

/// The port of the bridge.
pub(crate) const BRIDGE_PORT: u32 = 7300;

/// Memory that the machine shares with its host, a device `ivshmem-plain` in the machine.
#[derive(Debug)]
pub struct SharedMemory {
    memory: OwnedFd,
    bytes: u64,
}

impl SharedMemory {
    /// Makes it: `mib` MiB, a power of two, as regions of PCI devices are. It takes up what is used.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn create(mib: u32) -> Result<Self, Error> {
        let bytes = u64::from(mib) << 20;
        // QEMU opens it by its place in /proc, which only Linux has.
        if cfg!(not(target_os = "linux")) {
            return Err(Error::Memory(std::io::ErrorKind::Unsupported.into()));
        }
        let memory = pontoon_transport::memory::fixed(c"pontoon-vm", bytes).map_err(Error::Memory)?;
        Ok(Self { memory, bytes })
    }

    /// By which QEMU opens it, as long as this process lives.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.memory.as_raw_fd())
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// A machine to start.
#[derive(Debug)]
pub struct Request {
    /// The kernel, bzImage or vmlinux.
    pub kernel: PathBuf,
    /// The first file system, by [`write_initramfs`].
    pub initramfs: PathBuf,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub processors: u32,
    /// This program, which QEMU starts for each connection of the guest (`vm relay SOCKET`).
    pub program: PathBuf,
    /// A folder of the machine's own, for its sockets.
    pub folder: PathBuf,
    /// Its vsock context id.
    pub cid: u32,
    /// `vhost-device-vsock`, for a vsock; without it the bridge is behind a port of the machine's network.
    pub vsock: Option<PathBuf>,
    /// Memory that it shares with its host.
    pub shared: Option<SharedMemory>,
    /// Folders of the host in it.
    pub mounts: Vec<Mount>,
    /// A disk image that is its root file system; it is read alone.
    pub disk: Option<crate::Disk>,
    /// PCI devices of the host that it gets, by address; they are on VFIO.
    pub devices: Vec<String>,
    /// Mediated devices of the host that it gets, by UUID.
    pub slices: Vec<String>,
    /// Whether this terminal is the command's.
    pub interactive: bool,
    /// How long the machine may take to its first word.
    pub boot_timeout: Duration,
}

impl Request {
    /// The socket behind the bridge's port: with a vsock the one that `vhost-device-vsock` connects to.
    pub fn bridge_socket(&self) -> PathBuf {
        match self.vsock {
            Some(_) => self.folder.join(format!("vsock_{BRIDGE_PORT}")),
            None => self.folder.join("bridge.sock"),
        }
    }

    /// Where `vhost-device-vsock` and QEMU meet.
    pub(crate) fn vhost_socket(&self) -> PathBuf {
        self.folder.join("vhost.sock")
    }

    /// Where the process behind a mount and QEMU meet.
    pub(crate) fn mount_socket(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{}.sock", tag(number)))
    }

    /// What the machine's programs call the bridge.
    pub fn bridge_address(&self) -> String {
        match self.vsock {
            Some(_) => format!("vsock:2:{BRIDGE_PORT}"),
            None => format!("tcp:{HOST}:{BRIDGE_PORT}"),
        }
    }

    /// The socket behind the model runner's port.
    pub fn models_socket(&self) -> PathBuf {
        self.folder.join("models.sock")
    }

    pub(crate) fn arguments(&self, accelerator: Accelerator) -> Result<Vec<String>, Error> {
        let program = plain(&self.program)?;
        let forward = |port: u32, socket: &Path| {
            Ok::<_, Error>(format!("guestfwd=tcp:{HOST}:{port}-cmd:{program} vm relay {}", plain(socket)?))
        };
        let mut network = format!("user,id=net,restrict=on,{}", forward(12434, &self.models_socket())?);
        if self.vsock.is_none() {
            network = format!("{network},{}", forward(BRIDGE_PORT, &self.bridge_socket())?);
        }
        let control = format!("socket,id=control,path={}", plain(&self.control_socket())?);
        let words = [
            "-machine",
            "q35",
            "-accel",
            accelerator.name(),
            "-cpu",
            match accelerator {
                // Emulated, instructions that copy many bytes copy one at a time.
                Accelerator::Tcg => "max,-erms,-fsrm",
                _ => "max",
            },
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
            "-chardev",
            &control,
            "-serial",
            "chardev:control",
            "-netdev",
            &network,
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
            "-append",
            "console=ttyS0 quiet loglevel=0 panic=-1 nokaslr",
        ];
        let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        arguments.extend([
            "-m".into(),
            self.memory_mib.to_string(),
            "-smp".into(),
            self.processors.to_string(),
        ]);
        if self.vsock.is_some() || !self.mounts.is_empty() {
            // Others look into the machine's memory then.
            let memory = format!("memory-backend-memfd,id=memory,share=on,size={}M,seal=on", self.memory_mib);
            arguments.extend(["-object".into(), memory, "-machine".into(), "memory-backend=memory".into()]);
        }
        if self.vsock.is_some() {
            let socket = format!("socket,id=vsock,path={}", plain(&self.vhost_socket())?);
            arguments.extend(["-chardev".into(), socket]);
            arguments.extend(["-device".into(), "vhost-user-vsock-pci,chardev=vsock".into()]);
        }
        for number in 0..self.mounts.len() {
            let tag = tag(number);
            let socket = format!("socket,id={tag},path={}", plain(&self.mount_socket(number))?);
            let device = format!("vhost-user-fs-pci,chardev={tag},tag={tag}");
            arguments.extend(["-chardev".into(), socket, "-device".into(), device]);
        }
        if let Some(shared) = &self.shared {
            let (path, bytes) = (shared.path(), shared.bytes);
            let memory = format!("memory-backend-file,id=shared,share=on,mem-path={path},size={bytes}");
            arguments.extend([
                "-object".into(),
                memory,
                "-device".into(),
                "ivshmem-plain,memdev=shared".into(),
            ]);
        }
        if let Some(disk) = &self.disk {
            let drive = format!(
                "if=none,id=root,file={},format={},readonly=on",
                plain(&disk.path)?,
                disk.format.name()
            );
            arguments.extend(["-drive".into(), drive, "-device".into(), "virtio-blk-pci,drive=root".into()]);
        }
        arguments.extend(passed(&self.devices, &self.slices));
        for (option, path) in [("-kernel", &self.kernel), ("-initrd", &self.initramfs)] {
            arguments.extend([option.to_owned(), path.display().to_string()]);
        }
        Ok(arguments)
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }
}

/// The host's PCI devices in the machine: each card behind a port of its own, its functions together as they are.
/// Mediated devices come after them, each behind one too.
fn passed(devices: &[String], slices: &[String]) -> Vec<String> {
    let mut cards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for device in devices {
        cards.entry(device.split_once('.').map_or(device, |(card, _)| card)).or_default().push(device);
    }
    let mut words = Vec::new();
    let port = |number: usize| format!("pcie-root-port,id=card{number},chassis={0},slot={0}", number + 1);
    for (number, functions) in cards.values().enumerate() {
        words.extend(["-device".to_owned(), port(number)]);
        for (function, host) in functions.iter().enumerate() {
            let more = if function == 0 && functions.len() > 1 { ",multifunction=on" } else { "" };
            let device = format!("vfio-pci,host={host},bus=card{number},addr=0x0.{function:x}{more}");
            words.extend(["-device".to_owned(), device]);
        }
    }
    for (number, uuid) in (cards.len()..).zip(slices) {
        let device = format!("vfio-pci,sysfsdev=/sys/bus/mdev/devices/{uuid},bus=card{number},addr=0x0.0");
        words.extend(["-device".to_owned(), port(number), "-device".to_owned(), device]);
    }
    words
}

/// Listens on the machine's two sockets.
///
/// # Errors
/// [`Error::File`].
pub fn listen(request: &Request) -> Result<[UnixListener; 2], Error> {
    let bind = |path: PathBuf| UnixListener::bind(&path).map_err(|error| Error::file(&path, error));
    Ok([bind(request.bridge_socket())?, bind(request.models_socket())?])
}

/// QEMU gives commas and blanks in these places meanings of their own.
pub(crate) fn plain(path: &Path) -> Result<&str, Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    path.to_str().filter(|text| text.chars().all(fits)).ok_or_else(|| Error::Path(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_of_a_card_stay_together() {
        let devices = ["0000:01:00.0", "0000:01:00.1", "10000:02:05.3"].map(str::to_owned);
        let slices = ["123e4567-e89b-12d3-a456-426614174000".to_owned()];
        let words = passed(&devices, &slices);
        let devices: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "-device").collect();
        assert_eq!(
            devices,
            [
                "pcie-root-port,id=card0,chassis=1,slot=1",
                "vfio-pci,host=0000:01:00.0,bus=card0,addr=0x0.0,multifunction=on",
                "vfio-pci,host=0000:01:00.1,bus=card0,addr=0x0.1",
                "pcie-root-port,id=card1,chassis=2,slot=2",
                "vfio-pci,host=10000:02:05.3,bus=card1,addr=0x0.0",
                "pcie-root-port,id=card2,chassis=3,slot=3",
                "vfio-pci,sysfsdev=/sys/bus/mdev/devices/123e4567-e89b-12d3-a456-426614174000,bus=card2,addr=0x0.0",
            ]
        );
    }
}
