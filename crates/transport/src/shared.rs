//! Memory that a guest and a host share: layout, creation, rings and the upload arena.

mod mapping;
mod ring;
mod upload;

pub use mapping::Mapping;
pub use ring::{Bell, Consumer, LAST_WORDS, Producer, WAKE};
pub use upload::{Download, Upload};

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::{Error, memory};

/// Bytes of a page; every part starts on one.
const PAGE: u64 = 4096;

/// Where in a session's first page its mark is, in the memory of a virtual machine.
pub const MARK: u64 = 0x400;

/// Sizes of the parts of the shared memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Ring from guest to host; a power of two.
    pub to_host: u64,
    /// Ring from host to guest; a power of two.
    pub to_guest: u64,
    /// Uploads.
    pub upload: u64,
    /// Mapped ranges.
    pub download: u64,
}

impl Sizes {
    /// Where the parts begin, and the whole size.
    fn offsets(&self) -> Result<[u64; 5], Error> {
        let ring = |size: u64| size.is_power_of_two() && (PAGE..=1 << 28).contains(&size);
        let arena = |size: u64| size.is_multiple_of(PAGE) && size <= 1 << 40;
        if !ring(self.to_host) || !ring(self.to_guest) || !arena(self.upload) || !arena(self.download) {
            return Err(Error::Corrupt("impossible layout"));
        }
        let mut offsets = [PAGE; 5];
        for (index, size) in [self.to_host, self.to_guest, self.upload, self.download].into_iter().enumerate()
        {
            offsets[index + 1] = offsets[index] + size;
        }
        Ok(offsets)
    }
}

/// The shared memory of one session, mapped.
#[derive(Debug, Clone)]
pub struct Shared {
    mapping: Arc<Mapping>,
    sizes: Sizes,
    /// Whether other sessions have used it before: then it is not zero.
    used: bool,
}

/// Which side of the session this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Records commands.
    Guest,
    /// Executes them.
    Host,
}

impl Shared {
    /// Creates the memory, sealed so that the guest cannot shrink it under the host.
    ///
    /// # Errors
    /// [`Error::Io`] where the system has no memory or no memfd.
    pub fn create(sizes: Sizes) -> Result<(Self, OwnedFd), Error> {
        let [.., len] = sizes.offsets()?;
        let fd = memory::fixed(c"pontoon-session", len)
            .map_err(|source| Error::Io { what: "creating shared memory", source })?;
        let mapping = Arc::new(Mapping::new(fd.as_fd(), len as usize)?);
        Ok((Self { mapping, sizes, used: false }, fd))
    }

    /// Maps memory that the other side created.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the descriptor is not a sealed memfd of the right size, [`Error::Io`]
    /// where mapping fails.
    pub fn open(fd: OwnedFd, sizes: Sizes) -> Result<Self, Error> {
        let [.., len] = sizes.offsets()?;
        let sealed = memory::cannot_shrink(fd.as_fd())
            .map_err(|source| Error::Io { what: "reading seals", source })?;
        let size = rustix::fs::fstat(&fd).map_err(Error::io("sizing shared memory"))?.st_size;
        if !sealed || size as u64 != len {
            return Err(Error::Corrupt("shared memory is not sealed or not of the agreed size"));
        }
        Ok(Self { mapping: Arc::new(Mapping::new(fd.as_fd(), len as usize)?), sizes, used: false })
    }

    /// Maps a session's part of memory that a virtual machine shares with its host, `offset` bytes from its
    /// beginning. Such memory is not sealed: who cuts it short ends the processes that use it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the memory is not that large, [`Error::Io`] where mapping fails.
    pub fn within(memory: impl AsFd, offset: u64, sizes: Sizes) -> Result<Self, Error> {
        let [.., len] = sizes.offsets()?;
        let size = rustix::fs::fstat(&memory).map_err(Error::io("sizing shared memory"))?.st_size as u64;
        if !offset.is_multiple_of(PAGE) || offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(Error::Corrupt("a part beyond the shared memory"));
        }
        let mapping = Arc::new(Mapping::within(memory.as_fd(), offset, len as usize)?);
        Ok(Self { mapping, sizes, used: true })
    }

    /// What the host wrote at [`MARK`], by which the guest knows that this is the memory that it was told of.
    pub fn mark(&self) -> [u8; 16] {
        let mut mark = [0; 16];
        // Within the first page, which every layout has.
        let _ = self.mapping.read(MARK, &mut mark);
        mark
    }

    /// The two ends of the rings that `side` uses: what it sends into and what it receives from.
    ///
    /// # Errors
    /// Never for a layout that was created or opened.
    pub fn rings(&self, side: Side) -> Result<(Producer, Consumer), Error> {
        let [to_host, to_guest, ..] = self.sizes.offsets()?;
        let a = (0, to_host, self.sizes.to_host);
        let b = (0x100, to_guest, self.sizes.to_guest);
        let (send, receive) = if side == Side::Guest { (a, b) } else { (b, a) };
        Ok((
            Producer::new(self.mapping.clone(), send.0, send.1, send.2),
            Consumer::new(self.mapping.clone(), receive.0, receive.1, receive.2),
        ))
    }

    /// The part for uploads.
    ///
    /// # Errors
    /// Never for a layout that was created or opened.
    pub fn upload(&self) -> Result<Upload, Error> {
        let [_, _, upload, ..] = self.sizes.offsets()?;
        Ok(Upload::new(self.mapping.clone(), 0x200, upload, self.sizes.upload))
    }

    /// The part for mapped ranges.
    ///
    /// # Errors
    /// Never for a layout that was created or opened.
    pub fn download(&self) -> Result<Download, Error> {
        let [_, _, _, download, _] = self.sizes.offsets()?;
        let fresh = if self.used { self.sizes.download } else { 0 };
        Ok(Download::new(self.mapping.clone(), download, self.sizes.download, fresh))
    }
}
