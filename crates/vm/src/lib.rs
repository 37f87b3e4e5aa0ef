//! `pontoon vm run`: a virtual machine around a root file system: a folder, an image, a disk. The machine has a network that leads nowhere
//! but to two ports, behind which the host's bridge and model runner are; of the host's devices it has those that it is given,
//! which are on VFIO then. Where `vhost-device-vsock` is installed it has a vsock for the bridge, and in any case memory that it shares with the host.

#![forbid(unsafe_code)]

mod disk;
mod image;
mod initramfs;
mod machine;
mod mounts;
mod relay;
mod request;
mod script;
mod vsock;

use std::path::{Path, PathBuf};

pub use disk::{Disk, Format};
pub use image::{Image, Root};
pub use initramfs::{Contents, write as write_initramfs};
pub use mounts::Mount;
pub use relay::relay;
pub use request::{Request, SharedMemory, listen};
pub use script::command_script;
pub use vsock::find as find_vsock;

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A driver is only there compressed.
    #[error("{} is compressed, which busybox cannot load: unpack the kernel's modules, or name others with --modules", .0.display())]
    Module(PathBuf),
    /// A path that QEMU's command line cannot carry.
    #[error("QEMU's options cannot carry the path {}: use one of letters, digits, '/', '.', '_', '-' and '+' (TMPDIR names the folder of sockets)", .0.display())]
    Path(PathBuf),
    /// A program is missing.
    #[error("{0} is missing: install the package {1}")]
    Missing(&'static str, &'static str),
    /// What is no root file system that a machine can be given.
    #[error("{}: {why}", .path.display())]
    Image {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A folder cannot be mounted.
    #[error("cannot mount {}: {why}", .path.display())]
    Mount {
        /// The folder on the host.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no memory to share.
    #[error("no memory to share with the machine: {0}")]
    Memory(std::io::Error),
    /// The machine did not start.
    #[error("the machine did not start within {seconds} s{words}")]
    Boot {
        /// How long was waited.
        seconds: u64,
        /// What its console said last.
        words: String,
    },
    /// QEMU ended before the machine was there.
    #[error("QEMU ended before the machine started ({status}){words}; --accel tcg works everywhere")]
    Died {
        /// How it ended.
        status: String,
        /// What the console said last.
        words: String,
    },
    /// The machine ended without an exit code.
    #[error("the machine ended without the command's exit code ({0})")]
    Ended(String),
}

impl Error {
    fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// What executes the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, by the kernel's KVM.
    Kvm,
    /// The processor, by Apple's Hypervisor framework.
    Hvf,
    /// QEMU itself, some ten times slower; everywhere.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Hvf => "hvf",
            Self::Tcg => "tcg",
        }
    }

    /// What this host seems to have. Only a machine that starts shows whether it works.
    pub fn guess() -> Self {
        let kvm = || std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        match (cfg!(target_os = "macos"), kvm()) {
            (true, _) => Self::Hvf,
            (false, true) => Self::Kvm,
            (false, false) => Self::Tcg,
        }
    }
}
