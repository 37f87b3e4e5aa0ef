//! A tenant's chunks in sealed memory: the supervisor makes it, workers read it.
//!
//! Layout: the number of chunks (`u32`), each chunk's digest (32 bytes) and length (`u32`), then the chunks'
//! bytes in the same order; integers are little-endian.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pontoon_transport::memory;
use pontoon_wire::hello::Digest;
use pontoon_wire::limits::{MAX_INLINE_PAYLOAD, MAX_KEPT_CHUNKS};

use crate::{Error, digest};

/// Bytes of a page, in which memory is taken.
const PAGE: u64 = 4096;
/// Bytes of a chunk's entry in the table.
const ENTRY: usize = 36;

/// A chunk of a shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub len: u32,
    /// Where in the memory it begins.
    pub at: u64,
}

/// Where a chunk of a new shelf is copied from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub len: u32,
    /// The memory with its bytes.
    pub memory: BorrowedFd<'a>,
    /// Where they begin.
    pub at: u64,
    /// Whether somebody may have written there since its name was computed: then it is computed again.
    pub doubtful: bool,
}

/// Chunks that cannot change any more.
#[derive(Debug)]
pub struct Shelf {
    memory: OwnedFd,
    chunks: Vec<Chunk>,
    bytes: u64,
}

impl Shelf {
    /// Makes a shelf of chunks.
    ///
    /// # Errors
    /// What the system said; [`Error::Damaged`] for a chunk that is not what it is called.
    pub fn build(sources: &[Source<'_>]) -> Result<Self, Error> {
        let sources = &sources[..sources.len().min(MAX_KEPT_CHUNKS)];
        let mut chunks = Vec::with_capacity(sources.len());
        let mut at = 4 + (sources.len() * ENTRY) as u64;
        for source in sources {
            chunks.push(Chunk { digest: source.digest, len: source.len, at });
            at += u64::from(source.len);
        }
        let memory = memory::sealed(c"pontoon-uploads", |memory| fill(memory, sources, &chunks))?;
        Ok(Self { memory, chunks, bytes: at.next_multiple_of(PAGE) })
    }

    /// The shelf in memory that [`Shelf::build`] made.
    ///
    /// # Errors
    /// [`Error::Damaged`] where it is none.
    pub fn open(memory: OwnedFd) -> Result<Self, Error> {
        let mut count = [0; 4];
        read_at(&memory, &mut count, 0)?;
        let count = u32::from_le_bytes(count) as usize;
        if count > MAX_KEPT_CHUNKS {
            return Err(Error::Damaged("a shelf with too many chunks"));
        }
        let mut table = vec![0; count * ENTRY];
        read_at(&memory, &mut table, 4)?;
        let mut at = 4 + table.len() as u64;
        let (entries, _) = table.as_chunks::<ENTRY>();
        let chunks = entries.iter().map(|entry| {
            let mut digest = Digest::default();
            digest.copy_from_slice(&entry[..32]);
            let len = u32::from_le_bytes([entry[32], entry[33], entry[34], entry[35]]);
            let chunk = Chunk { digest, len, at };
            at += u64::from(len);
            chunk
        });
        let chunks = chunks.collect();
        Ok(Self { chunks, memory, bytes: at.next_multiple_of(PAGE) })
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copies a chunk's bytes.
    ///
    /// # Errors
    /// What the system said.
    pub fn read(&self, chunk: &Chunk, out: &mut [u8]) -> Result<(), Error> {
        read_at(&self.memory, out, chunk.at)
    }
}

impl AsFd for Shelf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// Writes a shelf: its chunks, each from where it is, and the table of them.
fn fill(memory: BorrowedFd<'_>, sources: &[Source<'_>], chunks: &[Chunk]) -> Result<(), Error> {
    let mut bytes = vec![0; MAX_INLINE_PAYLOAD];
    let mut table = (chunks.len() as u32).to_le_bytes().to_vec();
    for (source, chunk) in sources.iter().zip(chunks) {
        let bytes = bytes.get_mut(..source.len as usize).ok_or(Error::Damaged("a chunk is too long"))?;
        read_at(source.memory, bytes, source.at)?;
        if source.doubtful && digest(bytes) != source.digest {
            return Err(Error::Damaged("it was written while it was read"));
        }
        write_at(memory, bytes, chunk.at)?;
        table.extend_from_slice(&chunk.digest);
        table.extend_from_slice(&chunk.len.to_le_bytes());
    }
    write_at(memory, &table, 0)
}

pub(crate) fn read_at(memory: impl AsFd, mut out: &mut [u8], mut at: u64) -> Result<(), Error> {
    while !out.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::pread(&memory, &mut *out, at))? {
            0 => return Err(Error::Damaged("it ends early")),
            len => {
                out = &mut out[len..];
                at += len as u64;
            }
        }
    }
    Ok(())
}

pub(crate) fn write_at(memory: impl AsFd, mut bytes: &[u8], mut at: u64) -> Result<(), Error> {
    while !bytes.is_empty() {
        let len = rustix::io::retry_on_intr(|| rustix::io::pwrite(&memory, bytes, at))?;
        bytes = &bytes[len..];
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(contents: &[&[u8]]) -> Shelf {
        let source = memory::fixed(c"test", 1 << 16).unwrap();
        let mut at = 0;
        let mut sources = Vec::new();
        for bytes in contents {
            write_at(&source, bytes, at).unwrap();
            let len = bytes.len() as u32;
            sources.push(Source { digest: digest(bytes), len, memory: source.as_fd(), at, doubtful: true });
            at += bytes.len() as u64;
        }
        Shelf::build(&sources).unwrap()
    }

    #[test]
    fn a_shelf_is_read_again_and_cannot_be_written() {
        let shelf = made(&[b"one", b"", b"three"]);
        let again = Shelf::open(shelf.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(again.chunks(), shelf.chunks());
        assert_eq!((again.bytes(), shelf.bytes()), (PAGE, PAGE));
        let mut out = [0; 5];
        again.read(&again.chunks()[2], &mut out).unwrap();
        assert_eq!(&out, b"three");
        assert!(write_at(&again, b"x", 0).is_err(), "sealed");
        assert!(write_at(&again, b"x", 1 << 20).is_err(), "sealed");
        let chunk = again.chunks()[0];
        let (memory, at, len) = (again.as_fd(), chunk.at, chunk.len);
        let other = Source { digest: digest(b"two"), len, memory, at, doubtful: true };
        assert!(Shelf::build(&[other]).unwrap_err().to_string().contains("written while"));
    }

    #[test]
    fn what_is_no_shelf_is_refused() {
        let memory = memory::fixed(c"test", 16).unwrap();
        write_at(&memory, &u32::MAX.to_le_bytes(), 0).unwrap();
        assert!(Shelf::open(memory.try_clone().unwrap()).unwrap_err().to_string().contains("too many"));
        write_at(&memory, &5u32.to_le_bytes(), 0).unwrap();
        assert!(Shelf::open(memory).unwrap_err().to_string().contains("ends early"));
    }
}
