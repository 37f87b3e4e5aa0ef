//! Owns simulated crashes, for tests only: the n-th step on the disk fails, and all later ones of
//! the same thread too, as if the process had died there; or the process really dies there.

use std::{cell::Cell, io};

thread_local! {
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    static TAKEN: Cell<u32> = const { Cell::new(0) };
    static DIE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with a crash at step `at` (from 0); `None` if it ended before.
pub(super) fn crash_at<T>(at: u32, work: impl FnOnce() -> T) -> T {
    LEFT.set(Some(at));
    let result = work();
    LEFT.set(None);
    result
}

/// From now on the process dies at step `at`, with no chance to tidy up.
pub(super) fn die_at(at: u32) {
    LEFT.set(Some(at));
    DIE.set(true);
}

/// How many steps `work` takes.
pub(super) fn count(work: impl FnOnce()) -> u32 {
    TAKEN.set(0);
    work();
    TAKEN.get()
}

pub(super) fn step() -> io::Result<()> {
    TAKEN.set(TAKEN.get() + 1);
    match LEFT.get() {
        None => Ok(()),
        Some(0) if DIE.get() => std::process::abort(),
        Some(0) => Err(io::Error::other("simulated crash")),
        Some(left) => {
            LEFT.set(Some(left - 1));
            Ok(())
        }
    }
}
