//! The fence around the registration of a socket with the event loop.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::net::UnixStream;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A socket in this thread's event loop, which wakes for nothing but `interest`.
///
/// # Errors
/// The system's.
pub fn register(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: the standard library's stream owns its descriptor, answers with that one whenever it is asked, and
    // closes it only when it is dropped. The `AsyncFd` owns the stream from here on, and nobody takes it out or
    // replaces it: only `get_ref` is used on what is returned, which `Stream` keeps private.
    let registered = unsafe { AsyncFd::register_with_interest(stream, interest) };
    registered.map_err(io::Error::from)
}
