//! What guest and host both know of a session's chunks.

use std::collections::HashMap;

use pontoon_wire::hello::{Digest, KeptUploads};
use pontoon_wire::limits::MAX_KEPT_CHUNKS;

use crate::{MIN_CHUNK, SMALL_CHUNK, digest};

/// The account of a session's chunks. Guest and host note the same payloads in the same order and so come to
/// the same account: the host never has to say what it kept.
#[derive(Debug)]
pub struct Ledger {
    /// Number of each chunk: first those of the shelf in its order, then those added in theirs.
    numbers: HashMap<Digest, u32>,
    bytes_left: u64,
    chunks_left: usize,
    /// How many of them may be small.
    small_left: usize,
}

/// What a payload is to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Too small to be a chunk.
    Small,
    /// Known: it may be named.
    Known(Digest),
    /// New, and kept from now on.
    Added(Digest),
    /// New; there is no room to keep it.
    Full,
}

impl Ledger {
    /// The account at a session's beginning, as the host announced it.
    pub fn new(kept: &KeptUploads) -> Self {
        let numbers = kept.chunks.iter().copied().zip(0..).collect();
        Self {
            numbers,
            bytes_left: kept.bytes,
            chunks_left: MAX_KEPT_CHUNKS,
            small_left: MAX_KEPT_CHUNKS / 2,
        }
    }

    /// The number of a chunk, if it is known.
    pub fn number(&self, digest: &Digest) -> Option<u32> {
        self.numbers.get(digest).copied()
    }

    /// Notes a payload that is sent or was received, not one that is named.
    pub fn note(&mut self, bytes: &[u8]) -> Note {
        if bytes.len() < MIN_CHUNK {
            return Note::Small;
        }
        let name = digest(bytes);
        if self.numbers.contains_key(&name) {
            return Note::Known(name);
        }
        let len = bytes.len() as u64;
        let small = usize::from(bytes.len() < SMALL_CHUNK);
        if self.bytes_left < len || self.chunks_left == 0 || self.small_left < small {
            return Note::Full;
        }
        self.bytes_left -= len;
        self.chunks_left -= 1;
        self.small_left -= small;
        let number = self.numbers.len() as u32;
        self.numbers.insert(name, number);
        Note::Added(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(chunks: Vec<Digest>, bytes: u64) -> KeptUploads {
        KeptUploads { chunks: pontoon_wire::List::cut(chunks), bytes }
    }

    proptest! {
        /// A guest names what it finds known; the host, which notes only what arrives, knows it too.
        #[test]
        fn both_sides_agree(payloads in prop::collection::vec((0u8..6, 200usize..2000), 0..60), budget in 0u64..20_000) {
            let first = vec![7u8; 1500];
            let offer = kept(vec![digest(&first)], budget);
            let (mut guest, mut host) = (Ledger::new(&offer), Ledger::new(&offer));
            let mut spent = 0;
            for (fill, len) in payloads {
                let bytes = vec![fill; len];
                match guest.note(&bytes) {
                    Note::Known(name) => prop_assert!(host.number(&name).is_some()),
                    sent => {
                        prop_assert_eq!(host.note(&bytes), sent);
                        if let Note::Added(_) = sent { spent += len as u64 }
                    }
                }
            }
            prop_assert!(spent <= budget);
        }
    }

    #[test]
    fn small_chunks_leave_half_of_the_places() {
        let mut ledger = Ledger::new(&kept(Vec::new(), u64::MAX));
        let mut fill = |len: usize, notes: usize| {
            let added = |at: usize| {
                let mut bytes = vec![len as u8; len];
                bytes[..8].copy_from_slice(&at.to_le_bytes());
                matches!(ledger.note(&bytes), Note::Added(_))
            };
            (0..notes).map(added).filter(|added| *added).count()
        };
        assert_eq!(fill(MIN_CHUNK, 5000), MAX_KEPT_CHUNKS / 2);
        assert_eq!(fill(SMALL_CHUNK, 5000), MAX_KEPT_CHUNKS / 2);
    }

    #[test]
    fn what_was_announced_is_known_from_the_beginning() {
        let bytes = vec![1; MIN_CHUNK];
        let mut ledger = Ledger::new(&kept(vec![digest(&bytes)], 0));
        assert_eq!(ledger.note(&bytes), Note::Known(digest(&bytes)));
        assert_eq!(ledger.note(&bytes[1..]), Note::Small);
        assert_eq!(ledger.note(&vec![2; MIN_CHUNK]), Note::Full);
    }
}
