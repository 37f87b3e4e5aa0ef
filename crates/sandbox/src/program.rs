//! Owns the description of the program that a confined process becomes.

use std::ffi::OsString;
use std::path::PathBuf;

/// A program, by its file: not looked up in `PATH`, and no script.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    /// Without the program's own name.
    pub arguments: Vec<OsString>,
    /// All of it: nothing is inherited.
    pub environment: Vec<(OsString, OsString)>,
}
