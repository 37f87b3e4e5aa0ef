//! A byte ring with one producer and one consumer in different processes, and the bell between them.
//!
//! Positions only grow; `position % capacity` is the place. Each side keeps its own position private
//! and judges a copy of the other's: a peer that writes nonsense is found out, not believed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use rustix::net::SendFlags;

use super::Mapping;
use crate::{Error, Socket};

// Offsets of a ring's words within its control block; each on a cache line of its own.
const HEAD: u64 = 0x00;
const TAIL: u64 = 0x40;
const SLEEPING: u64 = 0x80;

/// What wakes a sleeping peer.
#[derive(Debug)]
pub enum Bell {
    /// An eventfd that both sides have.
    Eventfd(OwnedFd),
    /// The connection itself, where descriptors cannot be passed: a byte [`WAKE`] on it.
    Connection(Arc<Socket>),
}

/// The byte that wakes whoever sleeps on a connection.
pub const WAKE: u8 = 1;
/// The byte on such a connection behind which last words follow.
pub const LAST_WORDS: u8 = 0;

impl Bell {
    /// A new bell.
    ///
    /// # Errors
    /// [`Error::Io`]; always where the system has no eventfd, and sessions share no memory with their host.
    pub fn new() -> Result<Self, Error> {
        #[cfg(target_os = "linux")]
        let made = {
            use rustix::event::EventfdFlags;
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        };
        #[cfg(not(target_os = "linux"))]
        let made = Err(rustix::io::Errno::NOTSUP);
        made.map(Self::Eventfd).map_err(Error::io("creating an eventfd"))
    }

    /// Wakes whoever waits. A bell that rang too often to count is as good as rung.
    pub fn ring(&self) {
        match self {
            Self::Eventfd(fd) => drop(rustix::io::write(fd, &1u64.to_ne_bytes())),
            // A line that is full of such bytes wakes as well without this one.
            Self::Connection(socket) => {
                let flags = crate::system::NO_SIGNAL | SendFlags::DONTWAIT;
                let _ = rustix::net::send(&**socket, &[WAKE], flags);
            }
        }
    }

    /// Forgets past rings of an eventfd.
    pub fn clear(&self) {
        if let Self::Eventfd(fd) = self {
            let _ = rustix::io::read(fd, &mut [0u8; 8]);
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Eventfd(fd) => fd.as_fd(),
            Self::Connection(socket) => socket.as_fd(),
        }
    }
}

impl From<OwnedFd> for Bell {
    fn from(fd: OwnedFd) -> Self {
        Self::Eventfd(fd)
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Producer {
    mapping: Arc<Mapping>,
    control: u64,
    data: u64,
    capacity: u64,
    tail: u64,
    head: u64,
}

impl Producer {
    pub(super) fn new(mapping: Arc<Mapping>, control: u64, data: u64, capacity: u64) -> Self {
        Self { mapping, control, data, capacity, tail: 0, head: 0 }
    }

    /// Copies in as much of `bytes` as fits and lets the consumer see it; how much that was.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the consumer's position is impossible.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut free = self.capacity - (self.tail - self.head);
        if free < bytes.len() as u64 {
            let head = self.mapping.word64(self.control + HEAD).load(Ordering::Acquire);
            if head < self.head || head > self.tail {
                return Err(Error::Corrupt("reader's position"));
            }
            self.head = head;
            free = self.capacity - (self.tail - head);
        }
        let len = bytes.len().min(free as usize);
        let place = self.tail % self.capacity;
        let first = len.min((self.capacity - place) as usize);
        self.mapping.write(self.data + place, &bytes[..first])?;
        self.mapping.write(self.data, &bytes[first..len])?;
        self.tail += len as u64;
        self.mapping.word64(self.control + TAIL).store(self.tail, Ordering::Release);
        Ok(len)
    }

    /// Rings `bell` if the consumer sleeps.
    #[inline]
    pub fn wake(&self, bell: &Bell) {
        fence(Ordering::SeqCst);
        let sleeping = self.mapping.word32(self.control + SLEEPING);
        if sleeping.load(Ordering::Relaxed) != 0 {
            sleeping.store(0, Ordering::Relaxed);
            bell.ring();
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Consumer {
    mapping: Arc<Mapping>,
    control: u64,
    data: u64,
    capacity: u64,
    head: u64,
}

impl Consumer {
    pub(super) fn new(mapping: Arc<Mapping>, control: u64, data: u64, capacity: u64) -> Self {
        Self { mapping, control, data, capacity, head: 0 }
    }

    /// Bytes that are here.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the producer's position is impossible.
    #[inline]
    pub fn available(&self) -> Result<u64, Error> {
        let tail = self.mapping.word64(self.control + TAIL).load(Ordering::Acquire);
        match tail.checked_sub(self.head) {
            Some(len) if len <= self.capacity => Ok(len),
            _ => Err(Error::Corrupt("writer's position")),
        }
    }

    /// Copies all that is here out to the end of `out`; how much that was.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the producer's position is impossible.
    #[inline]
    pub fn pop(&mut self, out: &mut Vec<u8>) -> Result<usize, Error> {
        let len = self.available()? as usize;
        if len == 0 {
            return Ok(0);
        }
        let place = self.head % self.capacity;
        let first = len.min((self.capacity - place) as usize);
        self.mapping.read_to(self.data + place, first, out)?;
        self.mapping.read_to(self.data, len - first, out)?;
        self.head += len as u64;
        self.mapping.word64(self.control + HEAD).store(self.head, Ordering::Release);
        Ok(len)
    }

    /// Says that this side goes to sleep; afterwards look once more before sleeping.
    pub fn set_sleeping(&self, sleeping: bool) {
        self.mapping.word32(self.control + SLEEPING).store(sleeping.into(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}
