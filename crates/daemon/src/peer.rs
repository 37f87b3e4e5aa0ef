//! Who is at the other end of a unix socket, as the system says.

use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt};

/// A process, by its number here (0 where it is none of this machine's) and its user.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub pid: i32,
    pub uid: u32,
}

impl Peer {
    /// By `SO_PEERCRED`.
    ///
    /// # Errors
    /// What the system said.
    #[cfg(target_os = "linux")]
    pub fn of(socket: &impl AsFd) -> nix::Result<Self> {
        let peer = getsockopt(socket, sockopt::PeerCredentials)?;
        Ok(Self { pid: peer.pid(), uid: peer.uid() })
    }

    /// By `LOCAL_PEERCRED` and `LOCAL_PEERPID`.
    ///
    /// # Errors
    /// What the system said.
    #[cfg(target_os = "macos")]
    pub fn of(socket: &impl AsFd) -> nix::Result<Self> {
        let pid = getsockopt(socket, sockopt::LocalPeerPid)?;
        Ok(Self { pid, uid: getsockopt(socket, sockopt::LocalPeerCred)?.uid() })
    }
}
