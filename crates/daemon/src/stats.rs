//! A session's accounts, in a page that the worker writes and the supervisor reads: `pontoon ps` costs
//! the session nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use pontoon_executor::Usage;
use pontoon_transport::memory;
use pontoon_transport::shared::Mapping;

const PAGE: usize = 4096;

/// The page.
#[derive(Debug)]
pub struct Page(Mapping);

impl Page {
    /// A new page, and the descriptor for the worker.
    ///
    /// # Errors
    /// What the system said.
    pub fn create() -> std::io::Result<(Self, OwnedFd)> {
        // A worker that a guest took over must not pull the page from under the supervisor.
        let fd = memory::fixed(c"pontoon-accounts", PAGE as u64)?;
        let page = Self::open(fd.as_fd())?;
        Ok((page, fd))
    }

    /// The page behind a descriptor.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(fd: BorrowedFd<'_>) -> std::io::Result<Self> {
        Mapping::new(fd, PAGE).map(Self).map_err(std::io::Error::other)
    }

    /// Writes the accounts.
    pub fn write(&self, usage: &Usage, bytes: u64) {
        for (index, value) in fields(usage).into_iter().chain([bytes]).enumerate() {
            self.0.word64(index as u64 * 8).store(value, Ordering::Relaxed);
        }
    }

    /// Reads the accounts, and the bytes that the guest has sent.
    pub fn read(&self) -> (Usage, u64) {
        let word = |index: u64| self.0.word64(index * 8).load(Ordering::Relaxed);
        let usage = Usage {
            memory_bytes: word(0),
            objects: word(1),
            commands: word(2),
            round_trips: word(3),
            submissions: word(4),
            gpu_nanoseconds: word(5),
            errors: word(6),
            uploaded_bytes: word(7),
            named_bytes: word(8),
        };
        (usage, word(9))
    }
}

fn fields(usage: &Usage) -> [u64; 9] {
    [
        usage.memory_bytes,
        usage.objects,
        usage.commands,
        usage.round_trips,
        usage.submissions,
        usage.gpu_nanoseconds,
        usage.errors,
        usage.uploaded_bytes,
        usage.named_bytes,
    ]
}
