//! The host's side of a session's chunks: what the worker has of them.

use std::os::fd::OwnedFd;

use pontoon_wire::List;
use pontoon_wire::hello::{Digest, KeptUploads};
use pontoon_wire::limits::MAX_INLINE_PAYLOAD;

use crate::{Additions, Error, Ledger, Note, Shelf};

/// Keeps what a session's guest sends, and finds what it names.
#[derive(Debug)]
pub struct Kept {
    ledger: Ledger,
    shelf: Shelf,
    additions: Additions,
    /// Whether each chunk of the shelf was named already.
    named: Vec<bool>,
    /// Place and length of each chunk that the session added, in order.
    added: Vec<(u64, u32)>,
}

impl Kept {
    /// A session's keeper, and what its welcome announces: the shelf's chunks, and that `bytes` more are kept.
    ///
    /// # Errors
    /// [`Error`] where the memory is not what the supervisor should have made.
    pub fn open(shelf: OwnedFd, additions: OwnedFd, bytes: u64) -> Result<(Self, KeptUploads), Error> {
        let shelf = Shelf::open(shelf)?;
        let digests: Vec<_> = shelf.chunks().iter().map(|chunk| chunk.digest).collect();
        let chunks = List::new(digests).map_err(|_| Error::Damaged("a shelf with too many chunks"))?;
        let kept = KeptUploads { chunks, bytes };
        let keeper = Self {
            ledger: Ledger::new(&kept),
            named: vec![false; shelf.chunks().len()],
            shelf,
            additions: Additions::open(additions),
            added: Vec::new(),
        };
        Ok((keeper, kept))
    }

    /// Keeps a payload that arrived, if it is new and there is room.
    ///
    /// # Errors
    /// What the system said. The guest counts on the chunk: the session cannot go on.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Note::Added(_) = self.ledger.note(bytes) {
            let at = self.additions.add(bytes)?;
            self.added.push((at, bytes.len() as u32));
        }
        Ok(())
    }

    /// Puts the bytes of a chunk that the guest named into `out`; whether the chunk is known and has `len` bytes.
    ///
    /// # Errors
    /// What the system said.
    pub fn find(&mut self, digest: &Digest, len: u32, out: &mut Vec<u8>) -> Result<bool, Error> {
        let Some(number) = self.ledger.number(digest) else { return Ok(false) };
        let on_shelf = self.shelf.chunks().get(number as usize).copied();
        let added = (number as usize)
            .checked_sub(self.shelf.chunks().len())
            .and_then(|at| self.added.get(at))
            .copied();
        let known = on_shelf.map(|chunk| chunk.len).or_else(|| added.map(|(_, len)| len));
        if known != Some(len) || len as usize > MAX_INLINE_PAYLOAD {
            return Ok(false);
        }
        out.resize(len as usize, 0);
        match (on_shelf, added) {
            (Some(chunk), _) => {
                self.shelf.read(&chunk, out)?;
                if !std::mem::replace(&mut self.named[number as usize], true) {
                    self.additions.name(number)?;
                }
            }
            (None, Some((at, _))) => self.additions.read(at, out)?,
            (None, None) => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::{MIN_CHUNK, digest};

    #[test]
    fn what_was_sent_is_found_and_nothing_else() {
        let old = vec![3; MIN_CHUNK];
        let mut first = Additions::create(1 << 20).unwrap();
        let at = first.add(&old).unwrap();
        let source = crate::Source {
            digest: digest(&old),
            len: old.len() as u32,
            memory: first.as_fd(),
            at,
            doubtful: true,
        };
        let shelf = Shelf::build(&[source]).unwrap();
        let additions = Additions::create(4 * MIN_CHUNK as u64).unwrap();
        let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let (mut keeper, kept) =
            Kept::open(own(shelf.as_fd()), own(additions.as_fd()), 4 * MIN_CHUNK as u64).unwrap();
        assert_eq!(&*kept.chunks, &[digest(&old)]);
        let (new, mut out) = (vec![4; 2 * MIN_CHUNK], Vec::new());
        assert!(!keeper.find(&digest(&new), new.len() as u32, &mut out).unwrap());
        keeper.keep(&new).unwrap();
        keeper.keep(&new).unwrap();
        keeper.keep(&vec![5; 3 * MIN_CHUNK]).unwrap();
        for bytes in [&new, &old, &old] {
            assert!(keeper.find(&digest(bytes), bytes.len() as u32, &mut out).unwrap());
            assert_eq!(&out, bytes);
            assert!(
                !keeper.find(&digest(bytes), bytes.len() as u32 - 4, &mut out).unwrap(),
                "another length"
            );
        }
        assert!(
            !keeper.find(&digest(&vec![5; 3 * MIN_CHUNK]), 3 * MIN_CHUNK as u32, &mut out).unwrap(),
            "no room"
        );
        let (added, named) = additions.records().unwrap();
        assert_eq!((added.len(), added[0].digest, named), (1, digest(&new), vec![0]));
    }
}
