//! Mapped ranges as memory that a program may touch: the one module of this crate with `unsafe`.
//!
//! A mapped range is a copy: of the host's bytes, in the shared arena (reading) or on this side's heap
//! (writing, or without an arena). `wgpu`'s front end already makes sure that views of one buffer do
//! not overlap unless all only read, and that none outlives the mapping; a view here also keeps its
//! storage alive by itself.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pontoon_transport::shared::Download;

/// The bytes of a mapped range.
#[derive(Debug)]
pub(crate) struct Storage {
    first: NonNull<u8>,
    len: usize,
    _owner: Owner,
}

#[derive(Debug)]
#[allow(dead_code, reason = "owners keep memory alive")]
enum Owner {
    Heap(Box<[UnsafeCell<u8>]>),
    Arena(Arc<Download>),
}

// SAFETY: the memory is owned by `_owner` and stays in place; who may touch which part is decided by
// wgpu's front end, which lends non-overlapping views (see the module's text).
unsafe impl Send for Storage {}
// SAFETY: as above.
unsafe impl Sync for Storage {}

impl Storage {
    /// Storage of its own.
    pub fn heap(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        let bytes: Box<[UnsafeCell<u8>]> = bytes.into_iter().map(UnsafeCell::new).collect();
        let first = NonNull::from(&bytes[..]).cast();
        Self { first, len, _owner: Owner::Heap(bytes) }
    }

    /// Bytes that the host put into the arena.
    pub fn arena(download: &Arc<Download>, at: u64, len: usize) -> Option<Self> {
        let bytes = download.bytes(at, len).ok()?;
        Some(Self { first: bytes.cast(), len, _owner: Owner::Arena(download.clone()) })
    }

    /// A copy of bytes `range`.
    fn copy(&self, range: Range<usize>) -> Vec<u8> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds; views that could write have ended (the front end asserts it before `unmap`).
        unsafe { std::slice::from_raw_parts(self.first.add(range.start).as_ptr(), range.len()) }.to_vec()
    }
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Unmapped,
    Pending(u64),
    Mapped(Arc<Storage>),
}

#[derive(Debug, Default)]
struct Mapping {
    stage: Stage,
    range: Range<u64>,
    write: bool,
    /// Parts that the program may have written, within the buffer.
    dirty: Vec<Range<u64>>,
}

/// How far a buffer's mapping is.
#[derive(Debug, Default)]
pub(crate) struct BufferState(Mutex<Mapping>);

impl BufferState {
    fn lock(&self) -> MutexGuard<'_, Mapping> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer that is created mapped, all zero.
    pub fn mapped_at_creation(size: u64) -> Self {
        let stage = Stage::Mapped(Arc::new(Storage::heap(vec![0; size as usize])));
        Self(Mutex::new(Mapping { stage, range: 0..size, write: true, dirty: Vec::new() }))
    }

    /// Mapping `map` was asked for.
    pub fn ask(&self, map: u64, range: Range<u64>, write: bool) {
        *self.lock() = Mapping { stage: Stage::Pending(map), range, write, dirty: Vec::new() };
    }

    /// The host has answered mapping `map`; an error where nobody wants it any more.
    pub fn come_through(&self, map: u64, storage: Storage) -> Result<(), wgpu::BufferAsyncError> {
        let mut mapping = self.lock();
        if !matches!(mapping.stage, Stage::Pending(pending) if pending == map) {
            return Err(wgpu::BufferAsyncError);
        }
        // The arena is the host's to write: what the program may write is this side's own copy.
        let storage = if mapping.write { Storage::heap(storage.copy(0..storage.len)) } else { storage };
        mapping.stage = Stage::Mapped(Arc::new(storage));
        Ok(())
    }

    /// Part `range` of the buffer as memory, where it is mapped.
    pub fn view(self: &Arc<Self>, range: Range<u64>) -> Option<View> {
        let mapping = self.lock();
        let Stage::Mapped(storage) = &mapping.stage else { return None };
        let start = range.start.checked_sub(mapping.range.start)? as usize;
        let len = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        if start.checked_add(len)? > storage.len {
            return None;
        }
        // SAFETY: `start` was checked to lie within the storage.
        let first = unsafe { storage.first.add(start) };
        Some(View { first, len, range, storage: storage.clone(), buffer: self.clone() })
    }

    /// Ends the mapping: whether there was one (or one was asked for), and what was written.
    pub fn end(&self) -> Option<Vec<(u64, Vec<u8>)>> {
        let mapping = std::mem::take(&mut *self.lock());
        match mapping.stage {
            Stage::Unmapped => None,
            Stage::Pending(_) => Some(Vec::new()),
            Stage::Mapped(storage) => {
                let start = mapping.range.start;
                let copy = |part: Range<u64>| {
                    (part.start, storage.copy((part.start - start) as usize..(part.end - start) as usize))
                };
                Some(merge(mapping.dirty).into_iter().map(copy).collect())
            }
        }
    }
}

/// Ranges sorted, and joined where they touch.
fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// A view of part of a mapped range.
#[derive(Debug)]
pub(crate) struct View {
    first: NonNull<u8>,
    len: usize,
    range: Range<u64>,
    #[allow(dead_code, reason = "keeps the memory alive")]
    storage: Arc<Storage>,
    buffer: Arc<BufferState>,
}

// SAFETY: a view owns its right to its part of the storage, whichever thread holds it.
unsafe impl Send for View {}
// SAFETY: shared views only read.
unsafe impl Sync for View {}

impl View {
    /// A view of nothing, for ranges that the front end is about to reject.
    pub fn detached() -> Self {
        let storage = Arc::new(Storage::heap(Vec::new()));
        Self { first: storage.first, len: 0, range: 0..0, storage, buffer: Arc::default() }
    }
}

impl wgpu::custom::BufferMappedRangeInterface for View {
    fn len(&self) -> usize {
        self.len
    }

    // SAFETY: `wgpu`'s signature; what its caller promises is used below.
    unsafe fn read_slice(&self) -> &[u8] {
        // SAFETY: the part is in bounds and alive; the caller says that this is a view for reading, and
        // the front end lends no overlapping view for writing meanwhile.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }

    // SAFETY: `wgpu`'s signature; what its caller promises is used below.
    unsafe fn write_slice(&mut self) -> wgpu::WriteOnly<'_, [u8]> {
        self.buffer.lock().dirty.push(self.range.clone());
        // SAFETY: the part is in bounds and alive, of cells or of memory that only this side writes; the
        // caller says that this is a view for writing, and no other view overlaps it.
        unsafe { wgpu::WriteOnly::new(NonNull::slice_from_raw_parts(self.first, self.len)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_ranges_merge() {
        assert_eq!(merge(vec![8..12, 0..4, 4..8, 20..24]), vec![0..12, 20..24]);
    }
}
