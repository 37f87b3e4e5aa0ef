//! Memory that a virtual machine shares with this host: its sessions have their rings and arenas there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pontoon_transport::shared::MARK;
use pontoon_wire::hello::{SharedLayout, SharedPlace};

use rustix::fs::{FileType, Mode, OFlags};

use crate::config::Limits;

/// Sessions of one machine that have memory at once; more do without.
const SLOTS: usize = 4;
/// Fewest bytes of a session's memory.
const MIN_SLOT: u64 = 4 << 20;
/// Kinds of file systems (`statfs(2)`).
const TMPFS: u32 = 0x0102_1994;
const HUGETLBFS: u32 = 0x9584_58f6;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// How long a part rests that its guest has not left by itself: the program may still look at it, and write.
const REST: Duration = Duration::from_secs(30);

/// The memory of one machine.
#[derive(Debug)]
pub struct MachineMemory {
    memory: OwnedFd,
    bytes: u64,
    parts: Mutex<[Part; SLOTS]>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Part {
    #[default]
    Fresh,
    Taken,
    /// Since when.
    Free(Instant),
    /// Until when.
    Resting(Instant),
}

impl Part {
    /// Where in line it is for the next session: those that nobody has used come first, then those unused for longest.
    fn rank(self, now: Instant) -> Option<Duration> {
        match self {
            Self::Fresh => Some(Duration::MAX),
            Self::Free(since) => Some(now - since),
            Self::Resting(until) => now.checked_duration_since(until),
            Self::Taken => None,
        }
    }
}

/// A session's part; another session's once this is dropped.
#[derive(Debug)]
pub struct Slot {
    machine: Arc<MachineMemory>,
    index: usize,
    left: bool,
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
        Ok(Arc::new(Self { memory, bytes, parts: Mutex::default() }))
    }

    /// The memory in a file, which the machine's monitor has made: a plain file in memory, not a link to one, nor one
    /// with other names. `known` is what the file was when it was opened last.
    ///
    /// # Errors
    /// A sentence with the path.
    pub fn open(path: &Path, known: Option<&Arc<Self>>) -> Result<Arc<Self>, String> {
        let named = |why: &str| format!("listen.vms.memory {}: {why}", path.display());
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| named(&error.to_string()))?;
        let found = rustix::fs::fstat(&file).map_err(|error| named(&error.to_string()))?;
        let place = rustix::fs::fstatfs(&file).map_err(|error| named(&error.to_string()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || found.st_nlink != 1 {
            return Err(named("it must be a plain file with one name"));
        }
        if ![TMPFS, HUGETLBFS].contains(&(place.f_type as u32)) {
            return Err(named("it must be in memory, in /dev/shm or a hugetlbfs"));
        }
        let same = |known: &&Arc<Self>| {
            rustix::fs::fstat(&known.memory)
                .is_ok_and(|known| (known.st_dev, known.st_ino) == (found.st_dev, found.st_ino))
        };
        match known.filter(same) {
            Some(known) => Ok(known.clone()),
            None => Self::new(file).map_err(|why| named(&why)),
        }
    }

    /// A part for a session, empty and with a mark of its own; nothing where all are taken.
    pub fn take(self: &Arc<Self>, limits: &Limits, rings: (u32, u32)) -> Option<Slot> {
        let size = self.bytes / SLOTS as u64 / PAGE * PAGE;
        let left = size.checked_sub(PAGE + u64::from(rings.0) + u64::from(rings.1))?;
        let upload = limits.upload_bytes.min(left / 3 / PAGE * PAGE);
        let download = limits.download_bytes.min(left - upload);
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let ranks = parts.iter().enumerate().filter_map(|(index, part)| Some((part.rank(now)?, index)));
        // Of equals the first.
        let (_, index) = ranks.max_by_key(|(rank, index)| (*rank, std::cmp::Reverse(*index)))?;
        let offset = index as u64 * size;
        let mut mark = [0; 16];
        let random = getrandom::fill(&mut mark);
        let mut page = [0; PAGE as usize];
        page[MARK as usize..][..mark.len()].copy_from_slice(&mark);
        let written = rustix::io::pwrite(&self.memory, &page, offset);
        if random.is_err() || written != Ok(page.len()) {
            log::warn!("a virtual machine's shared memory cannot be written");
            return None;
        }
        parts[index] = Part::Taken;
        let layout = SharedLayout {
            to_host: rings.0,
            to_guest: rings.1,
            upload,
            download: download / PAGE * PAGE,
            place: Some(SharedPlace { offset, mark }),
        };
        Some(Slot { machine: self.clone(), index, left: false, layout })
    }
}

impl AsFd for Slot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.machine.memory.as_fd()
    }
}

impl Slot {
    /// Says that the guest has ended the session itself: it looks at the part no more.
    pub fn is_left(&mut self) {
        self.left = true;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = Instant::now();
        let part = if self.left { Part::Free(now) } else { Part::Resting(now + REST) };
        self.machine.parts.lock().unwrap_or_else(PoisonError::into_inner)[self.index] = part;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

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
        let mut slots = slots.into_iter();
        drop(slots.next());
        assert!(take().is_none(), "whose session the host has ended may still look at it");
        let mut second = slots.next().unwrap();
        second.is_left();
        drop(second);
        let again = take().unwrap();
        assert_eq!(again.layout.place.unwrap().offset, places[1].offset);
        assert_ne!(again.layout.place.unwrap().mark, places[1].mark);
        let small = rustix::fs::memfd_create(c"test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert!(MachineMemory::new(small).unwrap_err().contains("the minimum is 16777216"));
    }

    #[test]
    fn files_are_plain_and_in_memory() {
        let folder = Path::new("/dev/shm").join(format!("pontoon-machine-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (path, link) = (folder.join("memory"), folder.join("link"));
        File::create(&path).unwrap().set_len(64 << 20).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let memory = MachineMemory::open(&path, None).unwrap();
        assert!(Arc::ptr_eq(&memory, &MachineMemory::open(&path, Some(&memory)).unwrap()));
        assert!(MachineMemory::open(&link, None).is_err(), "links are not followed");
        std::fs::hard_link(&path, folder.join("other")).unwrap();
        assert!(MachineMemory::open(&path, None).unwrap_err().contains("one name"));
        let own = std::env::current_exe().unwrap();
        assert!(MachineMemory::open(&own, None).is_err(), "not in memory");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
