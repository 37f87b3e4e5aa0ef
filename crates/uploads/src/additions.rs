//! What one session adds to its tenant's chunks, in memory of a fixed size that its worker writes.
//!
//! Layout: records one after the other, each a word (`u32`, little-endian). A word with its highest bit set says
//! that the chunk with that number of the shelf was named; any other is the length of a chunk whose bytes
//! follow. A word of zero, which is what memory holds that was never written, ends it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pontoon_transport::memory;
use pontoon_wire::hello::Digest;
use pontoon_wire::limits::{MAX_INLINE_PAYLOAD, MAX_KEPT_CHUNKS};

use crate::shelf::{read_at, write_at};
use crate::{Error, MIN_CHUNK, digest};

/// The bit of a record's word that says that a chunk of the shelf was named.
const NAMED: u32 = 1 << 31;

/// Memory for additions.
#[derive(Debug)]
pub struct Additions {
    memory: OwnedFd,
    /// Where the next record goes.
    end: u64,
}

/// A chunk that a session added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Its name, computed from the bytes that are there now.
    pub digest: Digest,
    /// Bytes.
    pub len: u32,
    /// Where in the memory they begin.
    pub at: u64,
}

impl Additions {
    /// Memory for `bytes` bytes of chunks. It takes up what is written, and cannot grow.
    ///
    /// # Errors
    /// What the system said.
    pub fn create(bytes: u64) -> Result<Self, Error> {
        let words = 2 * MAX_KEPT_CHUNKS as u64 + 1;
        let memory = memory::fixed(c"pontoon-upload-additions", bytes + 4 * words)?;
        Ok(Self::open(memory))
    }

    /// The memory behind a descriptor, without records.
    pub fn open(memory: OwnedFd) -> Self {
        Self { memory, end: 0 }
    }

    /// Adds a chunk; where its bytes begin.
    ///
    /// # Errors
    /// What the system said; the memory has no room.
    pub fn add(&mut self, bytes: &[u8]) -> Result<u64, Error> {
        // The word comes last: a worker that is killed in between has added nothing.
        let at = self.end + 4;
        write_at(&self.memory, bytes, at)?;
        write_at(&self.memory, &(bytes.len() as u32).to_le_bytes(), self.end)?;
        self.end = at + bytes.len() as u64;
        Ok(at)
    }

    /// Notes that a chunk of the shelf was named.
    ///
    /// # Errors
    /// What the system said; the memory has no room.
    pub fn name(&mut self, number: u32) -> Result<(), Error> {
        write_at(&self.memory, &(NAMED | number).to_le_bytes(), self.end)?;
        self.end += 4;
        Ok(())
    }

    /// Copies the bytes of a chunk that begins at `at`.
    ///
    /// # Errors
    /// What the system said.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Error> {
        read_at(&self.memory, out, at)
    }

    /// What is there, once the worker that wrote it is gone: the chunks added, and the numbers of those named.
    /// Nothing of it is believed: lengths are checked and digests computed.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the records are not well-formed.
    pub fn records(&self) -> Result<(Vec<Added>, Vec<u32>), Error> {
        let size = rustix::fs::fstat(&self.memory)?.st_size as u64;
        let (mut added, mut named) = (Vec::new(), Vec::new());
        let mut bytes = vec![0; MAX_INLINE_PAYLOAD];
        let mut at = 0;
        while at + 4 <= size && added.len() + named.len() < 2 * MAX_KEPT_CHUNKS {
            let mut word = [0; 4];
            read_at(&self.memory, &mut word, at)?;
            at += 4;
            match u32::from_le_bytes(word) {
                0 => break,
                word if word & NAMED != 0 => named.push(word & !NAMED),
                len => {
                    let bytes = bytes
                        .get_mut(..len as usize)
                        .filter(|bytes| bytes.len() >= MIN_CHUNK)
                        .ok_or(Error::Damaged("a chunk of impossible length"))?;
                    read_at(&self.memory, bytes, at)?;
                    added.push(Added { digest: digest(bytes), len, at });
                    at += u64::from(len);
                }
            }
        }
        Ok((added, named))
    }
}

impl AsFd for Additions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_with_digests_of_what_is_there() {
        let mut additions = Additions::create(1 << 20).unwrap();
        let (a, b) = (vec![1; MIN_CHUNK], vec![2; MAX_INLINE_PAYLOAD]);
        let at = additions.add(&a).unwrap();
        additions.name(5).unwrap();
        additions.add(&b).unwrap();
        // What a worker writes over its records later is what counts.
        write_at(&additions, &[9], at).unwrap();
        let (added, named) = additions.records().unwrap();
        assert_eq!(named, [5]);
        assert_eq!(added.len(), 2);
        assert_ne!(added[0].digest, digest(&a));
        assert_eq!((added[1].digest, added[1].len), (digest(&b), b.len() as u32));
    }

    #[test]
    fn memory_does_not_grow_and_nonsense_in_it_is_refused() {
        let mut additions = Additions::create(4096).unwrap();
        assert!(additions.add(&vec![1; MAX_INLINE_PAYLOAD]).is_err(), "no room");
        assert_eq!(additions.records().unwrap(), (vec![], vec![]));
        for word in [1u32, MIN_CHUNK as u32 - 1, MAX_INLINE_PAYLOAD as u32 + 1, NAMED - 1] {
            let additions = Additions::create(1 << 20).unwrap();
            write_at(&additions, &word.to_le_bytes(), 0).unwrap();
            assert!(additions.records().is_err(), "{word}");
        }
        let full = Additions::create(MIN_CHUNK as u64).unwrap();
        let words: Vec<u8> = std::iter::repeat_n(NAMED.to_le_bytes(), 8000).flatten().collect();
        write_at(&full, &words, 0).unwrap();
        assert_eq!(full.records().unwrap().1.len(), 8000);
    }
}
