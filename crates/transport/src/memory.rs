//! Memory that processes share by passing its descriptor on.
//!
//! On Linux it is a memfd with seals, and what is said here of its size and contents is enforced by the kernel. Other
//! systems have no seals: there it is a file without a name, whose size a process that has it can change.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// New memory of `bytes` bytes that takes up what is written, and neither grows nor shrinks.
///
/// # Errors
/// What the system said.
pub fn fixed(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    let memory = system::new(name)?;
    rustix::fs::ftruncate(&memory.descriptor, bytes)?;
    memory.fixed()
}

/// New memory that `fill` writes, and nobody after it.
///
/// # Errors
/// What the system or `fill` said.
pub fn sealed<E: From<io::Error>>(
    name: &CStr,
    fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), E>,
) -> Result<OwnedFd, E> {
    use std::os::fd::AsFd;
    let memory = system::new(name)?;
    fill(memory.descriptor.as_fd())?;
    Ok(memory.sealed()?)
}

/// Whether the other side cannot cut this memory short.
///
/// # Errors
/// What the system said.
pub fn cannot_shrink(memory: BorrowedFd<'_>) -> io::Result<bool> {
    system::cannot_shrink(memory)
}

#[cfg(target_os = "linux")]
mod system {
    use super::{BorrowedFd, CStr, OwnedFd, io};
    use rustix::fs::{MemfdFlags, SealFlags};

    pub struct New {
        pub descriptor: OwnedFd,
    }

    pub fn new(name: &CStr) -> io::Result<New> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        Ok(New { descriptor: rustix::fs::memfd_create(name, flags)? })
    }

    impl New {
        pub fn fixed(self) -> io::Result<OwnedFd> {
            self.with(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        }

        pub fn sealed(self) -> io::Result<OwnedFd> {
            self.with(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        }

        fn with(self, seals: SealFlags) -> io::Result<OwnedFd> {
            rustix::fs::fcntl_add_seals(&self.descriptor, seals)?;
            Ok(self.descriptor)
        }
    }

    pub fn cannot_shrink(memory: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(rustix::fs::fcntl_get_seals(memory)?.contains(SealFlags::SHRINK))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{BorrowedFd, CStr, OwnedFd, io};
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use std::sync::atomic::{AtomicU64, Ordering};

    pub struct New {
        pub descriptor: OwnedFd,
        reader: OwnedFd,
    }

    pub fn new(name: &CStr) -> io::Result<New> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("{}-{process}-{number}", name.to_string_lossy()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let reader = File::open(&path);
        std::fs::remove_file(&path)?;
        Ok(New { descriptor: file.into(), reader: reader?.into() })
    }

    impl New {
        pub fn fixed(self) -> io::Result<OwnedFd> {
            Ok(self.descriptor)
        }

        pub fn sealed(self) -> io::Result<OwnedFd> {
            Ok(self.reader)
        }
    }

    pub fn cannot_shrink(_: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(false)
    }
}
