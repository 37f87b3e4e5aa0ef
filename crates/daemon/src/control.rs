//! What a supervisor and its worker say to each other, over a socket pair of the `SEQPACKET` kind: one
//! JSON message a packet, descriptors beside it. A Mac has no such sockets: there it is a stream, and each
//! message begins with its length.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pontoon_wire::hello::SharedLayout;
use serde::{Deserialize, Serialize};

use crate::admin::AdapterRow;
use crate::config::Limits;

/// Whether the sockets keep messages apart.
const PACKETS: bool = cfg!(target_os = "linux");

/// Largest packet.
const MAX_PACKET: usize = 128 * 1024;

/// From a supervisor to its worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Serve this session. Beside it: the guest's connection, the page for its accounts, then the memory that it
    /// shares with its guest or what is kept of uploads.
    Serve {
        /// The session's number.
        session: u64,
        /// Its limits.
        limits: Limits,
        /// Only adapters whose name contains this are offered.
        adapter: Option<String>,
        /// How the memory is laid out that guest and worker share, if they do. Its descriptor comes, and those
        /// of the two bells.
        shared: Option<SharedLayout>,
        /// Bytes that are kept of what the session sends, if anything is. The descriptors of the tenant's shelf and
        /// of the memory for additions come.
        kept: Option<u64>,
        /// How the connection's bytes travel.
        line: Line,
    },
}

/// How a connection's bytes travel, as far as it matters to who writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Line {
    /// A unix socket, or the plain end of one that the supervisor carries on over TLS.
    Unix,
    /// TCP.
    Tcp,
    /// The vsock of a virtual machine.
    Vsock,
}

/// What a worker says of a guest that has ended its session itself.
pub const LEFT: &str = "the guest has gone";

/// From a worker to its supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Notice {
    /// Confined, warm and ready for a session.
    Ready {
        /// What it offers.
        adapters: Vec<AdapterRow>,
        /// What of the sandbox is not in force, and why.
        weaknesses: Vec<String>,
        /// Microseconds that confinement took.
        confinement_micros: u64,
    },
    /// Cannot serve anybody.
    Failed {
        /// Why.
        message: String,
    },
    /// The guest was welcomed: what it hears on its connection from now on is not the worker's first word.
    Welcomed,
    /// The session is over, for a reason that the guest was told.
    Ended {
        /// Why.
        message: String,
        /// Whether the guest could be told.
        told: bool,
    },
}

/// A pair of such sockets.
///
/// # Errors
/// What the system said.
#[cfg(target_os = "linux")]
pub fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// A pair of such sockets.
///
/// # Errors
/// What the system said.
#[cfg(not(target_os = "linux"))]
pub fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    Ok((ours.into(), theirs.into()))
}

/// Sends one message.
///
/// # Errors
/// What the system said; the other side is gone.
pub fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> std::io::Result<()> {
    let mut bytes = serde_json::to_vec(message)?;
    if !PACKETS {
        let length = (bytes.len() as u32).to_le_bytes();
        bytes.splice(..0, length);
    }
    let sent = match descriptors {
        [] => pontoon_transport::send_all(socket, &bytes),
        descriptors => pontoon_transport::send_with_descriptors(socket, &bytes, descriptors),
    };
    sent.map_err(std::io::Error::other)
}

/// Receives one message; nothing where the other side is gone.
///
/// # Errors
/// What the system said, or that the message is not one.
pub fn receive<T: for<'a> Deserialize<'a>>(socket: impl AsFd) -> std::io::Result<Option<(T, Vec<OwnedFd>)>> {
    if PACKETS {
        let mut packet = vec![0; MAX_PACKET];
        let (len, descriptors) = receive_some(&socket, &mut packet)?;
        return match len {
            0 => Ok(None),
            len => Ok(Some((serde_json::from_slice(&packet[..len])?, descriptors))),
        };
    }
    let mut length = [0; 4];
    let Some(mut descriptors) = receive_all(&socket, &mut length)? else { return Ok(None) };
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_PACKET {
        return Err(std::io::Error::other(format!("a message of {length} bytes; the limit is {MAX_PACKET}")));
    }
    let mut message = vec![0; length];
    let Some(more) = receive_all(&socket, &mut message)? else { return Ok(None) };
    descriptors.extend(more);
    Ok(Some((serde_json::from_slice(&message)?, descriptors)))
}

fn receive_some(socket: impl AsFd, bytes: &mut [u8]) -> std::io::Result<(usize, Vec<OwnedFd>)> {
    pontoon_transport::receive_with_descriptors(socket, bytes).map_err(std::io::Error::other)
}

/// Fills `bytes` from a stream; nothing where the other side is gone before that.
fn receive_all(socket: impl AsFd, bytes: &mut [u8]) -> std::io::Result<Option<Vec<OwnedFd>>> {
    let (mut at, mut descriptors) = (0, Vec::new());
    while at < bytes.len() {
        let (len, more) = receive_some(&socket, &mut bytes[at..])?;
        if len == 0 {
            return Ok(None);
        }
        at += len;
        descriptors.extend(more);
    }
    Ok(Some(descriptors))
}
