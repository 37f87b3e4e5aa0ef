//! Owns what a launcher is told.

use std::ffi::OsString;
use std::path::PathBuf;

use pontoon_models::Bundle;
use serde::{Deserialize, Serialize};

/// One engine to become. All of it comes from the supervisor; nothing from a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// All of it: the engine inherits nothing.
    pub environment: Vec<(OsString, OsString)>,
    /// The files to check before the engine sees them.
    pub check: Vec<Bundle>,
    /// What the engine may read beyond the system's libraries: model, program, plug-ins.
    pub read: Vec<PathBuf>,
    /// Where it may make its socket and its files.
    pub write: Vec<PathBuf>,
    pub limits: Limits,
    /// Whom to become; only root can.
    pub user: Option<User>,
    /// The supervisor: the engine ends with it.
    pub parent: Option<u32>,
    /// Refuse to run on a kernel without Landlock.
    pub landlock_required: bool,
}

/// Limits of the engine process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of address space. GPU drivers reserve far more than they use, so this is for tests and for
    /// engines without a GPU.
    pub address_space: Option<u64>,
    /// Bytes of one file, which bounds a saved slot.
    pub file_size: Option<u64>,
    pub files: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { address_space: None, file_size: None, files: 4096 }
    }
}

/// An unprivileged user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}
