//! The arena's two parts: uploads, which the host frees in the order in which they were made, and
//! mapped ranges, which the host places and frees when the guest unmaps them.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Mapping;
use crate::Error;

/// The upload part. The guest fills it in circles; the host says how far it has read.
#[derive(Debug)]
pub struct Upload {
    mapping: Arc<Mapping>,
    /// Where the word with the host's position is.
    released: u64,
    start: u64,
    size: u64,
    next: u64,
}

impl Upload {
    pub(super) fn new(mapping: Arc<Mapping>, released: u64, start: u64, size: u64) -> Self {
        Self { mapping, released, start, size, next: 0 }
    }

    /// Size of the part in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Guest: copies `bytes` in and says at which position, or nothing where there is no room yet.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the host's position is impossible.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<u64>, Error> {
        let len = bytes.len() as u64;
        let left = self.size - self.next % self.size;
        let at = if len <= left { self.next } else { self.next + left };
        let released = self.mapping.word64(self.released).load(Ordering::Acquire);
        if released > self.next {
            return Err(Error::Corrupt("arena position"));
        }
        if at + len - released > self.size {
            return Ok(None);
        }
        self.mapping.write(self.start + at % self.size, bytes)?;
        // Whole cache lines, so that no two payloads share one.
        self.next = at + len.next_multiple_of(64).min(self.size - at % self.size);
        Ok(Some(at))
    }

    fn place(&self, at: u64, len: usize) -> Result<u64, Error> {
        let place = at % self.size;
        match place + len as u64 <= self.size {
            true => Ok(self.start + place),
            false => Err(Error::OutOfBounds { at: place, end: place + len as u64, len: self.size }),
        }
    }

    /// Host: appends `len` bytes at position `at` to private memory.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where the guest names a place outside the part.
    pub fn read_to(&self, at: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        self.mapping.read_to(self.place(at, len)?, len, out)
    }

    /// Host: copies `out.len()` bytes at position `at` out.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where the guest names a place outside the part.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Error> {
        self.mapping.read(self.place(at, out.len())?, out)
    }

    /// Host: everything up to position `end` has been read.
    pub fn release(&self, end: u64) {
        self.mapping.word64(self.released).store(end, Ordering::Release);
    }
}

/// The part for mapped ranges.
#[derive(Debug)]
pub struct Download {
    mapping: Arc<Mapping>,
    start: u64,
    size: u64,
    /// Live ranges: offset to length.
    live: BTreeMap<u64, u64>,
}

impl Download {
    pub(super) fn new(mapping: Arc<Mapping>, start: u64, size: u64) -> Self {
        Self { mapping, start, size, live: BTreeMap::new() }
    }

    /// Host: copies `bytes` to the first gap that holds them and says where, or nothing where none does.
    ///
    /// # Errors
    /// Never: the places are the host's own.
    pub fn place(&mut self, bytes: &[u8]) -> Result<Option<u64>, Error> {
        let len = (bytes.len() as u64).next_multiple_of(64).max(64);
        let mut at = 0;
        for (&start, &taken) in &self.live {
            if start - at >= len {
                break;
            }
            at = start + taken;
        }
        if at + len > self.size {
            return Ok(None);
        }
        self.mapping.write(self.start + at, bytes)?;
        self.live.insert(at, len);
        Ok(Some(at))
    }

    /// Host: frees the range that [`Download::place`] put at `at`.
    pub fn free(&mut self, at: u64) {
        self.live.remove(&at);
    }

    /// Guest: the bytes that the host put at `at`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    pub fn bytes(&self, at: u64, len: usize) -> Result<NonNull<[u8]>, Error> {
        match at.checked_add(len as u64) {
            Some(end) if end <= self.size => self.mapping.host_bytes(self.start + at, len),
            end => Err(Error::OutOfBounds { at, end: end.unwrap_or(u64::MAX), len: self.size }),
        }
    }
}
