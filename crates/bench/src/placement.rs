//! Owns where the sampling thread starts: on each CPU in turn.
//!
//! A driver's or a bridge's own threads stay where they first ran, on the caller's CPU or on another,
//! and the one can cost twice what the other does, for as long as a session lives. Chance would favour
//! one target for a whole run; beginning every round elsewhere shows each target in every placement.

/// Moves the calling thread to the CPU that is `turn`'s, and lets it wander again from there.
#[cfg(target_os = "linux")]
pub(crate) fn move_on(turn: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let Ok(allowed) = sched_getaffinity(None) else { return };
    let count = allowed.count() as usize;
    let Some(cpu) = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).nth(turn % count.max(1)) else {
        return;
    };
    let mut here = CpuSet::new();
    here.set(cpu);
    // Where this is forbidden, the scheduler places the thread, as it would have anyway.
    if sched_setaffinity(None, &here).is_ok() {
        let _ = sched_setaffinity(None, &allowed);
    }
}

/// Elsewhere threads cannot be placed.
#[cfg(not(target_os = "linux"))]
pub(crate) fn move_on(_: usize) {}
