//! Passing descriptors beside bytes over a unix socket (`SCM_RIGHTS`, unix(7)).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, SendAncillaryBuffer, SendAncillaryMessage};

use crate::{Error, system};

/// Most descriptors in one message.
const MAX_DESCRIPTORS: usize = 8;

/// Sends all of `bytes`. (A sandboxed worker may do this, but not send descriptors.)
///
/// # Errors
/// [`Error::Closed`] where the peer is gone, [`Error::Io`] for anything else.
pub fn send_all(socket: impl AsFd, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        let result = rustix::io::retry_on_intr(|| rustix::net::send(&socket, bytes, system::NO_SIGNAL));
        bytes = &bytes[result.map_err(Error::io("sending on a socket"))?..];
    }
    Ok(())
}

/// Sends all of `bytes`, with `descriptors` beside the first of them.
///
/// # Errors
/// [`Error::Closed`] where the peer is gone, [`Error::Io`] for anything else.
pub fn send_with_descriptors(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    let mut sent = 0;
    while sent < bytes.len() {
        let result = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes[sent..])], &mut control, system::NO_SIGNAL)
        });
        sent += result.map_err(Error::io("sending on a unix socket"))?;
        control.clear();
    }
    Ok(())
}

/// Receives up to `buffer.len()` bytes and the descriptors beside them. Zero bytes mean that the peer
/// has closed.
///
/// # Errors
/// [`Error::Io`] where the socket fails.
pub fn receive_with_descriptors(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, system::RECEIVE)
    })
    .map_err(Error::io("receiving on a unix socket"))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for descriptor in rights {
                system::keep(&descriptor).map_err(Error::io("keeping a descriptor"))?;
                descriptors.push(descriptor);
            }
        }
    }
    Ok((received.bytes, descriptors))
}
