//! A machine to start, and QEMU's options for it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags};

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
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let make = || {
            let memory = rustix::fs::memfd_create(c"pontoon-vm", flags)?;
            rustix::fs::ftruncate(&memory, bytes)?;
            rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
            Ok(memory)
        };
        let made: rustix::io::Result<OwnedFd> = make();
        Ok(Self { memory: made.map_err(|errno| Error::Memory(errno.into()))?, bytes })
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
    /// Whether this terminal is the command's.
    pub interactive: bool,
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
            "max",
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
        for (option, path) in [("-kernel", &self.kernel), ("-initrd", &self.initramfs)] {
            arguments.extend([option.to_owned(), path.display().to_string()]);
        }
        Ok(arguments)
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }
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
