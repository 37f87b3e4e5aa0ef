//! What sockets call by other names, or do not have, beyond Linux.

use std::os::fd::OwnedFd;

use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags};

/// No SIGPIPE where the peer has gone. (Without the flag the standard library sees to that, for a socket or a program.)
#[cfg(target_os = "linux")]
pub const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
pub const NO_SIGNAL: SendFlags = SendFlags::empty();

/// The peer will send nothing more.
#[cfg(target_os = "linux")]
pub const GONE: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
pub const GONE: PollFlags = PollFlags::HUP;

/// For descriptors that programs started later must not have.
#[cfg(target_os = "linux")]
pub const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
pub const RECEIVE: RecvFlags = RecvFlags::empty();

/// What is left to do so that programs started later do not have a descriptor that came with [`RECEIVE`].
///
/// # Errors
/// What the system said.
pub fn keep(descriptor: &OwnedFd) -> rustix::io::Result<()> {
    match cfg!(target_os = "linux") {
        true => Ok(()),
        false => rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC),
    }
}
