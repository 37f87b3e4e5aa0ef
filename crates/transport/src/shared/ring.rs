//! A byte ring with one producer and one consumer in different processes, and the bell between them.
//!
//! Positions only grow; `position % capacity` is the place. Each side keeps its own position private
//! and judges a copy of the other's: a peer that writes nonsense is found out, not believed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use rustix::event::EventfdFlags;

use super::Mapping;
use crate::Error;

// Offsets of a ring's words within its control block; each on a cache line of its own.
const HEAD: u64 = 0x00;
const TAIL: u64 = 0x40;
const SLEEPING: u64 = 0x80;

/// An eventfd that wakes a sleeping peer.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A new bell.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new() -> Result<Self, Error> {
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Self)
            .map_err(Error::io("creating an eventfd"))
    }

    /// Wakes whoever waits. A bell that rang too often to count is as good as rung.
    pub fn ring(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Forgets past rings.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Bell {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
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
