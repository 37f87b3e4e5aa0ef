//! Owns amounts of memory, in the host's RAM and on its GPUs.

use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// Bytes of main memory and of GPU memory (all GPUs together).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub host: u64,
    pub gpu: u64,
}

impl Memory {
    /// Nothing.
    pub const NONE: Memory = Memory { host: 0, gpu: 0 };

    /// Main memory only.
    pub fn host(bytes: u64) -> Memory {
        Memory { host: bytes, gpu: 0 }
    }

    /// True if this fits into `room`, in both kinds.
    pub fn fits(self, room: Memory) -> bool {
        self.host <= room.host && self.gpu <= room.gpu
    }

    /// What remains after `other` is taken, at least nothing.
    pub fn without(self, other: Memory) -> Memory {
        Memory { host: self.host.saturating_sub(other.host), gpu: self.gpu.saturating_sub(other.gpu) }
    }

    /// The larger of both, kind by kind.
    pub fn max(self, other: Memory) -> Memory {
        Memory { host: self.host.max(other.host), gpu: self.gpu.max(other.gpu) }
    }

    /// The smaller of both, kind by kind.
    pub fn min(self, other: Memory) -> Memory {
        Memory { host: self.host.min(other.host), gpu: self.gpu.min(other.gpu) }
    }

    /// Half as much again.
    pub fn and_a_half(self) -> Memory {
        self + Memory { host: self.host / 2, gpu: self.gpu / 2 }
    }

    /// Both kinds together.
    pub fn total(self) -> u64 {
        self.host.saturating_add(self.gpu)
    }

    /// True if some kind of `other` is present here: taking this away would help `other`.
    pub fn helps(self, other: Memory) -> bool {
        (self.host > 0 && other.host > 0) || (self.gpu > 0 && other.gpu > 0)
    }
}

impl Add for Memory {
    type Output = Memory;

    fn add(self, other: Memory) -> Memory {
        Memory { host: self.host.saturating_add(other.host), gpu: self.gpu.saturating_add(other.gpu) }
    }
}

impl AddAssign for Memory {
    fn add_assign(&mut self, other: Memory) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Memory {
    fn sum<I: Iterator<Item = Memory>>(all: I) -> Memory {
        all.fold(Memory::NONE, Add::add)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        match self.gpu {
            0 => write!(f, "{} MiB", mib(self.host)),
            gpu => write!(f, "{} MiB and {} MiB of GPU memory", mib(self.host), mib(gpu)),
        }
    }
}
