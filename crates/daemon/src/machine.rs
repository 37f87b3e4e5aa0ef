//! Memory that a virtual machine shares with this host: its sessions have their rings and arenas there.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use pontoon_transport::shared::MARK;
use pontoon_wire::hello::{SharedLayout, SharedPlace};

use crate::config::Limits;

/// Sessions of one machine that have memory at once; more do without.
const SLOTS: usize = 4;
/// Fewest bytes of a session's memory.
const MIN_SLOT: u64 = 4 << 20;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// The memory of one machine.
#[derive(Debug)]
pub struct MachineMemory {
    memory: OwnedFd,
    bytes: u64,
    taken: Mutex<[bool; SLOTS]>,
}

/// A session's part; another session's once this is dropped.
#[derive(Debug)]
pub struct Slot {
    machine: Arc<MachineMemory>,
    index: usize,
    /// Where it is, and its parts.
    pub layout: SharedLayout,
}

impl MachineMemory {
    /// The memory behind a descriptor.
    ///
    /// # Errors
    /// A sentence: it is too small.
    pub fn new(memory: OwnedFd) -> Result<Arc<Self>, String> {
        let bytes = rustix::fs::fstat(&memory).map_err(|error| error.to_string())?.st_size as u64;
        if bytes / (SLOTS as u64) < MIN_SLOT {
            return Err(format!("the memory has {bytes} bytes, the minimum is {}", MIN_SLOT * SLOTS as u64));
        }
        Ok(Arc::new(Self { memory, bytes, taken: Mutex::default() }))
    }

    /// The memory in a file, which the machine's monitor has made.
    ///
    /// # Errors
    /// A sentence with the path.
    pub fn open(path: &Path) -> Result<Arc<Self>, String> {
        let named = |error: String| format!("listen.vms.memory {}: {error}", path.display());
        let file =
            File::options().read(true).write(true).open(path).map_err(|error| named(error.to_string()))?;
        Self::new(file.into()).map_err(named)
    }

    /// A part for a session, empty and with a mark of its own; nothing where all are taken.
    pub fn take(self: &Arc<Self>, limits: &Limits, rings: (u32, u32)) -> Option<Slot> {
        let size = self.bytes / SLOTS as u64 / PAGE * PAGE;
        let left = size.checked_sub(PAGE + u64::from(rings.0) + u64::from(rings.1))?;
        let upload = limits.upload_bytes.min(left / 3 / PAGE * PAGE);
        let download = limits.download_bytes.min(left - upload);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let index = taken.iter().position(|taken| !taken)?;
        let offset = index as u64 * size;
        let mut mark = [0; 16];
        let random = rustix::rand::getrandom(&mut mark, rustix::rand::GetRandomFlags::empty());
        let mut page = [0; PAGE as usize];
        page[MARK as usize..][..mark.len()].copy_from_slice(&mark);
        let written = rustix::io::pwrite(&self.memory, &page, offset);
        if random != Ok(mark.len()) || written != Ok(page.len()) {
            log::warn!("a virtual machine's shared memory cannot be written");
            return None;
        }
        taken[index] = true;
        let layout = SharedLayout {
            to_host: rings.0,
            to_guest: rings.1,
            upload,
            download: download / PAGE * PAGE,
            place: Some(SharedPlace { offset, mark }),
        };
        Some(Slot { machine: self.clone(), index, layout })
    }
}

impl AsFd for Slot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.machine.memory.as_fd()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.machine.taken.lock().unwrap_or_else(PoisonError::into_inner)[self.index] = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_and_given_back() {
        let memory = || {
            let memory = rustix::fs::memfd_create(c"test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&memory, 64 << 20).unwrap();
            memory
        };
        let machine = MachineMemory::new(memory()).unwrap();
        let take = || machine.take(&Limits::default(), (1 << 20, 1 << 18));
        let slots: Vec<_> = (0..SLOTS).map(|_| take().unwrap()).collect();
        assert!(take().is_none());
        let places: Vec<_> = slots.iter().map(|slot| slot.layout.place.unwrap()).collect();
        for (at, place) in places.iter().enumerate() {
            assert_eq!(place.offset, at as u64 * (16 << 20));
            let others = places.iter().filter(|other| other.mark == place.mark);
            assert_eq!(others.count(), 1, "marks differ");
        }
        let SharedLayout { to_host, to_guest, upload, download, .. } = slots[0].layout;
        assert!(u64::from(to_host) + u64::from(to_guest) + upload + download + PAGE <= 16 << 20);
        drop(slots);
        assert!(take().is_some());
        let small = rustix::fs::memfd_create(c"test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert!(MachineMemory::new(small).unwrap_err().contains("the minimum is 16777216"));
    }
}
