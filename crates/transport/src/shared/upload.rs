//! The arena's two parts: uploads, which the host frees in the order in which they were made, and
//! mapped ranges, which the host places and frees when the guest unmaps them.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Mapping, PAGE};
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
        let released = self.mapping.word64(self.released).load(Ordering::Acquire);
        if released > self.next {
            return Err(Error::Corrupt("arena position"));
        }
        let at = if len <= left { self.next } else { self.next + left };
        if at + len - released > self.size {
            return Ok(None);
        }
        self.mapping.write(self.start + at % self.size, bytes)?;
        // Whole cache lines, so that no two payloads share one.
        self.next = at + len.next_multiple_of(64).min(self.size - at % self.size);
        Ok(Some(at))
    }

    fn place(&self, at: u64, len: usize) -> Result<u64, Error> {
        Ok(self.start + self.offset(at, len)?)
    }

    /// Host: how far from the part's first byte `len` bytes at position `at` begin.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where the guest names a place outside the part.
    pub fn offset(&self, at: u64, len: usize) -> Result<u64, Error> {
        let place = at % self.size;
        match place + len as u64 <= self.size {
            true => Ok(place),
            false => Err(Error::OutOfBounds { at: place, end: place + len as u64, len: self.size }),
        }
    }

    /// Host: the whole part, mapped until the process ends.
    ///
    /// # Errors
    /// Never for a part of a layout that was created or opened.
    pub fn for_ever(&self) -> Result<&'static [AtomicU8], Error> {
        self.mapping.for_ever(self.start, self.size as usize)
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
    /// Where the bytes begin that nobody has used yet: they are zero.
    fresh: u64,
    /// Bytes that [`Download::reserve`] has given out.
    reserved: u64,
}

impl Download {
    pub(super) fn new(mapping: Arc<Mapping>, start: u64, size: u64, fresh: u64) -> Self {
        Self { mapping, start, size, live: BTreeMap::new(), fresh, reserved: 0 }
    }

    /// Host: copies `bytes` to the first gap that holds them and says where, or nothing where none does.
    ///
    /// # Errors
    /// Never: the places are the host's own.
    pub fn place(&mut self, bytes: &[u8]) -> Result<Option<u64>, Error> {
        let len = (bytes.len() as u64).next_multiple_of(64).max(64);
        let Some(at) = self.take(len, 64) else { return Ok(None) };
        self.mapping.write(self.start + at, bytes)?;
        Ok(Some(at))
    }

    /// Host: whole pages of zeros for at least `len` bytes, mapped until the process ends; their place, or
    /// nothing where there is no room. At most half of the part goes this way.
    ///
    /// # Errors
    /// Never: the places are the host's own.
    pub fn reserve(&mut self, len: u64) -> Result<Option<(u64, &'static [AtomicU8])>, Error> {
        let (len, fresh) = (len.next_multiple_of(PAGE).max(PAGE), self.fresh);
        if len > self.size || self.reserved + len > self.size / 2 {
            return Ok(None);
        }
        let Some(at) = self.take(len, PAGE) else { return Ok(None) };
        self.reserved += len;
        let used = fresh.clamp(at, at + len) - at;
        self.mapping.zero(self.start + at, used as usize)?;
        Ok(Some((at, self.mapping.for_ever(self.start + at, len as usize)?)))
    }

    /// The first gap for `len` bytes that begins at a multiple of `alignment`.
    fn take(&mut self, len: u64, alignment: u64) -> Option<u64> {
        let mut at = 0u64;
        for (&start, &taken) in &self.live {
            if start.saturating_sub(at) >= len {
                break;
            }
            at = (start + taken).next_multiple_of(alignment);
        }
        let end = at.checked_add(len).filter(|end| *end <= self.size)?;
        self.live.insert(at, len);
        self.fresh = self.fresh.max(end);
        Some(at)
    }

    /// Host: frees the range that [`Download::place`] put at `at`.
    pub fn free(&mut self, at: u64) {
        self.live.remove(&at);
    }

    /// Host: frees the pages that [`Download::reserve`] gave out at `at`.
    pub fn unreserve(&mut self, at: u64) {
        self.reserved -= self.live.remove(&at).unwrap_or(0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{Shared, Sizes};

    #[test]
    fn reserved_pages_are_zero_and_bounded() {
        let sizes = Sizes { to_host: PAGE, to_guest: PAGE, upload: PAGE, download: 8 * PAGE };
        let mut download = Shared::create(sizes).unwrap().0.download().unwrap();
        let dirty = download.place(&[7; 5000]).unwrap().unwrap();
        download.free(dirty);
        let (at, bytes) = download.reserve(100).unwrap().unwrap();
        assert_eq!((at, bytes.len() as u64), (0, PAGE));
        assert!(bytes.iter().all(|byte| byte.load(Ordering::Relaxed) == 0), "what was there before is gone");
        let small = download.place(&[1; 64]).unwrap().unwrap();
        let (next, _) = download.reserve(2 * PAGE + 1).unwrap().unwrap();
        assert_eq!((small, next), (PAGE, 2 * PAGE), "pages, behind what is taken");
        assert!(download.reserve(1).unwrap().is_none(), "half of the part is reserved");
        download.unreserve(next);
        assert!(download.reserve(1).unwrap().is_some());
        assert!(download.reserve(u64::MAX / 2).unwrap().is_none());
    }
}
