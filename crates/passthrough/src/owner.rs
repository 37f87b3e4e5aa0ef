//! Who has a device: a process, told from a later one with the same number by when it started, or the administrator.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "owner", rename_all = "kebab-case")]
pub enum Owner {
    /// Somebody at a shell: until they put it back.
    Administrator,
    /// A process: as long as it lives.
    Process {
        /// Its number.
        pid: u32,
        /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
        started: u64,
        /// What it is, in words.
        what: String,
    },
}

impl Owner {
    /// A process that lives.
    pub fn process(root: &Path, pid: u32, what: &str) -> Option<Self> {
        Some(Self::Process { pid, started: started(root, pid)?, what: what.to_owned() })
    }

    /// Whether it can still have anything.
    pub fn lives(&self, root: &Path) -> bool {
        match self {
            Self::Administrator => true,
            Self::Process { pid, started: then, .. } => started(root, *pid) == Some(*then),
        }
    }
}

/// When a process started; nothing where there is none, or only what its parent has not buried yet.
fn started(root: &Path, pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(root.join(format!("proc/{pid}/stat"))).ok()?;
    // The name in parentheses may have anything in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if ["Z", "X"].contains(&state) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Administrator => f.write_str("`pontoon vfio bind`"),
            Self::Process { pid, what, .. } => write!(f, "{what} (pid {pid})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one() {
        let root = Path::new("/");
        let me = Owner::process(root, std::process::id(), "a test").unwrap();
        assert!(me.lives(root));
        let Owner::Process { pid, started, what } = me else { panic!() };
        assert!(!Owner::Process { pid, started: started + 1, what }.lives(root));
        assert_eq!(Owner::process(root, u32::MAX, "nobody"), None);
    }
}
