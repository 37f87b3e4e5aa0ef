//! The one place with `unsafe` for shared memory: a mapping whose other side may be hostile.
//!
//! Bytes go in and out by copy, through raw pointers; single words through atomics. Nothing here hands
//! out a reference to plain bytes, except [`Mapping::host_bytes`] on the guest's side, which trusts its
//! host as it must.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags};

use crate::Error;

/// Shared, writable memory of this process and another.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is plain bytes at a fixed place until drop; all access is by atomics or by copies
// that assume nothing about what the bytes are.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `fd`.
    ///
    /// # Errors
    /// [`Error::Io`] where the system refuses.
    pub fn new(fd: BorrowedFd<'_>, len: usize) -> Result<Self, Error> {
        Self::within(fd, 0, len)
    }

    /// Maps `len` bytes of `fd` from `offset`, a multiple of the page's size.
    ///
    /// # Errors
    /// [`Error::Io`] where the system refuses.
    pub fn within(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Self, Error> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at a place of the kernel's choice aliases nothing of ours.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, offset) }
                .map_err(Error::io("mapping shared memory"))?;
        NonNull::new(start.cast())
            .map(|start| Self { start, len })
            .ok_or(Error::Corrupt("mapping at address zero"))
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.len
    }

    fn check(&self, at: u64, len: usize) -> Result<usize, Error> {
        let end = at.checked_add(len as u64);
        match end {
            Some(end) if end <= self.len as u64 => Ok(at as usize),
            _ => Err(Error::OutOfBounds { at, end: end.unwrap_or(u64::MAX), len: self.len as u64 }),
        }
    }

    /// Copies `bytes` in at `at`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    #[inline]
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let at = self.check(at, bytes.len())?;
        // SAFETY: the range is within the mapping; `bytes` is private memory, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(at), bytes.len()) };
        Ok(())
    }

    /// Copies `out.len()` bytes from `at` out into private memory.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    #[inline]
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Error> {
        let at = self.check(at, out.len())?;
        // SAFETY: the range is within the mapping; `out` is private memory, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr().add(at), out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Appends `len` bytes from `at` to private memory.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    #[inline]
    pub fn read_to(&self, at: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let at = self.check(at, len)?;
        out.reserve(len);
        // SAFETY: the range is within the mapping, `reserve` made room behind the vector's end, and the
        // length grows only over bytes that were just written.
        unsafe {
            let end = out.as_mut_ptr().add(out.len());
            std::ptr::copy_nonoverlapping(self.start.as_ptr().add(at), end, len);
            out.set_len(out.len() + len);
        }
        Ok(())
    }

    /// A pointer to bytes that the host wrote and leaves alone, for the guest's side only.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    pub fn host_bytes(&self, at: u64, len: usize) -> Result<NonNull<[u8]>, Error> {
        let at = self.check(at, len)?;
        // SAFETY: the range is within the mapping, so the pointer stays in bounds and is not null.
        let first = unsafe { self.start.add(at) };
        Ok(NonNull::slice_from_raw_parts(first, len))
    }

    /// Sets `len` bytes from `at` to zero.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    pub fn zero(&self, at: u64, len: usize) -> Result<(), Error> {
        let at = self.check(at, len)?;
        // SAFETY: the range is within the mapping.
        unsafe { std::ptr::write_bytes(self.start.as_ptr().add(at), 0, len) };
        Ok(())
    }

    /// Bytes that stay mapped until the process ends, for a GPU driver to use in place.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    pub fn for_ever(self: &Arc<Self>, at: u64, len: usize) -> Result<&'static [AtomicU8], Error> {
        let at = self.check(at, len)?;
        std::mem::forget(self.clone());
        // SAFETY: in bounds, and mapped for ever, since the clone above is never dropped; atomics may be
        // shared with whoever else writes here.
        Ok(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at).cast(), len) })
    }

    /// The word at `at`, which must be aligned.
    ///
    /// # Panics
    /// Where `at` is outside the mapping or not aligned: places of words are ours, not the peer's.
    #[inline]
    pub fn word64(&self, at: u64) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.len as u64, "word at {at}");
        // SAFETY: in bounds and aligned (mappings start on a page); an atomic may be shared.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(at as usize).cast()) }
    }

    /// The half word at `at`, which must be aligned.
    ///
    /// # Panics
    /// As [`Mapping::word64`].
    #[inline]
    pub fn word32(&self, at: u64) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.len as u64, "word at {at}");
        // SAFETY: in bounds and aligned; an atomic may be shared.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(at as usize).cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made; nobody holds a reference into it beyond `self`.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
